"""Stage ``token_shards``: tokens in memory-mapped files, and the packed sequences read from them.

A shard is a run of documents tokenized together: three arrays and a record with their SHA-256, written last.

    train-00000.tokens.npy    token ids, uint16 or uint32, every document followed by end-of-text
    train-00000.lengths.npy   UTF-8 bytes that each token covers, uint16; 0 for end-of-text
    train-00000.starts.npy    where each document starts, int64
    train-00000.json          counts and checksums
    index.json                all shards in order, written when everything is whole

Sequences are cut from the stream of all shards of a split, every ``sequence_length`` tokens; the rest is dropped and
counted. Shards do not depend on each other, so they are built in parallel and an interrupted build goes on.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sumi_core.data.corpus import SPLITS, read_texts
from sumi_core.data.tokenizers import Tokenizer, load_tokenizer
from sumi_core.lineage.fingerprint import file_sha256
from sumi_core.lineage.store import write_atomically

if TYPE_CHECKING:
    from sumi_core.stages import StageContext

INDEX = "index.json"
_ARRAYS = ("tokens", "lengths", "starts")
_INLINE_BYTES = 16 << 20  # below this, starting worker processes costs more than it saves


class ShardError(RuntimeError):
    """Token shards that are damaged or too few. One sentence that names the file or key."""


# --- building -------------------------------------------------------------------------------------------------------


def build_token_shards(context: StageContext) -> dict[str, Any]:
    """Tokenize both splits; returns counts. Raises ShardError when a split is shorter than a sequence."""
    config, workers = context.experiment.shards, context.experiment.runtime.data_workers
    corpus, tokenizer = context.inputs["corpus"], context.inputs["tokenizer"].folder
    total = sum(corpus.summary[f"{split}_bytes"] for split in SPLITS)
    tasks = _missing_shards(corpus.folder, context.folder, config.shard_documents)
    done = 0
    for name, size in _tokenize_all(tasks, tokenizer, context.folder, workers if total > _INLINE_BYTES else 1):
        done += size
        context.progress(done, total, "bytes", name)
    index = _index(context.folder, corpus.folder, config.shard_documents, config.sequence_length, tokenizer)
    summary: dict[str, Any] = {"vocab_size": index["vocab_size"], "sequence_length": config.sequence_length}
    for split in SPLITS:
        counts = index["splits"][split]
        if counts["tokens"] < config.sequence_length:
            raise ShardError(
                f"shards.sequence_length is {config.sequence_length} but the {split} split holds only "
                f"{counts['tokens']} tokens; shorten the sequences or add text"
            )
        packed = counts["tokens"] // config.sequence_length
        summary |= {
            f"{split}_shards": len(counts["shards"]),
            f"{split}_tokens": counts["tokens"],
            f"{split}_bytes": counts["bytes"],
            f"{split}_sequences": packed,
            f"{split}_dropped_tokens": counts["tokens"] - packed * config.sequence_length,
        }
    write_atomically(context.folder / INDEX, json.dumps(index, indent=1) + "\n")
    return summary


def build_shard(tokenizer: Tokenizer, texts: list[str], stem: Path) -> None:
    """Tokenize some documents into the shard ``stem``; its record is written last."""
    ids, lengths, starts, position = [], [], [], 0
    for tokens, covered in tokenizer.encode_with_lengths(texts):
        starts.append(position)
        position += len(tokens) + 1
        ids += [tokens, np.array([tokenizer.eos_id])]
        lengths += [covered, np.zeros(1, dtype=np.uint16)]
    dtype = np.uint16 if tokenizer.vocab_size < 2**16 else np.uint32
    arrays = {
        "tokens": np.concatenate(ids).astype(dtype),
        "lengths": np.concatenate(lengths),
        "starts": np.array(starts, dtype=np.int64),
    }
    files = {}
    for name, array in arrays.items():
        path = stem.with_name(f"{stem.name}.{name}.npy")
        np.save(path, array)
        files[path.name] = {"sha256": file_sha256(path), "bytes": path.stat().st_size}
    record = {
        "documents": len(texts),
        "tokens": position,
        "bytes": int(arrays["lengths"].sum(dtype=np.int64)),
        "files": files,
    }
    write_atomically(stem.with_name(f"{stem.name}.json"), json.dumps(record) + "\n")


def _missing_shards(corpus: Path, folder: Path, documents: int) -> Iterator[tuple[str, list[str]]]:
    """Name and texts of every shard that is not whole yet."""
    for split in SPLITS:
        for number, texts in enumerate(_groups(corpus, split, documents)):
            name = f"{split}-{number:05d}"
            if _broken_file(folder, folder / f"{name}.json") is not None:
                yield name, texts


def _groups(corpus: Path, split: str, documents: int) -> Iterator[list[str]]:
    group: list[str] = []
    for document in read_texts(corpus, split):
        group.append(document.text)
        if len(group) == documents:
            yield group
            group = []
    if group:
        yield group


def _tokenize_all(
    tasks: Iterator[tuple[str, list[str]]], tokenizer: Path, folder: Path, workers: int
) -> Iterator[tuple[str, int]]:
    """Build shards, yielding name and bytes as each is done; at most two per worker are held in memory."""
    if workers == 1:
        loaded = load_tokenizer(tokenizer)
        for name, texts in tasks:
            build_shard(loaded, texts, folder / name)
            yield name, sum(len(text.encode()) for text in texts)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_open_in_worker, initargs=(tokenizer,)) as pool:
        running: dict[Future[None], tuple[str, int]] = {}
        for name, texts in tasks:
            if len(running) >= 2 * workers:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                yield from _collect(running, finished)
            size = sum(len(text.encode()) for text in texts)
            running[pool.submit(_build_in_worker, texts, folder / name)] = (name, size)
        finished, _ = wait(running)
        yield from _collect(running, finished)


def _collect(running: dict[Future[None], tuple[str, int]], finished: set[Future[None]]) -> Iterator[tuple[str, int]]:
    for future in finished:
        future.result()
        yield running.pop(future)


_worker_tokenizer: Tokenizer  # one per worker process


def _open_in_worker(folder: Path) -> None:
    global _worker_tokenizer
    _worker_tokenizer = load_tokenizer(folder)


def _build_in_worker(texts: list[str], stem: Path) -> None:
    build_shard(_worker_tokenizer, texts, stem)


def _index(folder: Path, corpus: Path, documents: int, length: int, tokenizer: Path) -> dict[str, Any]:
    opened = load_tokenizer(tokenizer)
    splits: dict[str, Any] = {}
    for split in SPLITS:
        count = sum(1 for _ in _groups(corpus, split, documents))
        shards = {}
        for number in range(count):
            name = f"{split}-{number:05d}"
            shards[name] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        totals = {key: sum(shard[key] for shard in shards.values()) for key in ("documents", "tokens", "bytes")}
        splits[split] = {**totals, "shards": shards}
    return {
        "vocab_size": opened.vocab_size,
        "eos_id": opened.eos_id,
        "dtype": "uint16" if opened.vocab_size < 2**16 else "uint32",
        "sequence_length": length,
        "splits": splits,
    }


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
        return PackedSequences(self.folder, list(self.index["splits"][name]["shards"]), self.index["sequence_length"])

    def verify(self) -> None:
        """Compare every file with its checksum. Raises ShardError naming the first that is missing or differs."""
        for split in self.index["splits"].values():
            for name in split["shards"]:
                broken = _broken_file(self.folder, self.folder / f"{name}.json")
                if broken is not None:
                    raise ShardError(
                        f"{broken} is missing or damaged; delete {self.folder} and compute token_shards again"
                    )


class PackedSequences:
    """A split as sequences of ``length`` tokens: ``len``, ``[i]``, and the bytes of text each covers."""

    def __init__(self, folder: Path, shards: list[str], length: int) -> None:
        self.length = length
        self._tokens = [_open(folder / f"{name}.tokens.npy") for name in shards]
        self._lengths = [_open(folder / f"{name}.lengths.npy") for name in shards]
        self._ends = np.cumsum([len(tokens) for tokens in self._tokens], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) // self.length if len(self._ends) else 0

    def __getitem__(self, index: int) -> NDArray[np.integer[Any]]:
        """Token ids ``[L]``."""
        return self._slice(self._tokens, index)

    def bytes(self, index: int) -> int:
        """UTF-8 bytes of the text that sequence ``index`` covers; end-of-text tokens count none."""
        return int(self._slice(self._lengths, index).sum(dtype=np.int64))

    def _slice(self, arrays: list[NDArray[Any]], index: int) -> NDArray[Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        start, stop = index * self.length, (index + 1) * self.length
        pieces = []
        shard = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            offset = int(self._ends[shard]) - len(arrays[shard])
            piece = arrays[shard][start - offset : stop - offset]
            pieces.append(piece)
            start, shard = start + len(piece), shard + 1
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _open(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise ShardError(f"{path} is missing or damaged; delete its folder and compute token_shards again") from None
    return array


def _broken_file(folder: Path, record: Path) -> Path | None:
    """The first file of a shard that is not as its record says, the record itself included; None when all are."""
    try:
        files = json.loads(record.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError):
        return record
    for name, recorded in files.items():
        path: Path = folder / name
        if not path.is_file() or path.stat().st_size != recorded["bytes"] or file_sha256(path) != recorded["sha256"]:
            return path
    return None
