"""Starting a training process and watching over it. Another place (a job queue, a cluster, Dagster Pipes) is another
launcher; what it has to run is always a request file."""

from __future__ import annotations

import collections
import contextlib
import json
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from sumi_core.base.progress import Log, Progress, unwatched
from sumi_core.trainer.request import Request
from sumi_core.training.errors import TrainingFailed

_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*([A-Z]\w*): (.+)")  # the last line of a traceback


def trainer_command(request: Path, *arguments: str, module: str = "sumi_core.trainer") -> list[str]:
    """The command that trains for a request file: a Python process, or torchrun with one process per device."""
    devices = Request.read(request).devices
    if devices == 1:
        return [sys.executable, "-m", module, str(request), *arguments]
    torchrun = ["sumi_core.trainer.torchrun", "--standalone", f"--nproc-per-node={devices}"]
    return [sys.executable, "-m", *torchrun, "-m", module, str(request), *arguments]


@dataclass
class SubprocessLauncher:
    """A child process of this one, in a session of its own so that a Ctrl-C reaches it only from here.

    Interrupting the caller (Ctrl-C, SIGTERM, Dagster's interrupt: any BaseException) sends the child SIGTERM, gives it
    ``grace_seconds`` to end its update and save, then kills it. Killing the caller ends the child too: the kernel sends
    the child SIGTERM then (Linux).
    """

    log: Log = print
    progress: Progress = unwatched
    grace_seconds: float = 120.0

    def run(self, request: Path) -> None:
        """Train. Raises TrainingFailed with the trainer's own last sentence."""
        command = trainer_command(request, "--events")
        with _sigterm_as_exit():
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            try:
                problem = self._follow(child)
            except BaseException:
                _end(child, self.grace_seconds)
                raise
        if child.returncode != 0:
            raise TrainingFailed(problem or how_it_ended(child.returncode))

    def _follow(self, child: subprocess.Popen[str]) -> str | None:
        """Pass the child's events on until it ends; returns its last error sentence."""
        assert child.stdout is not None
        assert child.stderr is not None
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        errors: collections.deque[str] = collections.deque(maxlen=100)

        def read_output(stream: IO[str]) -> None:
            for line in stream:
                lines.put(line.rstrip("\n"))
            lines.put(None)

        def read_errors(stream: IO[str]) -> None:
            errors.extend(line.rstrip() for line in stream if line.strip())

        # Threads, so that a child that is being ended never blocks on a full pipe.
        readers = [
            threading.Thread(target=read_output, args=(child.stdout,), daemon=True),
            threading.Thread(target=read_errors, args=(child.stderr,), daemon=True),
        ]
        for reader in readers:
            reader.start()
        problem = None
        while (line := lines.get()) is not None:
            event = _event(line)
            if event["kind"] == "progress":
                self.progress(event["step"], event["steps"], "step", event["text"])
            elif event["kind"] == "log":
                self.log(event["text"])
            elif event["kind"] == "error":
                problem = event["text"]
        child.wait()
        for reader in readers:
            reader.join()
        if child.returncode != 0 and problem is None:
            for text in errors:
                self.log(text)
            problem = _last_sentence(errors)
        return problem


def _event(line: str) -> dict[str, Any]:
    """An event of the trainer; a line that something else printed counts as a log line."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) and "kind" in event else {"kind": "log", "text": line}


def _last_sentence(errors: Sequence[str]) -> str | None:
    """The message of an uncaught exception: ``package.Error: what is wrong`` → ``what is wrong``."""
    for line in reversed(errors):
        found = _EXCEPTION.fullmatch(line)
        if found:
            return f"{found[2]} ({found[1]})"
    return None


def how_it_ended(status: int) -> str:
    """What to tell of a trainer that left no sentence of its own, from its exit status (negative: a signal)."""
    if status < 0:
        name = signal.Signals(-status).name
        hint = ", perhaps since memory ran out" if -status == signal.SIGKILL else ""
        return f"the trainer was killed by {name}{hint}; the same command continues from its last checkpoint"
    return f"the trainer ended with status {status} and said nothing; run `python -m sumi_core.trainer` on its request"


def _end(child: subprocess.Popen[str], grace_seconds: float) -> None:
    """SIGTERM, time to save, SIGKILL. A second interruption while waiting kills at once."""
    try:
        child.terminate()
        child.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


@contextlib.contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Let SIGTERM unwind this process instead of ending it on the spot, unless a handler is installed already."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
