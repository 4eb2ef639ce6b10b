"""Locks between processes: flock on a file, which the kernel frees when its holder dies.

Not filelock: it asks whether a lock is held by taking it, which creates the file and needs permission to write, and on
file systems without flock it silently takes a lock that outlives its holder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from sumi_core.base.errors import StoreError
from sumi_core.base.files import cannot_write, made_folder

# A forked child (a worker process) shares its parent's locks and would hold them when the parent is long dead.
_lock_files: weakref.WeakSet[IO[str]] = weakref.WeakSet()


def _let_go_in_child() -> None:
    for file in list(_lock_files):
        file.close()


os.register_at_fork(after_in_child=_let_go_in_child)


@contextlib.contextmanager
def locked(path: Path, on_wait: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold the lock file at ``path``. If another process holds it, call ``on_wait`` once with its holder, and wait:
    interruptibly, unlike a blocking flock in C. Raises StoreError where it cannot be written, or the file
    system has no locks."""
    with _opened(path) as file:
        waited = False
        while not _take(file):
            if not waited:
                on_wait(_holder(file))
                waited = True
            time.sleep(0.2)
        _write_holder(file)
        yield


@contextlib.contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock file at ``path`` for the body; yield whether it was free. Raises StoreError."""
    with _opened(path) as file:
        yield _take(file)


def is_held(path: Path) -> bool:
    """Whether some process holds the lock file right now. Writes nothing; a lock that may not be read tells nothing,
    and counts as free."""
    try:
        with path.open() as file:
            _lock_files.add(file)
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _take(file: IO[str]) -> bool:
    _lock_files.add(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StoreError(
            f"{file.name} cannot be locked: {error.strerror}; keep .sumi and SUMI_STORE on a file system with locks"
        ) from None
    return True


def _opened(path: Path) -> IO[str]:
    try:
        return (made_folder(path.parent) / path.name).open("a+")
    except OSError as error:
        raise cannot_write(path.parent, error) from None


def _write_holder(file: IO[str]) -> None:
    """Say who holds it, to those who wait. Unbuffered: what a full disk refuses is not tried again on closing."""
    with contextlib.suppress(OSError):
        os.ftruncate(file.fileno(), 0)
        os.pwrite(file.fileno(), f"process {os.getpid()}".encode(), 0)


def _holder(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip() or "another process"
