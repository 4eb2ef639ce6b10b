"""Local files that a config names: found by paths and globs, identified by their digests."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sumi_core.base.hashing import known_sha256
from sumi_core.base.paths import project_path, readable_name
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
            brackets = "; [ begins a set of characters, and [[] means the character" if "[" in pattern else ""
            raise SourceError(f"{key}: {problem} '{pattern}'; {hint}{brackets}")
        found += files
    return sorted(_names(list(dict.fromkeys(found))))


def _matches(pattern: str) -> list[Path]:
    """What a glob names. A folder or file that is called as a part of the pattern is meant by it, whatever characters
    its name has; so is the project's own folder."""
    given = Path(pattern).expanduser()
    root = Path(given.anchor) if given.is_absolute() else project_path(".")
    parts = given.parts[1:] if given.is_absolute() else given.parts
    return [Path(os.path.abspath(match)) for match in _expand(root, parts)]


def _expand(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """The paths below a folder that the parts of a glob name."""
    if not parts:
        yield folder
        return
    first, rest = parts[0], parts[1:]
    if first == "**":
        for below in _folders(folder):
            yield from _expand(below, rest or ("*",))
    elif not glob.has_magic(first) or (folder / first).exists():
        if (folder / first).exists():
            yield from _expand(folder / first, rest)
    else:
        for name in glob.glob(first, root_dir=folder):
            if not rest or (folder / name).is_dir():
                yield from _expand(folder / name, rest)


def _folders(top: Path) -> Iterator[Path]:
    """A folder and all below it that ``**`` means, which none is whose name begins with a dot. Links are followed, but
    each folder is entered once, whichever ways lead to it: a link may lead back. What is reached without a link comes
    first."""
    entered: set[tuple[int, int]] = set()
    folders, links = [top], list[Path]()
    while folders or links:
        folder = (folders or links).pop(0)
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:  # a link to nowhere, or to itself; a folder that may not be read
            continue
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        yield folder
        inner = [entry for entry in entries if not entry.name.startswith(".") and os.path.isdir(entry)]
        folders += [folder / entry.name for entry in inner if not entry.is_symlink()]
        links += [folder / entry.name for entry in inner if entry.is_symlink()]


def digests(files: Iterable[tuple[str, Path]]) -> list[dict[str, Any]]:
    """Name, size and SHA-256 of each file: the identity of what is read from them."""
    return [{"name": name, "bytes": path.stat().st_size, "sha256": known_sha256(path)} for name, path in files]


def _names(paths: list[Path]) -> list[tuple[str, Path]]:
    root = project_path(".")
    outside = [path.parent for path in paths if not path.is_relative_to(root)]
    shared = Path(os.path.commonpath(outside)) if outside else root
    names = [(readable_name(path.relative_to(root if path.is_relative_to(root) else shared)), path) for path in paths]
    if len({name for name, _ in names}) == len(names):
        return names
    return [(name if path.is_relative_to(root) else f"outside/{name}", path) for name, path in names]
