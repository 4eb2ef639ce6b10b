"""Whether a process that was seen earlier is still there."""

from __future__ import annotations

import psutil


def still_runs(pid: int, seen: float) -> bool:
    """Whether the process that had this id at a moment (seconds since the epoch, good to a second) runs, and not a
    later one under the same id. One that has ended and is not yet reaped (a zombie) does not."""
    try:
        process = psutil.Process(pid)
        return process.create_time() <= seen + 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
