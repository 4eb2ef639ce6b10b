"""A trainer that ends badly says why, whatever it had time for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.launchers import _told


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
