"""Files of several kinds as documents: each is read as the end of its name says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from sumi_core.base.hashing import known_sha256
from sumi_core.data.sources.files import Jsonl, LocalFiles, Parquet, TextFiles
from sumi_core.data.sources.local import local_files
from sumi_core.data.sources.packed import unpacked_name
from sumi_core.data.sources.source import Document, SourceError

FORMATS: dict[str, type[LocalFiles]] = {
    ".txt": TextFiles,
    ".jsonl": Jsonl,
    ".parquet": Parquet,
}


class Files:
    """Files named by paths and globs, sorted by name: one document per ``.txt`` file, JSON line or Parquet row;
    the first two may be packed.

    column: the key or column that holds the text of a row. Raises SourceError for a file that is missing or of another
    kind."""

    def __init__(self, paths: Sequence[str], column: str = "text") -> None:
        self.column = column
        self.found = local_files(paths, "files", "name files or globs that exist")
        for name, _ in self.found:
            _format(name)

    def documents(self) -> Iterator[Document]:
        """Every document that holds text. Raises SourceError for the first file or row that cannot be read whole: a
        figure of the rest would not be that of the text."""
        for kind, files in groupby(self.found, key=lambda file: _format(file[0])):
            options = {} if kind is TextFiles else {"column": self.column}
            source = kind(kind.Options(paths=[str(path) for _, path in files], **options))
            yield from source.documents()
            reasons = [reason for reason in source.skipped if reason != "empty document"]
            if reasons:
                told = "; ".join(f"{source.skipped[reason]} × {source.describe(reason)}" for reason in reasons)
                raise SourceError(f"files: not all of the text can be read: {told}; correct it, or leave it out")

    def identity(self) -> list[dict[str, Any]]:
        """What the documents are made from, wherever the files lie and whatever they are called."""
        return [
            {"format": _format(name).__name__, "sha256": known_sha256(path)}
            | ({} if _format(name) is TextFiles else {"column": self.column})
            for name, path in self.found
        ]


def _format(name: str) -> type[LocalFiles]:
    for suffix, kind in FORMATS.items():
        if unpacked_name(name).endswith(suffix):
            return kind
    *others, last = FORMATS
    raise SourceError(
        f"files: {name} is not of a kind that is read; name {', '.join(others)} (packed or not) or {last} files"
    )
