"""Several servers as one program: they start together, stop together, and the first to die takes the others along.

Each has a session of its own, so that Ctrl-C in the terminal reaches only this process and is passed on in order, and
whatever a server starts can be ended with it. If this process is killed, the kernel stops each server.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from sumi_core.base.options import ConfigError
from sumi_core.base.process import die_with_parent

_STOP_SECONDS = 30.0  # how long a server may take to stop before it is killed
_TAIL_LINES = 20


@dataclass
class Server:
    """A server process: its command, its address and its log file."""

    name: str
    command: Sequence[str]
    url: str
    health: str  # a path that answers 200 once the server is up
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    page: str = ""  # what to open there, if not the address itself

    def start(self) -> None:
        """Start it, its output going to the log file."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                cwd=self.folder,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    @property
    def status(self) -> int | None:
        """Its exit status, None while it runs."""
        assert self.process is not None
        return self.process.poll()

    def answers(self) -> bool:
        """Whether it is up."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy: it is local
        try:
            with direct.open(f"{self.url}{self.health}", timeout=2) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def signal(self, signum: int) -> None:
        """Send a signal to the server and all it started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signum)

    def tail(self) -> str:
        """The end of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:])


def serve(servers: Sequence[Server], say: Callable[[str], None], start_seconds: float = 300.0) -> int:
    """Run servers until a signal or until one of them ends. Returns the exit status: 0 after a signal, else 1."""
    with _stop_event() as stop:
        try:
            for server in servers:
                server.start()
            return _watch(servers, say, stop, start_seconds)
        finally:
            stop_all(servers, say)


def _watch(servers: Sequence[Server], say: Callable[[str], None], stop: threading.Event, start_seconds: float) -> int:
    waiting, deadline = list(servers), time.monotonic() + start_seconds
    while not stop.wait(0.3):
        for server in servers:
            if server.status is not None:
                say(f"{server.name} ended with status {server.status}; the end of {server.log}:\n{server.tail()}")
                return 1
        for server in [server for server in waiting if server.answers()]:
            waiting.remove(server)
            say(f"{server.name:<8} {server.page or server.url}")
            if not waiting:
                say("Ctrl-C stops both" if len(servers) == 2 else "Ctrl-C stops it")
        if waiting and time.monotonic() > deadline:
            late = waiting[0]
            say(f"{late.name} does not answer after {start_seconds:.0f} s; the end of {late.log}:\n{late.tail()}")
            return 1
    say("stopping")
    return 0


def stop_all(servers: Sequence[Server], say: Callable[[str], None]) -> None:
    """Stop every server and what it started, first by a signal, by force when it takes too long."""
    started = [server for server in servers if server.process is not None]
    for server in started:
        server.signal(signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    for server in started:
        assert server.process is not None
        try:
            server.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            say(f"{server.name} did not stop within {_STOP_SECONDS:.0f} s and is killed")
        server.signal(signal.SIGKILL)  # what is left of its group: nothing, if it stopped well
        server.process.wait()


@contextlib.contextmanager
def _stop_event() -> Iterator[threading.Event]:
    """An event that SIGINT, SIGTERM and SIGHUP set for the body's duration."""
    stop = threading.Event()

    def handle(signum: int, frame: FrameType | None) -> None:
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {signum: signal.signal(signum, handle) for signum in signals}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def choose_port(host: str, wanted: int | None, default: int, name: str, say: Callable[[str], None]) -> int:
    """A free port: ``wanted`` or an error; by default ``default``, or the next free one, with a line about it."""
    if wanted is not None:
        if not _is_free(host, wanted):
            raise ConfigError("command line", f"--{name}-port", f"port {wanted} on {host} is taken; name another")
        return wanted
    for port in range(default, default + 100):
        if _is_free(host, port):
            if port != default:
                say(f"port {default} is taken, so {name} gets {port}")
            return port
    raise ConfigError("command line", f"--{name}-port", f"ports {default} to {default + 99} on {host} are all taken")


def _is_free(host: str, port: int) -> bool:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except (OSError, OverflowError) as error:
        raise ConfigError("command line", "--host", f"cannot listen on {host}:{port}: {error}") from None
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise ConfigError("command line", "--host", f"cannot listen on {host}: {error.strerror}") from None
    return True
