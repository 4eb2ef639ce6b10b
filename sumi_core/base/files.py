"""Files that are whole or not there: written beside their place, flushed to disk, and renamed into it. Records are
JSON as every program reads it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sumi_core.base.errors import StoreError


@contextlib.contextmanager
def replacing(path: Path, name: Callable[[Path], str] | None = None) -> Iterator[Path]:
    """A path beside ``path`` to write to. When the body ends, what is there takes the place of ``path`` (or of the
    file beside it that ``name`` makes of the written content); when it fails, nothing of it stays.

    A reader, and a crash of process or machine, sees the old content or the new and nothing between.
    """
    # Created here, under a name that nobody can foresee: never through a link that somebody laid there. tempfile would
    # let no other user read what it made, and a store may be shared.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    temporary.open("xb").close()
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


def json_text(value: Any, indent: int | None = 1) -> str:
    """A record as JSON. A figure that is not a number, or infinite, is null: JSON has neither, and other programs than
    Python refuse what Python would write. Raises TypeError for anything but plain data."""
    return json.dumps(without_nan(value), indent=indent, ensure_ascii=False, allow_nan=False)


def without_nan(value: Any) -> Any:
    """Plain data with None for every figure that is not a number, or infinite."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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


def made_folder(path: Path) -> Path:
    """The folder, created if missing. Raises StoreError when it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from None
    return path


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or the folder itself; nothing is tried, so a full disk counts as yes."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return os.access(there, os.W_OK | os.X_OK)


def cannot_write(path: Path, error: OSError) -> StoreError:
    """The error for a file or folder that the system does not let us write."""
    return StoreError(f"cannot write to {path}: {error.strerror}; free space or fix its permissions, and try again")
