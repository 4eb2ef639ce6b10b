"""The sections ``corpus`` and ``shards`` of an experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sumi_core.base.options import number, part
from sumi_core.data import SOURCES


@dataclass
class CorpusConfig:
    """Documents and their split. The split hashes documents, never paragraphs, so that near text does not leak."""

    source: Any = part(SOURCES, "web-bible")
    validation_fraction: float = number(0.05, above=0.0, high=0.5)
    deduplicate: bool = True  # drop documents whose text was already seen, byte for byte


@dataclass
class ShardsConfig:
    """Packing of tokens into sequences: documents are joined with an end-of-text token and cut every ``length``."""

    sequence_length: int = number(128, low=2, high=2**20)
    shard_documents: int = number(256, low=1, high=10**6)  # in a shard: the unit of parallelism and resume
