"""One token shard: a run of documents tokenized into three arrays, with a record of their SHA-256 written last.

    train-00000.tokens.npy    token ids, uint16 or uint32, every document followed by end-of-text
    train-00000.lengths.npy   UTF-8 bytes that each token covers, 0 for end-of-text; uint8, or wider if a token needs it
    train-00000.starts.npy    where each document starts, int64
    train-00000.json          counts and checksums

Shards do not depend on each other: processes build them in parallel, and one whose record holds is not built again.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from sumi_core.base.errors import SumiError
from sumi_core.base.files import write_atomically
from sumi_core.base.hashing import file_sha256
from sumi_core.data.sources.source import Document
from sumi_core.data.tokenizers.tokenizer import Ids, Lengths, Tokenizer, TokenizerError, load_tokenizer

_CHARACTERS_TOGETHER = 1 << 20  # encoded at a time: the encoder holds some hundred bytes a token


class ShardError(SumiError, RuntimeError):
    """Token shards that are damaged or too few. One sentence that names the file or key."""


def token_dtype(vocab_size: int) -> type[np.unsignedinteger[Any]]:
    """The narrowest type for ids below ``vocab_size``: uint16 or uint32."""
    return np.uint16 if vocab_size < 2**16 else np.uint32


def build_shard(tokenizer: Tokenizer, documents: list[Document], stem: Path) -> dict[str, Any]:
    """Tokenize documents into the shard ``stem``; returns its record. Raises TokenizerError as ``check_tokens``."""
    ids: list[Ids] = []
    lengths: list[Lengths] = []
    starts: list[int] = []
    position, end = 0, np.array([tokenizer.eos_id])
    for group in _groups(documents):
        encoded = tokenizer.encode_with_lengths([document.text for document in group])
        for document, (tokens, covered) in zip(group, encoded, strict=True):
            check_tokens(tokenizer, document, tokens, covered)
            starts.append(position)
            position += len(tokens) + 1
            ids += [tokens, end]
            lengths += [covered, np.zeros(1, dtype=np.uint32)]
    widths = np.concatenate(lengths)
    arrays = {
        "tokens": np.concatenate(ids).astype(token_dtype(tokenizer.vocab_size)),
        "lengths": widths.astype(np.min_scalar_type(int(widths.max()))),
        "starts": np.array(starts, dtype=np.int64),
    }
    files = {}
    for name, array in arrays.items():
        path = stem.with_name(f"{stem.name}.{name}.npy")
        np.save(path, array)
        files[path.name] = {"sha256": file_sha256(path), "bytes": path.stat().st_size}
    record = {"documents": len(documents), "tokens": position, "bytes": int(widths.sum(dtype=np.int64)), "files": files}
    write_atomically(stem.with_name(f"{stem.name}.json"), json.dumps(record) + "\n")
    return record


def check_tokens(tokenizer: Tokenizer, document: Document, ids: Ids, lengths: Lengths) -> None:
    """What must hold of every encoded document: it comes back byte for byte, its tokens cover its bytes, and none of
    them ends a text.

    Raises TokenizerError, quoting the text where it first differs.
    """
    found, wanted = tokenizer.decode_bytes(ids), document.text.encode()
    if found != wanted:
        pairs = zip(found, wanted, strict=False)
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(found), len(wanted)))
        raise TokenizerError(
            f"tokenizer: the text of '{document.id}' does not survive a round trip: {_around(wanted, at)} comes "
            f"back as {_around(found, at)}; choose a tokenizer that keeps every byte"
        )
    covered, size = int(lengths.sum(dtype=np.int64)), len(wanted)
    if covered != size:
        raise TokenizerError(
            f"tokenizer: the tokens of '{document.id}' cover {covered} bytes of its {size}, which begin with "
            f"{document.text[:40]!r}; choose a tokenizer that keeps every byte"
        )
    if (ids == tokenizer.eos_id).any():
        raise TokenizerError(
            f"tokenizer: the text of '{document.id}' holds {tokenizer.backend.id_to_token(tokenizer.eos_id)!r}, which "
            "is the end-of-text token; choose a tokenizer whose end-of-text token no text can spell"
        )


def _around(content: bytes, at: int) -> str:
    return repr(content[max(0, at - 20) : at + 20].decode("utf-8", errors="replace"))


def read_record(folder: Path, name: str) -> dict[str, Any] | None:
    """A shard's record if the shard is whole, else None."""
    try:
        record: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if broken_file(folder, record["files"]) is None else None


def broken_file(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> Path | None:
    """The first of some recorded files that is missing or differs from its SHA-256."""
    for name, recorded in files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != recorded["bytes"] or file_sha256(path) != recorded["sha256"]:
            return path
    return None


def _groups(documents: list[Document]) -> Iterator[list[Document]]:
    group: list[Document] = []
    characters = 0
    for document in documents:
        group.append(document)
        characters += len(document.text)
        if characters >= _CHARACTERS_TOGETHER:
            yield group
            group, characters = [], 0
    if group:
        yield group


# --- in processes ---------------------------------------------------------------------------------------------------


def build_shards(
    tasks: Iterable[tuple[str, list[Document]]], tokenizer: Path, folder: Path, workers: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Build shards by name, yielding each record as it is done. At most two shards per worker are held in memory.

    One worker is this process. Raises ShardError when a worker dies.
    """
    if workers == 1:
        loaded = load_tokenizer(tokenizer)
        for name, documents in tasks:
            yield name, build_shard(loaded, documents, folder / name)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads of this process hold
    pool = ProcessPoolExecutor(workers, context, initializer=_open_in_worker, initargs=(tokenizer,))
    running: dict[Future[dict[str, Any]], str] = {}
    try:
        for name, documents in tasks:
            if len(running) >= 2 * workers:
                yield from _collect(running, FIRST_COMPLETED)
            running[pool.submit(_build_in_worker, documents, folder / name)] = name
        while running:
            yield from _collect(running, FIRST_COMPLETED)
    except BrokenProcessPool:
        raise ShardError(
            "a process that tokenized died, most likely for lack of memory; lower runtime.data_workers or "
            "shards.shard_documents and run again: finished shards are kept"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _collect(running: dict[Future[dict[str, Any]], str], until: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for future in wait(running, return_when=until).done:
        yield running.pop(future), future.result()


_worker_tokenizer: Tokenizer  # one per worker process


def _open_in_worker(folder: Path) -> None:
    global _worker_tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # processes are the parallelism
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker_tokenizer = load_tokenizer(folder)


def _end_with_parent() -> None:
    """Leave when the parent is gone: a pool's worker would wait for its next task for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _build_in_worker(documents: list[Document], stem: Path) -> dict[str, Any]:
    return build_shard(_worker_tokenizer, documents, stem)
