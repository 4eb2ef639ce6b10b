"""Anything the ``datasets`` library opens: a name on the Hub, a local folder, or a builder (json …) on files."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from sumi_core.base.options import location
from sumi_core.base.paths import project_path, readable_name
from sumi_core.base.registry import nearest
from sumi_core.base.text import reason_of
from sumi_core.data.sources.local import digests, local_files
from sumi_core.data.sources.source import Document, Source, SourceError


class HuggingFace(Source):
    """A split of a dataset, a document a row. Code that a dataset brings along is never run."""

    @dataclass
    class Options:
        """path: a name on the Hub, a local folder (of data files, or written by ``save_to_disk``), or a builder's name
        with ``data_files``, which are paths and globs. revision: commit, tag or branch of the Hub; a branch moves, and
        then the fingerprint cannot tell. streaming: read without a copy in the cache of ``datasets``."""

        path: Annotated[
            str, Field(description="a name on the Hub, a local folder, or a builder's name with data_files")
        ] = location("")
        config: Annotated[str | None, Field(description="configuration of the dataset")] = None
        split: Annotated[str, Field(description="split of the dataset")] = "train"
        revision: Annotated[
            str | None, Field(description="commit, tag or branch of the Hub; only a commit never moves")
        ] = None
        column: Annotated[str, Field(description="the field that holds the text")] = "text"
        streaming: Annotated[bool, Field(description="read without a copy in the cache of datasets")] = location(False)
        data_files: Annotated[list[str], Field(description="files and globs for a builder")] = location(
            default_factory=list
        )
        licence: Annotated[str, Field(description="licence of the texts, for the model card")] = "unknown"

        def check(self) -> None:
            """A path is needed."""
            if not self.path:
                raise ValueError("path is empty; write a dataset's name, a folder, or a builder with data_files")

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.licence = options.licence

    def read(self) -> Iterator[Document]:
        """Rows in the dataset's order. Raises SourceError when it cannot be opened or read, or lacks the column."""
        from datasets.exceptions import DatasetsError

        column, split, number = self.options.column, self.options.split, -1
        try:
            for number, row in enumerate(self._open()):
                if column not in row:
                    raise SourceError(
                        f"corpus.source.column: '{self.options.path}' has no column '{column}'; {nearest(column, row)}"
                    )
                if isinstance(row[column], str):
                    yield Document(f"{split}:{number}", row[column])
                else:
                    self.skip(f"no text in column '{column}'", f"{split} row {number}")
        except SourceError:
            raise
        except (
            DatasetsError,
            ValueError,
            OSError,
            RuntimeError,
            StopIteration,
        ) as error:  # names, splits, rows, network
            after = f" after {split} row {number}" if number >= 0 else ""
            raise SourceError(
                f"corpus.source.path: cannot read the dataset '{self.options.path}'{after}: {self._problem(error)}"
            ) from None

    def _problem(self, error: BaseException) -> str:
        """What an error of ``datasets`` comes from, and what to do."""
        cause, options = error.__cause__ or error, self.options
        problem = reason_of(cause) if str(cause) else "there is nothing in it"
        if options.config is None and "Config name is missing" in problem:
            known = re.sub(r".*?(\[.*?\]).*", r"\1", problem)
            return f"it has several configurations, {known}; write one of them as corpus.source.config"
        if isinstance(cause, UnicodeDecodeError):
            return f"{problem}; the sources text, jsonl and parquet read such files, and skip what is not UTF-8"
        if glob.has_magic(options.path) and project_path(options.path).is_dir():
            return f"{problem}; datasets takes [, * and ? in the name of a folder for a pattern: rename it"
        return f"{problem}; correct its files, or name others"

    def identity(self) -> dict[str, Any]:
        """Digests of whatever of it lies on this machine; of the Hub's the name and the revision. Raises SourceError
        for a name without one, which nothing would identify."""
        options, folder = self.options, project_path(self.options.path).is_dir()
        if not (folder or options.data_files or options.revision):
            raise SourceError(
                f"corpus.source.path: there is no folder '{options.path}'; for a dataset of the Hub write its revision "
                "too (a commit)"
            )
        name = None if folder else options.path
        return {"dataset": name, "revision": options.revision, "files": digests(self._local())}

    def _open(self) -> Any:
        import datasets

        options, folder = self.options, project_path(self.options.path)
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():  # of save_to_disk
            for key in ("config", "revision"):
                if getattr(options, key) is not None:
                    problem = f"'{options.path}' was written by save_to_disk and has no {key}; leave it out"
                    raise SourceError(f"corpus.source.{key}: {problem}")
            return self._saved(datasets.load_from_disk(str(folder)))
        local = str(folder) if folder.is_dir() else options.path
        return datasets.load_dataset(
            local,
            options.config,
            data_files=[glob.escape(str(path)) for _, path in self._local()] if options.data_files else None,
            split=options.split,
            revision=options.revision,
            streaming=options.streaming,
        )

    def _saved(self, saved: Any) -> Any:
        """The rows of a data set of ``save_to_disk`` that ``split`` names: a split, a stretch of it (``train[:50%]``),
        several joined by ``+``. A data set without splits is ``train``, or the split that it was taken from."""
        import datasets

        written, folder = self.options.split, self.options.path
        if isinstance(saved, datasets.DatasetDict):
            splits = dict(saved)
        else:
            splits = dict.fromkeys([str(saved.split or "train"), "train"], saved)
        try:
            wanted = datasets.ReadInstruction.from_spec(written)
        except (ValueError, AssertionError) as error:
            raise SourceError(
                f"corpus.source.split: '{written}' is not a split ({reason_of(error)}); write train"
            ) from None
        for name in re.findall(r"(?:^|\+)\s*([\w.]+)", written):
            if name not in splits:
                raise SourceError(f"corpus.source.split: '{folder}' has no split '{name}'; {nearest(name, splits)}")
        try:
            stretches = wanted.to_absolute({name: len(rows) for name, rows in splits.items()})
        except (ValueError, AssertionError) as error:
            raise SourceError(
                f"corpus.source.split: '{written}' of '{folder}': {reason_of(error)}; correct it"
            ) from None
        rows = [splits[part.splitname].select(range(part.from_, part.to)) for part in stretches]
        return rows[0] if len(rows) == 1 else datasets.concatenate_datasets(rows)

    def _local(self) -> list[tuple[str, Path]]:
        if self.options.data_files:
            return local_files(self.options.data_files, "corpus.source.data_files")
        folder = project_path(self.options.path)
        files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
        return [(readable_name(path.relative_to(folder)), path) for path in files]
