"""Local files: plain text (one document per file), JSON lines and Parquet (one document per row)."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from sumi_core.base.options import location
from sumi_core.base.registry import nearest
from sumi_core.data.sources.local import digests, local_files
from sumi_core.data.sources.packed import open_unpacked, packing
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
    """One document per file, byte for byte but for a byte order mark. A file that is not UTF-8 is skipped and counted.

    Files packed with gzip, bzip2, xz or Zstandard are unpacked on the way.
    """

    def read_file(self, name: str, path: Path) -> Iterator[Document]:
        """The whole file. Raises SourceError when it cannot be unpacked."""
        try:
            with open_unpacked(name, path) as file:
                text = file.read().decode("utf-8-sig")
        except UnicodeDecodeError:
            self.skip("not UTF-8", name)
            return
        yield Document(name, text)


class Jsonl(LocalFiles):
    """One document per line, its text under ``column``. Lines that are not a JSON object, or lack text, are counted.

    Files packed with gzip, bzip2, xz or Zstandard are unpacked on the way.
    """

    @dataclass
    class Options(LocalFiles.Options):
        """column: the key that holds the text."""

        column: Annotated[str, Field(description="the field that holds the text")] = "text"

    def read_file(self, name: str, path: Path) -> Iterator[Document]:
        """Line by line. Raises SourceError when no line has the column at all, or the file cannot be unpacked."""
        keys: set[str] = set()
        read = 0
        with open_unpacked(name, path) as file:
            for number, line in enumerate(file, 1):
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


class Parquet(LocalFiles):
    """One document per row, its text in ``column``. A row that is not UTF-8 is skipped and counted."""

    @dataclass
    class Options(LocalFiles.Options):
        """column: the string column that holds the text."""

        column: Annotated[str, Field(description="the field that holds the text")] = "text"

    def read_file(self, name: str, path: Path) -> Iterator[Document]:
        """Batch by batch, in bounded memory. Raises SourceError for a damaged file or a column that is none."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        column, number = self.options.column, 0
        if (packed := packing(path)) is not None:
            problem = f"{name} is packed with {packed}, and Parquet packs its columns itself; unpack it"
            raise SourceError(f"corpus.source.paths: {problem}")
        try:
            with path.open("rb") as opened, pq.ParquetFile(opened) as file:  # Arrow takes no name that is not UTF-8
                self._check_column(name, file.schema_arrow)
                for batch in file.iter_batches(batch_size=512, columns=[column]):
                    for content in _contents(batch.column(0)):
                        number += 1
                        if content is None:
                            self.skip(f"no text in column '{column}'", f"{name} row {number}")
                            continue
                        try:
                            text = content.decode()
                        except UnicodeDecodeError:  # nothing checks what a writer calls text
                            self.skip("not UTF-8", f"{name} row {number}")
                        else:
                            yield Document(f"{name}:{number}", text)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: a column's name
            if "UTF8" in str(error):  # Arrow checks the values of a dictionary, and does not say where they are
                problem = f"'{column}' of {name} is a dictionary with text that is not UTF-8"
                raise SourceError(f"corpus.source.column: {problem}; write it as plain text") from None
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


def _contents(column: Any) -> list[bytes | None]:
    """The bytes of a text column's rows, without a look at whether they are UTF-8."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    views = {pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}
    found: list[bytes | None] = column.view(views.get(column.type, pa.binary())).to_pylist()
    return found
