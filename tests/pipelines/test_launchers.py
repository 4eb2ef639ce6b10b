"""A trainer that ends badly says why, whatever it had time for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dagster import PipesSubprocessClient
from dagster._core.errors import DagsterExecutionInterruptedError, DagsterPipesExecutionError

from pipelines import launchers
from pipelines.launchers import _Local, _told
from pipelines.trainer import failure_file
from sumi_core.base.forking import SERVER_DIED
from sumi_core.training.errors import TrainingFailed


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("External execution process failed with code -9", "the trainer was killed by SIGKILL, perhaps since memory"),
        ("External execution process failed with code -15", "the trainer was killed by SIGTERM; the same command"),
        ("External execution process failed with code 3", "the trainer ended with status 3 and said nothing"),
        ("something else", "something else"),
    ],
)
def test_how_a_trainer_ended(error: str, told: str, tmp_path: Path) -> None:
    assert _told(tmp_path / "none", error).startswith(told)
    (tmp_path / "own").write_text("diverged at step 3")
    assert _told(tmp_path / "own", error) == "diverged at step 3"


def test_the_death_of_the_fork_server_is_named_as_the_cause(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("training was stopped by SIGTERM")
    told = _told(tmp_path / "own", f"External execution process failed with code {SERVER_DIED}")
    assert told.startswith("the fork server (sumi_core.base.forking), which trainings of this command are started")


@pytest.mark.parametrize("status", [-15, 143, SERVER_DIED])
def test_a_trainer_that_ends_with_the_whole_command_has_not_failed(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sumi run` was killed: the kernel ends its children, in any order."""
    request, parents = tmp_path / "request.json", [1000, 1]

    def end(*_: Any, **__: Any) -> None:
        failure_file(request).write_text("training was stopped by SIGTERM")
        raise DagsterPipesExecutionError(f"External execution process failed with code {status}")

    monkeypatch.setattr(PipesSubprocessClient, "run", end)
    monkeypatch.setattr(launchers, "trainer_command", lambda *_, **__: ["python", "-m", "true"])
    monkeypatch.setattr(launchers.Request, "read", lambda _: type("One", (), {"devices": 1}))
    local = _Local(context=None)  # type: ignore[arg-type]
    monkeypatch.setattr(os, "getppid", lambda: parents.pop(0) if len(parents) > 1 else parents[0])
    with pytest.raises(DagsterExecutionInterruptedError):
        local.run(request)
    monkeypatch.setattr(os, "getppid", lambda: 1000)
    with pytest.raises(TrainingFailed):
        local.run(request)


def test_what_trainings_share_leaves_the_gpu_alone() -> None:
    """A process that has used CUDA cannot be forked."""
    code = (
        "import importlib, torch\n"
        "from pipelines.launchers import TRAINER_MODULES\n"
        "for name in TRAINER_MODULES: importlib.import_module(name)\n"
        "print(torch.cuda.is_initialized())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
