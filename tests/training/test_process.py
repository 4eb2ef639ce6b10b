"""A trainer ends with its parent, takes two signals seriously, and gives back what it borrowed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sumi_core.base import process
from sumi_core.base.numerics import deterministic
from sumi_core.base.process import ONE_INTERRUPTION, repeats_ignored
from sumi_core.training import signals
from sumi_core.training.errors import TrainingInterrupted
from sumi_core.training.ranks import Rank
from sumi_core.training.signals import stop_signals

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], *sys.argv[2:]], start_new_session=True)
child.wait()
"""
CHILD = """
import signal, sys, time
from pathlib import Path
from sumi_core.base.process import die_with_parent
signal.signal(signal.SIGTERM, lambda *_: (Path(sys.argv[1], "saved").touch(), sys.exit(143)))
die_with_parent()
Path(sys.argv[1], "ready").touch()
time.sleep(100)
"""


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.01)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the parent-death signal is Linux's")
def test_killing_the_parent_asks_the_trainer_to_save(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD, str(tmp_path)])
    wait_for(tmp_path / "ready")
    parent.kill()
    parent.wait()
    wait_for(tmp_path / "saved")


def test_first_signal_waits_for_the_step_and_the_second_does_not() -> None:
    with stop_signals() as stop:
        stop.deferred = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGTERM
        with pytest.raises(TrainingInterrupted, match="SIGINT") as stopped:
            os.kill(os.getpid(), signal.SIGINT)
        assert stopped.value.exit_code == 130


def test_one_interruption_is_one_signal_however_often_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel sends SIGTERM for each thread of a parent that dies, and Ctrl-C comes from terminal and parent."""
    monkeypatch.setattr(signals.time, "monotonic", lambda: 100.0)
    with stop_signals() as stop:
        stop.deferred = True
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGTERM, "it ends after its step, with a checkpoint"
        monkeypatch.setattr(signals.time, "monotonic", lambda: 100.0 + 2 * ONE_INTERRUPTION)
        with pytest.raises(TrainingInterrupted):
            os.kill(os.getpid(), signal.SIGTERM)


def test_what_an_interruption_writes_is_not_cut_off_by_its_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        monkeypatch.setattr(process.time, "monotonic", lambda: 100.0)
        with repeats_ignored():
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard == []
            monkeypatch.setattr(process.time, "monotonic", lambda: 100.0 + 2 * ONE_INTERRUPTION)
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard == [signal.SIGTERM], "somebody does not want to wait any longer"
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(heard) == 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_signals_and_numerics_are_given_back() -> None:
    handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    with stop_signals(), deterministic(before[0] + 1):
        assert torch.get_num_threads() == before[0] + 1
        assert torch.are_deterministic_algorithms_enabled()
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_rank_comes_from_torchruns_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert Rank.from_environment() == Rank(0, 1, 0, 1)
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert Rank.from_environment() == Rank(5, 8, 1, 4)


@pytest.mark.parametrize("module", ["pipelines.trainer", "sumi_core.trainer"])
def test_ctrl_c_before_a_training_begins_leaves_no_traceback(tmp_path: Path, module: str) -> None:
    """The imports of a trainer take seconds, in which it has nothing to save. One of them waits for the signal here."""
    code = (
        "import os, runpy, signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'sumi_core.trainer.run': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # it is ignored where tests run in the background
        f"sys.argv = ['trainer', {str(tmp_path / 'request.json')!r}]\n"
        "import sumi_core.trainer.request as request\n"
        "request.Request.read = classmethod(lambda cls, path: type('One', (), {'devices': 1}))\n"
        f"runpy.run_module({module!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""
