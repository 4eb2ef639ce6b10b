"""Stage ``token_shards``: tokens in memory-mapped files, and the packed sequences read from them.

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
from numpy.typing import NDArray

from sumi_core.data.corpus import SPLITS, read_texts
from sumi_core.data.shard_building import ShardError, broken_file, build_shards, read_record, token_dtype
from sumi_core.data.tokenizers import load_tokenizer
from sumi_core.files import remove_torn, write_atomically

if TYPE_CHECKING:
    from sumi_core.data.sources import Document
    from sumi_core.stages import StageContext

__all__ = ["INDEX", "PackedSequences", "ShardError", "TokenShards", "build_token_shards"]

INDEX = "index.json"
TOKEN_COUNTS = "token_counts.npy"  # how often each token occurs in the train split, int64 [V]
_INLINE_BYTES = 16 << 20  # below this, starting worker processes costs more than it saves
_OPEN_ARRAYS = 256  # memory maps held at a time: each takes a file descriptor


# --- building -------------------------------------------------------------------------------------------------------


def build_token_shards(context: StageContext) -> dict[str, Any]:
    """Tokenize both splits; returns counts. What an interrupted run left whole in the folder is kept.

    Raises ShardError when a split is shorter than a sequence, TokenizerError when a text does not fit the tokenizer.
    """
    config, workers = context.experiment.shards, context.experiment.runtime.data_workers
    corpus, tokenizer, folder = context.inputs["corpus"], context.inputs["tokenizer"].folder, context.folder
    remove_torn(folder)
    names = {split: _names(corpus.folder, split, config.shard_documents) for split in SPLITS}
    records = {name: read_record(folder, name) for split in SPLITS for name in names[split]}
    total = sum(corpus.summary[f"{split}_bytes"] for split in SPLITS)
    done = sum(record["bytes"] for record in records.values() if record is not None)
    if done:
        context.log(
            f"keeping {sum(r is not None for r in records.values())} of {len(records)} shards of an earlier run"
        )
    missing = {name for name, record in records.items() if record is None}
    tasks = _tasks(corpus.folder, names, missing, config.shard_documents)
    for name, record in build_shards(tasks, tokenizer, folder, workers if total - done > _INLINE_BYTES else 1):
        records[name] = record
        done += record["bytes"]
        context.progress(done, total, "bytes", name)
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
            "told from one; shorten the sequences, or raise corpus.validation_fraction"
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


class PackedSequences:
    """A split as sequences of ``length`` tokens: ``len``, ``[i]``, and the bytes of text that each covers.

    shards: tokens of each shard, by name, in order. Files are opened when they are first read.
    """

    def __init__(self, folder: Path, shards: Mapping[str, int], length: int) -> None:
        self.length = length
        self._folder, self._names = folder, list(shards)
        self._ends = np.cumsum(list(shards.values()), dtype=np.int64)
        self._arrays: dict[str, NDArray[Any]] = {}

    def __len__(self) -> int:
        return self._total() // self.length

    def __getitem__(self, index: int) -> NDArray[np.integer[Any]]:
        """Token ids ``[L]``."""
        return self._read("tokens", *self._range(index))

    def bytes(self, index: int) -> int:
        """UTF-8 bytes of the text that sequence ``index`` covers; end-of-text tokens count none."""
        return int(self._read("lengths", *self._range(index)).sum(dtype=np.int64))

    def document_starts(self, index: int) -> NDArray[np.int64]:
        """Positions in sequence ``index`` at which a document starts, rising; none if it lies within one document."""
        found, position = [], 0
        for shard, start, stop in self._pieces(*self._range(index)):
            starts = self._array(shard, "starts")
            low, high = np.searchsorted(starts, [start, stop])
            found.append(starts[low:high] - start + position)
            position += stop - start
        return np.concatenate(found)

    def dropped(self) -> tuple[int, int]:
        """Tokens and UTF-8 bytes behind the last whole sequence."""
        start, stop = len(self) * self.length, self._total()
        return stop - start, int(self._read("lengths", start, stop).sum(dtype=np.int64))

    def _total(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def _range(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        return index * self.length, (index + 1) * self.length

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """The shards that a stretch of the stream lies in, each with its stretch there: (shard, start, stop)."""
        shard = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            end = int(self._ends[shard])
            offset = int(self._ends[shard - 1]) if shard else 0
            yield shard, start - offset, min(stop, end) - offset
            start, shard = min(stop, end), shard + 1

    def _read(self, kind: str, start: int, stop: int) -> NDArray[Any]:
        pieces = [self._array(shard, kind)[low:high] for shard, low, high in self._pieces(start, stop)]
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)

    def _array(self, shard: int, kind: str) -> NDArray[Any]:
        name = f"{self._names[shard]}.{kind}.npy"
        if name not in self._arrays:
            if len(self._arrays) >= _OPEN_ARRAYS:
                del self._arrays[next(iter(self._arrays))]
            path = self._folder / name
            try:
                self._arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError):
                raise ShardError(
                    f"{path} is missing or damaged; delete {self._folder} and compute token_shards again"
                ) from None
        return self._arrays[name]
