"""Commands that a server forks: they do what they would do alone, and no process outlives whoever waits for it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sumi_core.base.forking import SERVER_DIED, ForkServer, forked

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="servers are for Linux")

TOLD = """
import os, sys, xml
print(sys.argv[1:], os.getcwd(), os.environ["TOLD"], "wave" in sys.modules, __name__)
print("an error", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""
WAITS = """
import os, signal, sys, time
def leave(number, _):
    open(sys.argv[2], "w").write(str(number))
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, leave)
print(os.getpid(), flush=True)
while True:
    time.sleep(0.05)
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    (tmp_path / "told.py").write_text(TOLD)
    (tmp_path / "waits.py").write_text(WAITS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}")
    with ForkServer(["wave"]) as made:
        yield made


def command(*arguments: str) -> list[str]:
    return forked([sys.executable, "-m", *arguments])


def test_a_command_gets_what_it_would_get_alone(server: ForkServer, tmp_path: Path) -> None:
    told = []
    for line in (command("told", "3", "two words"), [sys.executable, "-m", "told", "3", "two words"]):
        environment = {**os.environ, "TOLD": "here"}
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        told.append((done.returncode, done.stdout, done.stderr))
    (code, forked_output, error), (alone_code, alone_output, alone_error) = told
    assert (code, error) == (alone_code, alone_error) == (3, "an error\n")
    assert forked_output == f"['3', 'two words'] {tmp_path} here True __main__\n"
    assert alone_output == forked_output.replace("True", "False"), "it imports what the server has imported"


def test_one_that_fails_shows_its_traceback(server: ForkServer) -> None:
    done = subprocess.run(command("told"), env={**os.environ, "TOLD": ""}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("IndexError: list index out of range")


def waiting(mark: Path) -> tuple[subprocess.Popen[str], int]:
    """A command that waits for a signal, and the process that was forked for it."""
    client = subprocess.Popen(command("waits", "x", str(mark)), stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    return client, int(client.stdout.readline())


def gone(process: int) -> bool:
    """Whether a process ends within some seconds."""
    for _ in range(200):
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(process).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.05)
                continue
        return True
    return False


def test_signals_reach_it_and_its_end_is_the_client_s(server: ForkServer, tmp_path: Path) -> None:
    client, process = waiting(tmp_path / "mark")
    client.send_signal(signal.SIGTERM)
    assert client.wait(30) == 128 + signal.SIGTERM
    assert (tmp_path / "mark").read_text() == str(int(signal.SIGTERM))
    assert gone(process)
    client, process = waiting(tmp_path / "mark")
    os.kill(process, signal.SIGKILL)
    assert client.wait(30) == -signal.SIGKILL, "a launcher sees how the training ended"


@pytest.mark.parametrize("dies", ["client", "server"])
def test_it_is_asked_to_end_when_nobody_waits_any_more(server: ForkServer, tmp_path: Path, dies: str) -> None:
    client, process = waiting(tmp_path / "mark")
    victim = client.pid if dies == "client" else psutil.Process(process).ppid()
    os.kill(victim, signal.SIGKILL)
    assert gone(process)
    assert (tmp_path / "mark").read_text() == str(int(signal.SIGTERM)), "it had time to save"
    assert client.wait(30) == (SERVER_DIED if dies == "server" else -signal.SIGKILL)


def test_without_a_server_a_command_is_itself(server: ForkServer, tmp_path: Path) -> None:
    line = command("told", "0")
    server.__exit__()
    assert command("told", "0") == [sys.executable, "-m", "told", "0"]
    done = subprocess.run(line, env={**os.environ, "TOLD": "late"}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "an error\n")
    assert "late False __main__" in done.stdout
