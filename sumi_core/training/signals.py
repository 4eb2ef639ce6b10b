"""SIGTERM and SIGINT during a training: noted, and obeyed after the step that is running."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from sumi_core.base.process import ONE_INTERRUPTION
from sumi_core.training.errors import TrainingInterrupted


class StopSignal:
    """SIGTERM and SIGINT. While ``deferred`` the first is only noted, to be honoured after the step that is running;
    otherwise, and from the second on, they raise TrainingInterrupted where they arrive. The same signal again, at once,
    is no second one."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.deferred = False
        self._noted = 0.0  # when
        self._previous: dict[int, Any] = {}

    def install(self) -> None:
        """Take the signals over (again: Lightning puts its own handler on SIGTERM when a fit starts)."""
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread receives signals; a caller that trains in another keeps its own handling
        for signum in (signal.SIGTERM, signal.SIGINT):
            previous = signal.signal(signum, self._handle)
            self._previous.setdefault(signum, previous)

    def restore(self) -> None:
        """Give the signals back."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.deferred and self.received is None:
            self.received, self._noted = signum, time.monotonic()
            return
        if signum == self.received and time.monotonic() - self._noted < ONE_INTERRUPTION:
            return
        raise TrainingInterrupted(signum)


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignal]:
    """Handle SIGTERM and SIGINT for the body's duration."""
    stop = StopSignal()
    stop.install()
    try:
        yield stop
    finally:
        stop.restore()
