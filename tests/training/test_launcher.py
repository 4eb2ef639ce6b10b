"""The launcher against small processes that end in every way a trainer can."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sumi_core.trainer import launcher as module
from sumi_core.trainer.launcher import SubprocessLauncher, trainer_command
from sumi_core.training.errors import TrainingFailed


class Watched(SubprocessLauncher):
    """A launcher that remembers what it was told."""

    def __init__(self, grace_seconds: float = 60) -> None:
        self.said: list[str] = []
        self.steps: list[tuple[float, float, str, str]] = []
        super().__init__(self.said.append, lambda *step: self.steps.append(step), grace_seconds)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Let the launcher run a few lines of Python in the trainer's place."""

    def use(code: str) -> Path:
        monkeypatch.setattr(module, "trainer_command", lambda request, *arguments: [sys.executable, "-c", code])
        return Path("request.json")

    return use


def test_events_arrive_and_stray_output_counts_as_log(script: Callable[[str], Path]) -> None:
    watched = Watched()
    watched.run(
        script(
            "print('hello'); print('[1]');"
            """print('{"kind": "log", "text": "waiting"}');"""
            """print('{"kind": "progress", "text": "step 3/9", "step": 3, "steps": 9, "loss": 1.0}')"""
        )
    )
    assert watched.said == ["hello", "[1]", "waiting"]
    assert watched.steps == [(3, 9, "step", "step 3/9")]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("""print('{"kind": "error", "text": "no such shard"}'); raise SystemExit(1)""", "^no such shard$"),
        (
            "class ShardError(ValueError): pass\nraise ShardError('x.npy is cut short')",
            r"^x\.npy is cut short \(ShardError\)$",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"killed by SIGKILL, perhaps since memory ran out"),
        ("import os; os._exit(7)", "ended with status 7"),
    ],
)
def test_failure_brings_the_trainers_own_last_sentence(script: Callable[[str], Path], code: str, message: str) -> None:
    with pytest.raises(TrainingFailed, match=message):
        Watched().run(script(code))


SAVING = """
import signal, sys, time
def save(signum, frame):
    print("x" * 200_000)  # more than a pipe holds: the launcher must go on reading
    open({path!r}, "w").write("saved")
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(100)
"""


class Interrupt(BaseException):
    """As Dagster's interrupt: no Exception."""


def test_interruption_lets_the_trainer_save_and_passes_on(script: Callable[[str], Path], tmp_path: Path) -> None:
    def interrupt(text: str) -> None:
        raise Interrupt

    with pytest.raises(Interrupt):
        SubprocessLauncher(log=interrupt, grace_seconds=60).run(script(SAVING.format(path=str(tmp_path / "state"))))
    assert (tmp_path / "state").read_text() == "saved"


def test_sigterm_to_the_caller_lets_the_trainer_save(script: Callable[[str], Path], tmp_path: Path) -> None:
    def terminate(text: str) -> None:
        if text == "ready":
            os.kill(os.getpid(), signal.SIGTERM)

    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(SystemExit) as left:
        SubprocessLauncher(log=terminate, grace_seconds=60).run(script(SAVING.format(path=str(tmp_path / "state"))))
    assert left.value.code == 143
    assert (tmp_path / "state").read_text() == "saved"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_trainer_that_will_not_end_is_killed(script: Callable[[str], Path], tmp_path: Path) -> None:
    ignore = "import signal, time, os; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    code = f"{ignore} print(os.getpid(), flush=True); time.sleep(100)"
    pids: list[int] = []

    def interrupt(text: str) -> None:
        pids.append(int(text))
        raise Interrupt

    with pytest.raises(Interrupt):
        SubprocessLauncher(log=interrupt, grace_seconds=0.1).run(script(code))
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_several_devices_go_through_torchrun(make_request: Callable[..., Path]) -> None:
    one = trainer_command(make_request("one"), "--events")
    assert one[1:3] == ["-m", "sumi_core.trainer"]
    two = trainer_command(make_request("two", runtime__devices=2), "--events")
    assert two[1:5] == ["-m", "sumi_core.trainer.torchrun", "--standalone", "--nproc-per-node=2"]
    assert two[5:7] == ["-m", "sumi_core.trainer"]
