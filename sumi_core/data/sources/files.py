"""Local files: plain text (a document a file), JSON lines and Parquet (a document a row)."""

from __future__ import annotations

import gzip
import json
import zlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from sumi_core.base.options import location
from sumi_core.base.registry import nearest
from sumi_core.data.sources.local import digests, local_files
from sumi_core.data.sources.source import Document, Source, SourceError


class LocalFiles(Source):
    """Files named by paths and globs, in the order of their names."""

    @dataclass
    class Options:
        """paths: files or globs (``data/**/*.txt``), absolute or relative to the project's folder."""

        paths: Annotated[
            list[str],
            Field(description="files or globs such as data/**/*.txt, absolute or relative to the project's folder"),
        ] = location(default_factory=list)
        licence: Annotated[str, Field(description="licence of the texts, for the model card")] = "unknown"

        def check(self) -> None:
            """At least one path is needed."""
            if not self.paths:
                raise ValueError("paths is empty; list at least one file or glob")

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.licence = options.licence

    @abstractmethod
    def read_file(self, name: str, path: Path) -> Iterator[Document]:
        """The documents of one file; ``name`` begins their ids."""

    def read(self) -> Iterator[Document]:
        """File by file. Raises SourceError for a file that is missing or not of its kind."""
        for name, path in self._files():
            yield from self.read_file(name, path)

    def identity(self) -> dict[str, Any]:
        """Names, sizes and digests of the files."""
        return {"files": digests(self._files())}

    def _files(self) -> list[tuple[str, Path]]:
        return local_files(self.options.paths, "corpus.source.paths")


class TextFiles(LocalFiles):
    """One document a file, byte for byte but for a byte order mark. A file that is not UTF-8 is skipped and counted."""

    def read_file(self, name: str, path: Path) -> Iterator[Document]:
        """The whole file."""
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError:
            self.skip("not UTF-8", name)
            return
        yield Document(name, text)


class Jsonl(LocalFiles):
    """One document per line, its text under ``column``. Lines that are not a JSON object, or lack text, are counted.

    Files that end in ``.gz`` are unpacked on the way.
    """

    @dataclass
    class Options(LocalFiles.Options):
        """column: the key that holds the text."""

        column: Annotated[str, Field(description="the field that holds the text")] = "text"

    def read_file(self, name: str, path: Path) -> Iterator[Document]:
        """Line by line. Raises SourceError when no line has the column at all."""
        keys: set[str] = set()
        read = 0
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(_lines(file, name), 1):
                row = self._row(line, f"{name} line {number}")
                if row is None:
                    continue
                text = row.get(self.options.column)
                if isinstance(text, str):
                    read += 1
                    yield Document(f"{name}:{number}", text)
                else:
                    keys.update(row)
                    self.skip(f"no text in column '{self.options.column}'", f"{name} line {number}")
        if not read and keys and self.options.column not in keys:
            raise SourceError(
                f"corpus.source.column: no line of {name} has '{self.options.column}'; "
                f"{nearest(self.options.column, keys)}"
            )

    def _row(self, line: bytes, where: str) -> dict[str, Any] | None:
        if not line.strip():
            return None
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError:
            self.skip("not UTF-8", where)
        except (ValueError, RecursionError):  # numbers of thousands of digits and endless brackets too
            self.skip("not JSON", where)
        else:
            if isinstance(row, dict):
                return row
            self.skip("not a JSON object", where)
        return None


def _lines(file: Iterable[bytes], name: str) -> Iterator[bytes]:
    """The lines of a file that may be packed. Raises SourceError where it cannot be unpacked."""
    try:
        yield from file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(
            f"corpus.source.paths: {name} is not a complete gzip file ({error}); pack or copy it again"
        ) from None


class Parquet(LocalFiles):
    """One document a row, its text in ``column``."""

    @dataclass
    class Options(LocalFiles.Options):
        """column: the string column that holds the text."""

        column: Annotated[str, Field(description="the field that holds the text")] = "text"

    def read_file(self, name: str, path: Path) -> Iterator[Document]:
        """Batch by batch, in bounded memory. Raises SourceError for a damaged file or a column that is none."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        column, number = self.options.column, 0
        try:
            with pq.ParquetFile(path) as file:
                self._check_column(name, file.schema_arrow)
                for batch in file.iter_batches(batch_size=512, columns=[column]):
                    for text in batch.column(0).to_pylist():
                        number += 1
                        if text is None:
                            self.skip(f"no text in column '{column}'", f"{name} row {number}")
                        else:
                            yield Document(f"{name}:{number}", text)
        except (pa.ArrowException, OSError):
            raise SourceError(
                f"corpus.source.paths: {name} is not a Parquet file, or is damaged; leave it out or copy it again"
            ) from None

    def _check_column(self, name: str, schema: Any) -> None:
        import pyarrow as pa

        column = self.options.column
        if column not in schema.names:
            raise SourceError(f"corpus.source.column: {name} has no column '{column}'; {nearest(column, schema.names)}")
        kind = schema.field(column).type
        stored = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(stored) or pa.types.is_large_string(stored) or pa.types.is_string_view(stored)):
            raise SourceError(
                f"corpus.source.column: '{column}' of {name} holds {kind}, not text; choose a text column"
            )
