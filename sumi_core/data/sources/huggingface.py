"""Anything the ``datasets`` library opens: a name on the Hub, or a builder (json, parquet, text …) on local files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sumi_core.data.sources import Document, Source, SourceError, project_path
from sumi_core.lineage.fingerprint import file_sha256
from sumi_core.registry import nearest


class HuggingFace(Source):
    """A split of a dataset. Code that a dataset brings along is never run."""

    @dataclass
    class Options:
        """path: a name on the Hub, a local folder, or a builder's name with ``data_files``. revision: a commit or tag
        of the Hub; without it two runs may see different data, and the fingerprint cannot tell."""

        path: str = ""
        config: str | None = None
        split: str = "train"
        revision: str | None = None
        column: str = "text"
        streaming: bool = False
        data_files: list[str] = field(default_factory=list)
        licence: str = "unknown"

        def check(self) -> None:
            """A path is needed."""
            if not self.path:
                raise ValueError("path is empty; write a dataset's name, a folder, or a builder with data_files")

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.licence = options.licence

    def documents(self) -> Iterator[Document]:
        """Rows in the dataset's order. Raises SourceError when it cannot be opened, or lacks the column."""
        dataset, column = self._open(), self.options.column
        names = dataset.column_names
        if names is not None and column not in names:
            raise SourceError(
                f"corpus.source.column: {self.options.path} has no column '{column}'; {nearest(column, names)}"
            )
        found = 0
        for number, row in enumerate(dataset):
            text = row.get(column)
            if not isinstance(text, str) or not text.strip():
                self.skipped[f"no text in column '{column}'"] += 1
                continue
            found += 1
            yield Document(f"{self.options.split}:{number}", text)
        if not found:
            raise SourceError(f"corpus.source: no row of {self.options.path} has text in column '{column}'")

    def identity(self) -> dict[str, Any]:
        """The revision, and digests of whatever of it lies on this machine."""
        return {"revision": self.options.revision, "files": {name: file_sha256(path) for name, path in self._local()}}

    def _open(self) -> Any:
        import datasets

        options = self.options
        local = project_path(options.path)
        files = [str(project_path(file)) for file in options.data_files] or None
        for file in files or []:
            if not Path(file).is_file():
                raise SourceError(f"corpus.source.data_files: there is no file {file}")
        try:
            return datasets.load_dataset(
                str(local) if local.is_dir() else options.path,
                options.config,
                data_files=files,
                split=options.split,
                revision=options.revision,
                streaming=options.streaming,
            )
        except (ValueError, OSError, RuntimeError) as error:  # what datasets raises for names, splits and the network
            reason = str(error).splitlines()[0]
            raise SourceError(f"corpus.source.path: cannot open the dataset '{options.path}': {reason}") from None

    def _local(self) -> list[tuple[str, Path]]:
        folder = project_path(self.options.path)
        paths = [project_path(file) for file in self.options.data_files]
        if folder.is_dir():
            paths += sorted(path for path in folder.rglob("*") if path.is_file())
        return [(path.name, path) for path in paths if path.is_file()]
