"""The stage ``pretrained_denoiser``: ask a launcher for a training and check what it left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sumi_core.training.errors import TrainingFailed
from sumi_core.training.launcher import SubprocessLauncher
from sumi_core.training.outputs import HISTORY, LAST, LOCK, REQUEST, WEIGHTS, finished_summary
from sumi_core.training.request import Request, TrackingAddress

if TYPE_CHECKING:
    from sumi_core.stages import StageContext


def build_pretrained_denoiser(context: StageContext) -> dict[str, Any]:
    """Train in a process of its own, resuming what ``context.folder`` holds. Returns ``training.json``.

    Raises TrainingFailed with the trainer's own sentence, or when it left no whole output.
    """
    request = context.folder / REQUEST
    Request(
        key=context.key,
        experiment=context.experiment.to_dict(),
        inputs={name: str(folder.resolve()) for name, folder in context.folders.items()},
        folder=str(context.folder.resolve()),
        tracking=_tracking(context),
    ).write(request)
    launcher = context.launcher or SubprocessLauncher(context.log, context.progress)
    launcher.run(request)
    summary = finished_summary(context.folder)
    missing = [name for name in (WEIGHTS, HISTORY, LAST) if not (context.folder / name).is_file()]
    if summary is None or missing:
        raise TrainingFailed(
            f"training of '{context.key}' ended without {', '.join(missing) or 'a summary'}; run it again to continue"
        )
    request.unlink()
    (context.folder / LOCK).unlink(missing_ok=True)
    return summary


def _tracking(context: StageContext) -> TrackingAddress | None:
    """The MLflow run to log into while training; None leaves MLflow to whoever records the finished stage."""
    run_id = context.run_id
    if context.tracking is None or run_id is None:
        return None
    return TrackingAddress(context.tracking.uri, run_id)
