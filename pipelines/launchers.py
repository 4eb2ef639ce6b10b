"""Launchers of trainings. The orchestrator never trains: it starts ``pipelines.trainer`` and follows its messages.

A job queue or a cluster is another ``TrainerLauncher``: what it has to run is always a request file.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from dagster import AssetExecutionContext, PipesSubprocessClient
from dagster._core.errors import DagsterExecutionInterruptedError, DagsterPipesExecutionError

from assets.resources import TrainerLauncher
from pipelines.trainer import failure_file
from sumi_core.base.forking import SERVER_DIED, forked
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
_ENDED_FROM_OUTSIDE = (-signal.SIGTERM, 128 + signal.SIGTERM, SERVER_DIED)  # exit statuses


class LocalLauncher(TrainerLauncher):
    """A launcher of training processes on this machine, under torchrun when ``runtime.devices`` is above one."""

    def bind(self, context: AssetExecutionContext) -> Launcher:
        """A launcher whose messages arrive in this asset's log."""
        return _Local(context)


class _Local:
    def __init__(self, context: AssetExecutionContext) -> None:
        self.context = context

    def run(self, request: Path) -> None:
        """Train; raises TrainingFailed with the trainer's own sentence, and DagsterExecutionInterruptedError where the
        trainer was ended because the command that started this process is gone."""
        failure, parent = failure_file(request), os.getppid()
        failure.unlink(missing_ok=True)
        command = trainer_command(request, module="pipelines.trainer")
        if Request.read(request).devices == 1:  # torchrun starts processes of its own
            command = forked(command)
        try:
            PipesSubprocessClient(termination_timeout_seconds=120).run(context=self.context, command=command)
        except DagsterPipesExecutionError as error:
            status = _status(str(error))
            if status in _ENDED_FROM_OUTSIDE and os.getppid() != parent:
                raise DagsterExecutionInterruptedError from None
            raise TrainingFailed(_told(failure, str(error))) from None


def _status(error: str) -> int | None:
    """The trainer's exit status, in the words of Pipes, which reports nothing else."""
    found = re.search(r"failed with code (-?\d+)", error)
    return int(found[1]) if found else None


def _told(failure: Path, error: str) -> str:
    """The trainer's own sentence; where it had no time for one, what ended it. Where the server that it was forked from
    is gone, that is the cause, whatever the trainer says of the signal that it got."""
    status = _status(error)
    if status == SERVER_DIED:
        return (
            "the fork server (sumi_core.base.forking), which trainings of this command are started from, was killed, "
            "perhaps since memory ran out; the same command continues from the last checkpoint"
        )
    if failure.exists():
        return failure.read_text(encoding="utf-8")
    return how_it_ended(status) if status is not None else error
