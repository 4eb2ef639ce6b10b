"""Where training runs. The orchestrator never trains: it starts ``pipelines.trainer`` somewhere and listens."""

from __future__ import annotations

import sys
from pathlib import Path

from dagster import AssetExecutionContext, PipesSubprocessClient
from dagster._core.errors import DagsterPipesExecutionError
from sumi_core.training.launcher import TrainingFailed, failure_of

from assets.resources import TrainerLauncher
from sumi_core.stages import Launcher


class LocalLauncher(TrainerLauncher):
    """Training in a process on this machine, under torchrun when ``processes`` is above one."""

    processes: int = 1

    def bind(self, context: AssetExecutionContext) -> Launcher:
        """A launcher whose messages arrive in this asset's log."""
        return _Local(context, self.command())

    def command(self) -> list[str]:
        """The command before the request file."""
        if self.processes == 1:
            return [sys.executable, "-m", "pipelines.trainer"]
        return [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *(f"--nproc-per-node={self.processes}", "-m", "pipelines.trainer"),
        ]


class _Local:
    def __init__(self, context: AssetExecutionContext, command: list[str]) -> None:
        self.context, self.command = context, command

    def run(self, request: Path) -> None:
        """Train; raises TrainingFailed with the trainer's own sentence."""
        try:
            PipesSubprocessClient().run(context=self.context, command=[*self.command, str(request)])
        except DagsterPipesExecutionError as error:
            raise TrainingFailed(failure_of(request) or str(error)) from None
