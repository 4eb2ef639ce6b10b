"""What a run prints in a terminal: lines that fit it, and progress in one line."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from pipelines import watch_quietly
from pipelines.console import _InTerminal

LONG = "step 10/20 · validation 5.5664 ± 0.9661 bits per byte · 3.8583 nats per token"


def printed(columns: int, *messages: str) -> str:
    """What a terminal of some width gets of an asset's log."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(writer, "w", encoding="utf-8") as terminal:
        handler = _InTerminal(terminal)
        for message in messages:
            record = logging.LogRecord("sumi", logging.INFO, "", 0, message, (), None)
            record.dagster_meta = {"step_key": "pretrained_denoiser", "orig_message": message}
            handler.emit(record)
    told = b""
    with contextlib.suppress(OSError):  # the terminal is closed
        while part := os.read(reader, 65536):
            told += part
    os.close(reader)
    return told.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_lines_fit_the_terminal_and_numbers_stay_whole(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    told = printed(columns, LONG)
    assert max(map(len, told.splitlines())) <= columns
    assert {"5.5664", "0.9661", "3.8583", "10/20"} <= set(told.split())
    assert (len(told.splitlines()) == 1) is (columns == 120)


def test_progress_is_one_line_with_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    steps = [f"step {step}/20 · {5 * step}% · loss 0.667 · 16.8k tok/s · ETA 0:01" for step in (5, 10, 20)]
    _, first, second = printed(80, steps[0], steps[1], "exported").split("\x1b[2K")
    assert "\n" not in first
    assert first.count("━") * 2 == second.count("━")
    assert second.splitlines()[1:] == ["  pretrained_denoiser  exported"]
    assert printed(80, steps[2]).endswith("step 20/20 · loss 0.667 · ETA 0:01\n")
    assert printed(120, steps[2]).endswith("step 20/20 · loss 0.667 · 16.8k tok/s · ETA 0:01\n")


def test_what_watches_the_output_is_deaf_to_ctrl_c_and_ends_with_the_step() -> None:
    program = (
        "import os, subprocess, sys\n"
        "tail = subprocess.Popen(['sleep', '60'])\n"
        f"watcher = subprocess.Popen([sys.executable, {watch_quietly.__file__!r}, str(os.getpid()), str(tail.pid)])\n"
        "print(watcher.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert parent.stdout is not None
    watcher = int(parent.stdout.readline())
    time.sleep(1.5)  # it imports nothing heavy
    os.kill(watcher, signal.SIGINT)
    time.sleep(0.2)
    os.kill(watcher, 0)  # it lives
    _, errors = parent.communicate(timeout=60)  # with its parent gone it ends the mirror, and itself
    assert errors == ""
