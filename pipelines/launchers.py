"""Launchers of trainings. The orchestrator never trains: it starts ``pipelines.trainer`` and follows its messages.

A job queue or a cluster is another ``TrainerLauncher``: what it has to run is always a request file.
"""

from __future__ import annotations

import re
from pathlib import Path

from dagster import AssetExecutionContext, PipesSubprocessClient
from dagster._core.errors import DagsterPipesExecutionError

from assets.resources import TrainerLauncher
from pipelines.trainer import failure_file
from sumi_core.base.forking import forked
from sumi_core.stages.base import Launcher
from sumi_core.trainer.launcher import how_it_ended, trainer_command
from sumi_core.trainer.request import Request
from sumi_core.training.errors import TrainingFailed

#: What a training process imports, for a server that forks several of them (``sumi_core.base.forking``).
TRAINER_MODULES = (
    "mlflow",
    "dagster_pipes",
    "sumi_core.experiments.build",
    "sumi_core.data.shards",
    "sumi_core.data.tokenizers.tokenizer",
    "sumi_core.trainer.run",
    "sumi_core.training.publishing",
    "sumi_core.training.session",
)


class LocalLauncher(TrainerLauncher):
    """A launcher of training processes on this machine, under torchrun when ``runtime.devices`` is above one."""

    def bind(self, context: AssetExecutionContext) -> Launcher:
        """A launcher whose messages arrive in this asset's log."""
        return _Local(context)


class _Local:
    def __init__(self, context: AssetExecutionContext) -> None:
        self.context = context

    def run(self, request: Path) -> None:
        """Train; raises TrainingFailed with the trainer's own sentence."""
        failure = failure_file(request)
        failure.unlink(missing_ok=True)
        command = trainer_command(request, module="pipelines.trainer")
        if Request.read(request).devices == 1:  # torchrun starts processes of its own
            command = forked(command)
        try:
            PipesSubprocessClient(termination_timeout_seconds=120).run(context=self.context, command=command)
        except DagsterPipesExecutionError as error:
            raise TrainingFailed(_told(failure, str(error))) from None


def _told(failure: Path, error: str) -> str:
    """The trainer's own sentence; where it had no time for one, what ended it."""
    if failure.exists():
        return failure.read_text(encoding="utf-8")
    status = re.search(r"failed with code (-?\d+)", error)  # all that Pipes reports
    return how_it_ended(int(status[1])) if status else error
