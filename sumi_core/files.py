"""Files that are whole or not there: written beside their place, flushed to disk, and renamed into it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path, name: Callable[[Path], str] | None = None) -> Iterator[Path]:
    """A path beside ``path`` to write to. When the body ends, what is there takes the place of ``path`` (or of the
    file beside it that ``name`` makes of the written content); when it fails, nothing of it stays.

    A reader, and a crash of process or machine, sees the old content or the new and nothing between.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path.with_name(name(temporary)) if name else path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a small file so that readers see the old or the new content and nothing between."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def remove_torn(folder: Path) -> None:
    """Delete what killed writes left in a folder. Nobody else may be writing there."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
