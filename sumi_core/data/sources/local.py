"""Local files that a config names: found by paths and globs, identified by their digests."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sumi_core.base.hashing import known_sha256
from sumi_core.base.paths import project_path
from sumi_core.data.sources.source import SourceError

_RELATIVE = "relative paths start at the project's folder"


def local_files(patterns: Iterable[str], key: str, hint: str = _RELATIVE) -> list[tuple[str, Path]]:
    """Every file that paths and globs (``data/**/*.txt``) name, once, with its name, sorted by name.

    A name is relative to the project's folder, or to the folder that all files outside of it share, so that names do
    not depend on where a project lies. Raises SourceError, which names ``key`` and ends with ``hint``, for a pattern
    that gives no file.
    """
    found: list[Path] = []
    for pattern in patterns:
        path = project_path(pattern)
        if path.is_dir():
            raise SourceError(f"{key}: '{pattern}' is a folder; name the files in it, such as '{pattern}/**/*'")
        files = [path] if path.is_file() else [match for match in _matches(pattern) if match.is_file()]
        if not files:
            problem = "no file matches" if glob.has_magic(pattern) else "there is no file"
            raise SourceError(f"{key}: {problem} '{pattern}'; {hint}")
        found += files
    return sorted(_names(list(dict.fromkeys(found))))


def _matches(pattern: str) -> list[Path]:
    """What a glob names. The project's own folder is not part of the pattern, whatever characters its name has."""
    root = project_path(".")
    found = glob.glob(str(Path(pattern).expanduser()), root_dir=root, recursive=True)
    return [Path(os.path.abspath(root / match)) for match in found]


def digests(files: Iterable[tuple[str, Path]]) -> list[dict[str, Any]]:
    """Name, size and SHA-256 of each file: the identity of what is read from them."""
    return [{"name": name, "bytes": path.stat().st_size, "sha256": known_sha256(path)} for name, path in files]


def _names(paths: list[Path]) -> list[tuple[str, Path]]:
    root = project_path(".")
    outside = [path.parent for path in paths if not path.is_relative_to(root)]
    shared = Path(os.path.commonpath(outside)) if outside else root
    names = [(path.relative_to(root if path.is_relative_to(root) else shared).as_posix(), path) for path in paths]
    if len({name for name, _ in names}) == len(names):
        return names
    return [(name if path.is_relative_to(root) else f"outside/{name}", path) for name, path in names]
