"""The life of a process: ending together with the process that started it, and at once on Ctrl-C."""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar, cast

T = TypeVar("T")

#: One interruption may arrive as several signals within these seconds: the kernel sends SIGTERM again for every thread
#: of a parent that dies, and what Ctrl-C sends to a whole command its first process passes on.
ONE_INTERRUPTION = 2.0

_INTERRUPTING = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ParentDied(BaseException):
    """The process that started this one is gone. Like KeyboardInterrupt no Exception, so that no library between here
    and the process's end takes it for a failure to recover from."""


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent dies, so that no orphan trains on (Linux; elsewhere nothing).

    The parent may have died before the request was made, hence the look at who the parent is. Raises ParentDied then.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_PDEATHSIG): {os.strerror(number)}")
    if os.getppid() != parent:
        raise ParentDied


@contextlib.contextmanager
def repeats_ignored() -> Iterator[None]:
    """Let the body, which writes down that this process was interrupted, not be cut off by a signal that belongs to the
    same interruption. A later one counts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    started, before = time.monotonic(), {number: signal.getsignal(number) for number in _INTERRUPTING}

    def handle(number: int, frame: FrameType | None) -> None:
        handler = before[signal.Signals(number)]
        if time.monotonic() - started < ONE_INTERRUPTION or handler is signal.SIG_IGN:
            return
        if callable(handler):
            handler(number, frame)
        else:
            raise SystemExit(128 + number)

    for number in _INTERRUPTING:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def interruptible(work: Callable[[], T]) -> T:
    """The result of long work in a library that looks for no signal, such as one written in Rust: it is done in a
    thread, so that Ctrl-C ends the wait at once. An interrupted thread goes on until the process ends."""
    done: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((True, work()))
        except BaseException as error:
            done.put((False, error))

    threading.Thread(target=run, daemon=True).start()
    succeeded, result = done.get()
    if not succeeded:
        raise result
    return cast(T, result)


def end_quietly() -> None:
    """Let Ctrl-C end this process at once and without a word, until it handles it itself: while a child of a command
    still imports, the terminal sends it the same signal, and its traceback would tell nothing."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
