"""Where documents come from. A source yields documents, says what they are made from, and counts what it skipped."""

from __future__ import annotations

import glob
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sumi_core.errors import SumiError
from sumi_core.lineage.fingerprint import file_sha256


class SourceError(SumiError, ValueError):
    """A source that cannot give documents. One sentence that names the file or key and what to do."""


@dataclass(frozen=True)
class Document:
    """A text with an id that is unique within its source."""

    id: str
    text: str


class Source(ABC):
    """A stream of documents. A new source is a class with ``read`` and ``identity``, and a line in ``SOURCES``."""

    @dataclass
    class Options:
        """No options."""

    licence: str = "unknown"

    def __init__(self, options: Any) -> None:
        self.options = options
        self.skipped: Counter[str] = Counter()  # reason → documents, of the latest iteration
        self.first_skipped: dict[str, str] = {}  # reason → where it was first met

    @abstractmethod
    def read(self) -> Iterator[Document]:
        """Every document, in an order that is the same every time. Raises SourceError."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What the documents are made from, as plain data: versions and digests, never paths or times."""

    def documents(self) -> Iterator[Document]:
        """What ``read`` gives, less texts that cannot be stored or say nothing. Raises SourceError when nothing is
        left."""
        self.skipped.clear()
        self.first_skipped.clear()
        found = 0
        for document in self.read():
            if not document.text.strip():
                self.skip("empty document", document.id)
            elif not _is_unicode(document.text):
                self.skip("lone surrogate, which UTF-8 cannot hold", document.id)
            else:
                found += 1
                yield document
        if not found:
            skipped = "; ".join(f"{count} × {self.describe(reason)}" for reason, count in self.skipped.items())
            raise SourceError(
                f"corpus.source: no document is left to read ({'skipped: ' + skipped if skipped else 'there was none'})"
            )

    def skip(self, reason: str, where: str) -> None:
        """Count something that is no document, and remember where the first of its kind was."""
        self.skipped[reason] += 1
        self.first_skipped.setdefault(reason, where)

    def describe(self, reason: str) -> str:
        """A reason in words: ``not JSON (first: notes.jsonl line 3)``."""
        return f"{reason} (first: {self.first_skipped[reason]})"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate: JSON can write one, no UTF-8 text can
        return False
    return True


# --- local files ----------------------------------------------------------------------------------------------------


def project_path(path: str) -> Path:
    """A path of a config: absolute, below the user's home (``~``), or relative to the project's folder."""
    from sumi_core.project import Project

    given = Path(path).expanduser()
    return Path(os.path.abspath(given if given.is_absolute() else Project.find().root / given))


def local_files(patterns: Iterable[str], key: str) -> list[tuple[str, Path]]:
    """Every file that paths and globs (``data/**/*.txt``) name, once, with its name, sorted by name.

    A name is relative to the project's folder, or to the folder that all files outside of it share, so that names do
    not depend on where a project lies. Raises SourceError, naming ``key``, for a pattern that gives no file.
    """
    found: list[Path] = []
    for pattern in patterns:
        path = project_path(pattern)
        if path.is_dir():
            raise SourceError(f"{key}: '{pattern}' is a folder; name the files in it, such as '{pattern}/**/*'")
        matches = [path] if path.is_file() else [Path(m) for m in glob.glob(str(path), recursive=True)]
        files = [match for match in matches if match.is_file()]
        if not files:
            problem = "no file matches" if glob.has_magic(pattern) else "there is no file"
            raise SourceError(f"{key}: {problem} '{pattern}'; relative paths start at the project's folder")
        found += files
    return sorted(_names(list(dict.fromkeys(found))))


def digests(files: Iterable[tuple[str, Path]]) -> list[dict[str, Any]]:
    """Name, size and SHA-256 of each file: the identity of what is read from them."""
    return [{"name": name, "bytes": path.stat().st_size, "sha256": file_sha256(path)} for name, path in files]


def _names(paths: list[Path]) -> list[tuple[str, Path]]:
    root = project_path(".")
    outside = [path.parent for path in paths if not path.is_relative_to(root)]
    shared = Path(os.path.commonpath(outside)) if outside else root
    return [(path.relative_to(root if path.is_relative_to(root) else shared).as_posix(), path) for path in paths]
