"""Folders that must be there and may be written to."""

from __future__ import annotations

import os
from pathlib import Path

from sumi_core.lineage.errors import StoreError


def made_folder(path: Path) -> Path:
    """The folder, made if missing. Raises StoreError when it cannot be."""
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
    return StoreError(f"cannot write to {path}: {error.strerror}; free space or mend its permissions, and try again")
