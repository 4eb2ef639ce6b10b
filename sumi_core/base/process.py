"""The life of a process: ending together with the process that started it, and at once on Ctrl-C."""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")

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
