"""Documents without exact duplicates, split into train and validation.

The split is a function of each document's text alone: it does not depend on order or on other documents, a
document never changes sides when others are added, and equal texts are always on the same side.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sumi_core.base.progress import Log, Progress
from sumi_core.data.config import CorpusConfig
from sumi_core.data.sources.source import Document, Source, SourceError

SPLITS = ("train", "validation")
_GROUP_CHARACTERS = 8 << 20  # characters held before a row group is written
_SHOWN_DOCUMENTS = 2  # of each split, in the report


def write_corpus(source: Source, config: CorpusConfig, folder: Path, log: Log, progress: Progress) -> dict[str, Any]:
    """Write train.parquet and validation.parquet (columns id, text) and report.md; returns statistics and the licence.

    Raises SourceError when a source cannot be read or a split would be empty.
    """
    seen: set[bytes] = set()  # about 100 bytes of memory a document: the one thing here that grows with the corpus
    documents: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    duplicates = 0
    writers = {split: _Writer(folder / f"{split}.parquet") for split in SPLITS}
    try:
        for document in source.documents():
            digest = hashlib.blake2b(document.text.encode(), digest_size=16).digest()
            if config.deduplicate:
                if digest in seen:
                    duplicates += 1
                    continue
                seen.add(digest)
            split = "validation" if _fraction(digest) < config.validation_fraction else "train"
            writers[split].add(document)
            documents[split] += 1
            sizes[split] += len(document.text.encode())
            if sum(documents.values()) % 1000 == 0:
                progress(sum(documents.values()), 0, "documents", "reading")
    finally:
        for writer in writers.values():
            writer.close()
    for split in SPLITS:
        if not documents[split]:
            raise SourceError(
                f"corpus.validation_fraction: {config.validation_fraction:g} of {sum(documents.values())} documents "
                f"leaves the {split} split empty; change the fraction or give more documents"
            )
    for reason in source.skipped:
        log(f"skipped {source.skipped[reason]} × {source.describe(reason)}")
    summary = {
        "source": config.source["name"],
        "licence": source.licence,
        "documents": sum(documents.values()),
        **{f"{split}_documents": documents[split] for split in SPLITS},
        **{f"{split}_bytes": sizes[split] for split in SPLITS},
        "duplicates": duplicates,
        "skipped": dict(source.skipped),
        "first_skipped": dict(source.first_skipped),
    }
    (folder / "report.md").write_text(_report(summary, folder), encoding="utf-8")
    return summary


def _report(summary: dict[str, Any], folder: Path) -> str:
    """The figures, what was skipped and where, and how the first documents begin."""
    lines = [f"# Corpus {summary['source']}", "", f"Licence: {summary['licence']}", ""]
    lines += ["| split | documents | UTF-8 bytes |", "|---|---:|---:|"]
    lines += [f"| {s} | {summary[f'{s}_documents']:,} | {summary[f'{s}_bytes']:,} |" for s in SPLITS]
    lines += ["", f"Exact duplicates left out: {summary['duplicates']:,}."]
    lines += [
        f"Skipped: {n:,} × {why} (first: {summary['first_skipped'][why]})." for why, n in summary["skipped"].items()
    ]
    for split in SPLITS:
        for document in itertools.islice(read_texts(folder, split), _SHOWN_DOCUMENTS):
            lines += [
                "",
                f"## {split}: {document.id}",
                "",
                *("    " + line for line in document.text[:400].splitlines()),
            ]
    return "\n".join(lines) + "\n"


def read_texts(folder: Path, split: str) -> Iterator[Document]:
    """The documents of a split, a row group at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(folder / f"{split}.parquet") as file:
        for batch in file.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                yield Document(row["id"], row["text"])


class _Writer:
    """Documents to Parquet, a row group for every few million characters."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._schema = pa.schema([("id", pa.string()), ("text", pa.string())])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[Document] = []
        self._characters = 0

    def add(self, document: Document) -> None:
        self._rows.append(document)
        self._characters += len(document.text)
        if self._characters >= _GROUP_CHARACTERS:
            self._flush()

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        columns = {"id": [d.id for d in self._rows], "text": [d.text for d in self._rows]}
        self._writer.write_table(pa.table(columns, schema=self._schema))
        self._rows, self._characters = [], 0


def _fraction(digest: bytes) -> float:
    return int.from_bytes(digest[:8], "big") / 2**64
