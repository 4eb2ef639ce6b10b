"""Tokens in memory-mapped files.

The documents of a split are tokenized shard by shard (``shard_building``), each followed by an end-of-text token.
Sequences are cut from the stream of all shards, every ``sequence_length`` tokens, wherever documents and shards end;
what is left at the end is dropped and counted. ``index.json`` lists all shards with their checksums, and is written
when everything is whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sumi_core.base.files import remove_torn, write_atomically
from sumi_core.base.progress import Log, Progress
from sumi_core.data.config import ShardsConfig
from sumi_core.data.corpus import SPLITS, read_texts
from sumi_core.data.sequences import PackedSequences
from sumi_core.data.shard_building import ShardError, broken_file, build_shards, read_record, token_dtype
from sumi_core.data.sources.source import Document
from sumi_core.data.tokenizers.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

INDEX = "index.json"
TOKEN_COUNTS = "token_counts.npy"  # how often each token occurs in the train split, int64 [V]
_INLINE_BYTES = 16 << 20  # below this, starting worker processes costs more than it saves


# --- building -------------------------------------------------------------------------------------------------------


def write_token_shards(
    corpus: Path,
    sizes: Mapping[str, int],
    tokenizer: Path,
    config: ShardsConfig,
    folder: Path,
    *,
    workers: int,
    log: Log,
    progress: Progress,
) -> dict[str, Any]:
    """Tokenize both splits of the corpus, of ``sizes`` UTF-8 bytes; returns counts. What an interrupted run left whole
    in the folder is kept.

    Raises ShardError when a split is shorter than a sequence, TokenizerError when a text does not fit the tokenizer.
    """
    remove_torn(folder)
    names = {split: _names(corpus, split, config.shard_documents) for split in SPLITS}
    records = {name: read_record(folder, name) for split in SPLITS for name in names[split]}
    total = sum(sizes[split] for split in SPLITS)
    done = sum(record["bytes"] for record in records.values() if record is not None)
    if done:
        log(f"keeping {sum(r is not None for r in records.values())} of {len(records)} shards of an earlier run")
    missing = {name for name, record in records.items() if record is None}
    tasks = _tasks(corpus, names, missing, config.shard_documents)
    for name, record in build_shards(tasks, tokenizer, folder, workers if total - done > _INLINE_BYTES else 1):
        records[name] = record
        done += record["bytes"]
        progress(done, total, "bytes", name)
    opened = load_tokenizer(tokenizer)
    np.save(folder / TOKEN_COUNTS, _token_counts(folder, names["train"], opened.vocab_size))
    index: dict[str, Any] = {
        "vocab_size": opened.vocab_size,
        "eos_id": opened.eos_id,
        "dtype": np.dtype(token_dtype(opened.vocab_size)).name,
        "sequence_length": config.sequence_length,
        "splits": {},
    }
    summary = {"vocab_size": opened.vocab_size, "sequence_length": config.sequence_length}
    for split in SPLITS:
        shards = {name: records[name] for name in names[split]}
        counts = _counts(folder, split, shards, config.sequence_length)
        index["splits"][split] = {**counts, "shards": shards}
        summary |= {f"{split}_shards": len(shards), **{f"{split}_{key}": value for key, value in counts.items()}}
    write_atomically(folder / INDEX, json.dumps(index, indent=1) + "\n")
    return summary


def _names(corpus: Path, split: str, documents: int) -> list[str]:
    import pyarrow.parquet as pq

    rows = pq.read_metadata(corpus / f"{split}.parquet").num_rows
    return [f"{split}-{number:05d}" for number in range(-(-rows // documents))]


def _token_counts(folder: Path, shards: list[str], vocab_size: int) -> NDArray[np.int64]:
    """How often each token occurs in some shards, ``[V]``."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for name in shards:
        counts += np.bincount(np.load(folder / f"{name}.tokens.npy", mmap_mode="r"), minlength=vocab_size)
    return counts


def _tasks(
    corpus: Path, names: Mapping[str, list[str]], missing: set[str], documents: int
) -> Iterator[tuple[str, list[Document]]]:
    """Name and documents of every missing shard."""
    for split in SPLITS:
        if missing.isdisjoint(names[split]):
            continue
        texts = read_texts(corpus, split)
        for name in names[split]:
            group = [document for _, document in zip(range(documents), texts, strict=False)]
            if name in missing:
                yield name, group


def _counts(folder: Path, split: str, shards: Mapping[str, Any], length: int) -> dict[str, int]:
    """Totals of a split, and what is dropped at its end. Raises ShardError when it holds too few whole sequences."""
    totals = {key: sum(shard[key] for shard in shards.values()) for key in ("documents", "tokens", "bytes")}
    packed = PackedSequences(folder, {name: shard["tokens"] for name, shard in shards.items()}, length)
    if not len(packed):
        raise ShardError(
            f"shards.sequence_length: a sequence of {length} tokens is longer than the {split} split, which holds "
            f"{totals['tokens']}; shorten the sequences or add text"
        )
    if split == "validation" and len(packed) < 2:
        raise ShardError(
            f"shards.sequence_length: the validation split holds one sequence of {length} tokens, and no error can be "
            "distinguished from one; shorten the sequences, or raise corpus.validation_fraction"
        )
    dropped_tokens, dropped_bytes = packed.dropped()
    return {**totals, "sequences": len(packed), "dropped_tokens": dropped_tokens, "dropped_bytes": dropped_bytes}


# --- reading --------------------------------------------------------------------------------------------------------


class TokenShards:
    """The shards in a folder. Opening reads the index only; ``verify`` reads everything.

    Raises ShardError when the index is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        try:
            self.index = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise ShardError(f"{self.folder / INDEX} is missing or damaged; compute token_shards again") from None

    def split(self, name: str) -> PackedSequences:
        """The sequences of ``train`` or ``validation``."""
        shards = {name: shard["tokens"] for name, shard in self.index["splits"][name]["shards"].items()}
        return PackedSequences(self.folder, shards, self.index["sequence_length"])

    def verify(self) -> None:
        """Compare every file with its checksum. Raises ShardError naming the first that is missing or differs."""
        for split in self.index["splits"].values():
            for shard in split["shards"].values():
                if (path := broken_file(self.folder, shard["files"])) is not None:
                    raise ShardError(
                        f"{path} is missing or damaged; delete {self.folder} and compute token_shards again"
                    )
