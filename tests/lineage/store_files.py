"""Outputs in a store, and a disk that cannot be written."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from sumi_core.stages.store import Artifact, Store

STAGE, NAME = "corpus", "0123456789abcdef"

Start = Callable[[str], "subprocess.Popen[str]"]


def make(store: Store, name: str = NAME, **files: str) -> Artifact:
    with store.building(STAGE, name) as build:
        assert build.artifact is None
        for file, text in files.items():
            (build.folder / file).write_text(text)
        return build.finish({"summary": {"documents": 3}})


def debris(store: Store) -> list[str]:
    """What lies in a stage's folder beside whole outputs and the locks."""
    return sorted(p.name for p in (store.root / STAGE).iterdir() if p.name != ".locks" and p.name != NAME)


# --- disks ------------------------------------------------------------------------------------------------------------


def read_only(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Refuse what Path would write below ``root``, as a read-only mount does; permissions do not stop a root user."""
    opened, made, allowed = Path.open, Path.mkdir, os.access

    def refuse(path: Path) -> None:
        if path.is_relative_to(root):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def open_path(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> IO[Any]:
        if set(mode) & set("wax+"):
            refuse(path)
        return opened(path, mode, *arguments, **options)

    def make(path: Path, *arguments: Any, **options: Any) -> None:
        if not path.is_dir():
            refuse(path)
        made(path, *arguments, **options)

    def access(path: Path, mode: int, **options: Any) -> bool:
        return allowed(path, mode, **options) and not (mode & os.W_OK and Path(path).is_relative_to(root))

    monkeypatch.setattr(Path, "open", open_path)
    monkeypatch.setattr(Path, "mkdir", make)
    monkeypatch.setattr(os, "access", access)
