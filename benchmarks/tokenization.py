"""Building token shards against the ``tokenizers`` library alone, on the same documents.

    python benchmarks/tokenization.py [--workers 2] [--vocab-size 4096] [--copies 1] [--rounds 5]

The library's calls (``encode_batch``, and ``encode_batch_fast``, which leaves out offsets) give Encoding objects and
nothing else. Building shards also keeps ids and byte lengths as arrays, checks that they cover the text, writes them to
disk and takes their SHA-256; with several workers it starts processes too. The three take turns. Prints the median over
rounds of the speed of shards / the library's, and the spread: above 1, shards are the faster.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sumi_core.data import SOURCES, TOKENIZERS
from sumi_core.data.shard_building import build_shards
from sumi_core.data.sources.source import Document
from sumi_core.data.tokenizers.tokenizer import Tokenizer

SHARD_DOCUMENTS = 256


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1, help="processes that tokenize; 1: this one, with its threads")
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--copies", type=int, default=1, help="how often the 13 MB of text are tokenized")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    documents = [
        document for name in ("web-bible", "python-stdlib") for document in SOURCES.build(name, {}).documents()
    ]
    tokenizer = TOKENIZERS.build("bpe", {"vocab_size": arguments.vocab_size})
    tokenizer.train(document.text for document in documents)
    documents *= arguments.copies
    megabytes = sum(len(document.text.encode()) for document in documents) / 1e6
    print(f"{len(documents)} documents, {megabytes:.1f} MB, {tokenizer.vocab_size} tokens, {arguments.workers} workers")
    seconds: dict[str, list[float]] = {"encode_batch": [], "encode_batch_fast": [], "token shards": []}
    for _ in range(arguments.rounds):
        for call in ("encode_batch", "encode_batch_fast"):
            seconds[call].append(encode(getattr(tokenizer.backend, call), documents))
        seconds["token shards"].append(build(tokenizer, documents, arguments.workers))
    for name, times in seconds.items():
        print(f"{name:18} {megabytes / statistics.median(times):6.2f} MB/s")
    for name in ("encode_batch", "encode_batch_fast"):
        ratios = [raw / ours for raw, ours in zip(seconds[name], seconds["token shards"], strict=True)]
        print(f"ratio to {name:18} {statistics.median(ratios):5.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")


def encode(call: Callable[..., Any], documents: list[Document]) -> float:
    """Seconds of the library alone, in batches of as many documents as a shard has."""
    start = time.perf_counter()
    for first in range(0, len(documents), SHARD_DOCUMENTS):
        batch = [document.text for document in documents[first : first + SHARD_DOCUMENTS]]
        call(batch, add_special_tokens=False)
    return time.perf_counter() - start


def build(tokenizer: Tokenizer, documents: list[Document], workers: int) -> float:
    """Seconds of building shards, processes and files included."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save(folder)
        tasks = [
            (f"train-{first:05d}", documents[first : first + SHARD_DOCUMENTS])
            for first in range(0, len(documents), SHARD_DOCUMENTS)
        ]
        start = time.perf_counter()
        for _ in build_shards(tasks, folder, folder, workers):
            pass
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
