"""Local files: plain text (a document a file), JSON lines and Parquet (a document a row)."""

from __future__ import annotations

import glob
import json
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sumi_core.data.sources import Document, Source, SourceError, project_path
from sumi_core.lineage.fingerprint import file_sha256
from sumi_core.registry import nearest


class LocalFiles(Source):
    """Files named by paths and globs, in sorted order."""

    @dataclass
    class Options:
        """paths: files or globs (``data/**/*.txt``), absolute or relative to the project's folder."""

        paths: list[str] = field(default_factory=list)
        licence: str = "unknown"

        def check(self) -> None:
            """At least one path is needed."""
            if not self.paths:
                raise ValueError("paths is empty; list at least one file or glob")

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.licence = options.licence

    @abstractmethod
    def read(self, path: Path, name: str) -> Iterator[Document]:
        """The documents of one file; ``name`` begins their ids."""

    def documents(self) -> Iterator[Document]:
        """File by file. Raises SourceError for a missing file, or when nothing could be read at all."""
        found = 0
        for path, name in self.files():
            for document in self.read(path, name):
                if not document.text.strip():
                    self.skipped["empty document"] += 1
                    continue
                found += 1
                yield document
        if not found:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items())
            raise SourceError(
                f"corpus.source.paths: no document in {', '.join(self.options.paths)} ({reasons or 'no rows'})"
            )

    def identity(self) -> dict[str, Any]:
        """Names and digests of the files."""
        return {"files": {name: file_sha256(path) for path, name in self.files()}}

    def files(self) -> list[tuple[Path, str]]:
        """Every file once, with the name by which its documents are known."""
        found: dict[Path, str] = {}
        for pattern in self.options.paths:
            matches = sorted(glob.glob(str(project_path(pattern)), recursive=True))
            paths = [Path(match) for match in matches if Path(match).is_file()]
            if not paths:
                raise SourceError(
                    f"corpus.source.paths: no file matches '{pattern}'; paths start at the project's folder"
                )
            found.update((path, _name(path)) for path in paths)
        return sorted(found.items(), key=lambda item: (item[1], item[0]))


def _name(path: Path) -> str:
    root = project_path(".")
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


class TextFiles(LocalFiles):
    """One document a file. A file that is not UTF-8 is skipped and counted."""

    def read(self, path: Path, name: str) -> Iterator[Document]:
        """The whole file."""
        try:
            yield Document(name, path.read_bytes().decode("utf-8"))
        except UnicodeDecodeError:
            self.skipped["not UTF-8"] += 1


class Jsonl(LocalFiles):
    """One document a line, its text under ``column``. Lines that are no JSON object, or lack text, are counted."""

    @dataclass
    class Options(LocalFiles.Options):
        """column: the key that holds the text."""

        column: str = "text"

    def read(self, path: Path, name: str) -> Iterator[Document]:
        """Line by line."""
        known: set[str] = set()
        read = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line.decode("utf-8"))
                except UnicodeDecodeError:
                    self.skipped["not UTF-8"] += 1
                    continue
                except json.JSONDecodeError:
                    self.skipped["not JSON"] += 1
                    continue
                if not isinstance(row, dict):
                    self.skipped["not a JSON object"] += 1
                    continue
                known.update(row)
                text = row.get(self.options.column)
                if not isinstance(text, str):
                    self.skipped[f"no text in column '{self.options.column}'"] += 1
                    continue
                read += 1
                yield Document(f"{name}:{number}", text)
        if not read and known and self.options.column not in known:
            raise SourceError(
                f"{path}: corpus.source.column: no row has '{self.options.column}'; "
                f"{nearest(self.options.column, known)}"
            )


class Parquet(LocalFiles):
    """One document a row, its text in ``column``."""

    @dataclass
    class Options(LocalFiles.Options):
        """column: the string column that holds the text."""

        column: str = "text"

    def read(self, path: Path, name: str) -> Iterator[Document]:
        """Row group by row group, in bounded memory."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        column = self.options.column
        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError):
            raise SourceError(
                f"{path} is not a Parquet file, or is damaged; take it out of corpus.source.paths"
            ) from None
        with file:
            schema = file.schema_arrow
            if column not in schema.names:
                raise SourceError(
                    f"{path}: corpus.source.column: no column is called '{column}'; {nearest(column, schema.names)}"
                )
            kind = schema.field(column).type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise SourceError(
                    f"{path}: corpus.source.column: '{column}' holds {kind}, not text; choose a text column"
                )
            number = 0
            for batch in file.iter_batches(batch_size=512, columns=[column]):
                for text in batch.column(0).to_pylist():
                    number += 1
                    if text is None:
                        self.skipped[f"no text in column '{column}'"] += 1
                        continue
                    yield Document(f"{name}:{number}", text)
