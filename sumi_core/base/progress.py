"""How long-running work reports its progress."""

from __future__ import annotations

from collections.abc import Callable

Log = Callable[[str], None]
#: (done, total or 0 where it is not known, unit, what is being done)
Progress = Callable[[float, float, str, str], None]


def unwatched(done: float, total: float, unit: str, note: str) -> None:
    """The progress function that reports nothing."""
