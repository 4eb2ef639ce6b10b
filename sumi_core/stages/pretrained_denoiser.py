"""Stage ``pretrained_denoiser``: ask a launcher for a training and check what it left."""

from __future__ import annotations

import math
from typing import Any

from sumi_core.stages.base import Check, Records, Stage, StageContext, Verdict
from sumi_core.stages.store import Artifact


def build(context: StageContext) -> dict[str, Any]:
    """Train in a process of its own, resuming what ``context.folder`` holds. Returns ``training.json``, and beside its
    own ``flops`` the ``total_flops``: its own and those of all trainings that its weights come from.

    Raises TrainingFailed with the trainer's own sentence, or when it left no whole output.
    """
    from sumi_core.trainer.launcher import SubprocessLauncher
    from sumi_core.trainer.request import Request, TrackingAddress
    from sumi_core.training.errors import TrainingFailed
    from sumi_core.training.outputs import HISTORY, LAST, LOCK, REQUEST, WEIGHTS, finished_summary

    request, uri, run_id = context.folder / REQUEST, context.tracking_uri, context.run_id
    Request(
        key=context.key,
        experiment=context.experiment.to_dict(),
        recipe=context.recipe,
        inputs={name: str(folder.resolve()) for name, folder in context.folders.items()},
        tables={name: str(folder.resolve()) for name, folder in context.tables.items()},
        folder=str(context.folder.resolve()),
        # Without a run to log into while training, MLflow is left to the recording of the finished stage.
        tracking=TrackingAddress(uri, run_id) if uri is not None and run_id is not None else None,
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
    return {**summary, "total_flops": summary["flops"] + _earlier_flops(context)}


def _earlier_flops(context: StageContext) -> float:
    """What the trainings that this one starts from cost, each output once."""
    outputs = {artifact.fingerprint: artifact.summary for artifact in context.references.values()}
    return float(sum(summary.get("total_flops", summary.get("flops", 0.0)) for summary in outputs.values()))


def _loss_is_finite(artifact: Artifact) -> Verdict:
    final = float(artifact.summary["validation_bits_per_byte"])
    return Verdict(math.isfinite(final), metadata={"validation_bits_per_byte": final})


STAGE = Stage(
    "pretrained_denoiser",
    "3",
    "A denoiser (or autoregressive baseline) trained by Lightning; resumes exactly where a killed run stopped.",
    build,
    "cell",
    doing="training",
    reads=("model", "process", "schedule", "clock", "parameterisation", "layout", "objective", "training", "seed"),
    inputs=("tokenizer", "token_shards"),
    takes_tables=True,
    resumable=True,
    checks=(Check("validation_loss_is_finite", "The last validation of training is a number.", _loss_is_finite),),
    records=Records(
        files=("training.json",),
        history="history.parquet",
        constants=("parameters", "steps", "tokens_seen", "epochs", "*flops*", "validation_sequences", "devices"),
        in_history=("train_loss", "validation_*"),
    ),
    kinds=frozenset({"pytorch", "lightning"}),
    pool="trainer",
)
