"""A process that has imported what many others need, and forks one of them for each command: they start at once.

    with ForkServer(["torch"]):
        subprocess.run(forked([sys.executable, "-m", "some.module", "argument"]))

The command is a small client: it hands its streams, environment and folder to the server, passes SIGINT and SIGTERM on
to the forked process, and ends as that one ends. A forked process gets SIGTERM when its client or the server dies; the
client of a server that died ends with the status ``SERVER_DIED``.
Without a server, the client becomes the command itself. Libraries that the server imported keep the settings of its
environment (``OMP_NUM_THREADS``). Linux only: on other systems ``forked`` returns the command unchanged.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sumi_core.base.process import ParentDied, die_with_parent

SERVER_DIED = 81  # the exit status of a client whose server is gone

_ADDRESS = "SUMI_FORK_SERVER"  # the environment variable that holds the address of the server
_MODULE = "sumi_core.base.forking"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_REQUEST = 1 << 20  # bytes of a request at most: a larger environment starts its process in the ordinary way


class ForkServer:
    """A server for the commands of this process and of its children, which find it in their environment. It begins to
    import when it is entered, and ends with this process."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = tuple(modules)
        self._folder: str | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ForkServer:
        if sys.platform.startswith("linux") and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # commands then start in the ordinary way
                self._start()
        return self

    def _start(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="sumi-")  # only its owner may look into it
        try:
            os.close(os.pidfd_open(os.getpid()))  # kernels before 5.3 have none
            address = os.path.join(self._folder, "server")
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
                listener.bind(address)
                listener.listen(64)  # clients wait from now on, until everything is imported
                number = listener.fileno()
                command = [sys.executable, "-m", _MODULE, "serve", str(number), *self._modules]
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[number])
            os.environ[_ADDRESS] = address
        except OSError:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def __exit__(self, *_: object) -> None:
        os.environ.pop(_ADDRESS, None)
        if self._process is not None and self._folder is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            shutil.rmtree(self._folder, ignore_errors=True)


def forked(command: Sequence[str]) -> list[str]:
    """A command ``[python, "-m", module, …]`` that the server around this process forks, if there is one."""
    python, option, *module = command
    address = os.environ.get(_ADDRESS)
    if address is None or option != "-m":
        return [*command]
    return [python, option, _MODULE, "ask", address, *module]


# --- the client -----------------------------------------------------------------------------------------------------


def _ask(address: str, arguments: Sequence[str]) -> int:
    """Let the server run a module and wait for its end; returns its exit status."""
    die_with_parent()
    request = json.dumps(
        {"arguments": list(arguments), "folder": os.getcwd(), "environment": dict(os.environ)}
    ).encode()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _REQUEST)
        if len(request) > _REQUEST:
            raise OSError(errno.EMSGSIZE, "too large for a server")
        server.connect(address)
        socket.send_fds(server, [request], [0, 1, 2])
    except OSError:  # it is gone, or the request is too large for it
        server.close()
        os.execv(sys.executable, [sys.executable, "-m", *arguments])

    def pass_on(number: int, _: object) -> None:
        with contextlib.suppress(OSError):
            server.send(bytes([number]))

    for number in _SIGNALS:
        signal.signal(number, pass_on)
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        answer = server.recv(16)
    status = int(answer) if answer else SERVER_DIED
    if status < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler to take back
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


# --- the server -----------------------------------------------------------------------------------------------------


class _Server:
    """Clients, the processes forked for them, and the events that end either."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._events = selectors.DefaultSelector()
        self._events.register(listener, selectors.EVENT_READ, self._accept)
        self._terminated: set[int] = set()  # processes that were asked to end

    def serve(self) -> None:
        """Serve until this process is ended."""
        while True:
            for key, _ in self._events.select():
                if self._events.get_map().get(key.fd) is key:  # not closed by an event before it
                    key.data()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        streams: Sequence[int] = ()
        try:
            request, streams, _, _ = socket.recv_fds(client, _REQUEST, 3)
            if len(streams) < 3:
                raise OSError(errno.EPROTO, "not a request")
            process = self._fork(client, request, streams)
            ended = os.pidfd_open(process)
        except OSError:  # it died meanwhile, or nothing more can be opened
            client.close()
            return
        finally:
            for stream in streams:
                os.close(stream)
        self._events.register(client, selectors.EVENT_READ, lambda: self._hear(client, process))
        self._events.register(ended, selectors.EVENT_READ, lambda: self._end(client, process, ended))

    def _fork(self, client: socket.socket, request: bytes, streams: Sequence[int]) -> int:
        """A process for a request; signals wait until it has handlers of its own."""
        server = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        process = os.fork()
        if process == 0:
            try:
                for key in [*self._events.get_map().values()]:  # what is of others
                    key.fileobj.close() if isinstance(key.fileobj, socket.socket) else os.close(key.fd)
                client.close()
                self._events.close()
                _become(request, streams, server)
            finally:
                os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return process

    def _hear(self, client: socket.socket, process: int) -> None:
        """Pass a signal on; a client that closed its end is dead, and its process is ended."""
        with contextlib.suppress(ConnectionResetError):
            if number := client.recv(1):
                self._terminated.add(process)
                os.kill(process, number[0])
                return
        self._events.unregister(client)
        os.kill(process, signal.SIGKILL if process in self._terminated else signal.SIGTERM)

    def _end(self, client: socket.socket, process: int, ended: int) -> None:
        _, state = os.waitpid(process, 0)
        self._events.unregister(ended)
        os.close(ended)
        self._terminated.discard(process)
        with contextlib.suppress(KeyError):  # it is dead already
            self._events.unregister(client)
        with contextlib.suppress(OSError):
            client.send(str(os.waitstatus_to_exitcode(state)).encode())
        client.close()


def _become(message: bytes, streams: Sequence[int], server: int) -> None:
    """Run a module in this process, which was forked for it by ``server``, as ``python -m`` would; does not return. Its
    process group is its own, so that Ctrl-C reaches it once, from its client."""
    status: int = 1
    try:
        os.setpgid(0, 0)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        die_with_parent()
        if os.getppid() != server:
            raise ParentDied
        request: dict[str, Any] = json.loads(message)
        for place, stream in enumerate(streams):
            os.dup2(stream, place)
            os.close(stream)
        sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        module, *arguments = request["arguments"]
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except ParentDied:
        status = 128 + int(signal.SIGTERM)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _leave(number: int, _: object) -> None:
    """End the server, at the first signal: the kernel sends one for each thread of a parent that dies."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit()


def _serve(number: int, modules: Sequence[str]) -> None:
    """number: the file descriptor of the socket that clients connect to."""
    with contextlib.suppress(ParentDied):
        die_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for those that it forked
        signal.signal(signal.SIGTERM, _leave)
        listener = socket.socket(fileno=number)
        try:
            for module in modules:
                importlib.import_module(module)
            _Server(listener).serve()
        finally:
            shutil.rmtree(Path(listener.getsockname()).parent, ignore_errors=True)


if __name__ == "__main__":
    _role, _place, *_rest = sys.argv[1:]
    if _role == "serve":
        _serve(int(_place), _rest)
    else:
        try:
            sys.exit(_ask(_place, _rest))
        except ParentDied:
            sys.exit(128 + signal.SIGTERM)
