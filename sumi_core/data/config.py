"""The sections ``corpus`` and ``shards`` of an experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from sumi_core.base.options import part
from sumi_core.data import SOURCES


@dataclass
class CorpusConfig:
    """Documents and their split. The split hashes documents, never paragraphs, so that near text does not leak."""

    source: Annotated[Any, Field(description="where the documents come from")] = part(SOURCES, "web-bible")
    validation_fraction: Annotated[
        float, Field(gt=0.0, le=0.5, description="share of the documents that is held out, chosen by their hash")
    ] = 0.05
    deduplicate: Annotated[bool, Field(description="drop documents whose text was already seen, byte for byte")] = True


@dataclass
class ShardsConfig:
    """Packing of tokens into sequences: documents, joined by end-of-text, are cut every ``sequence_length`` tokens."""

    sequence_length: Annotated[int, Field(ge=2, le=2**20, description="tokens in a training sequence")] = 128
    shard_documents: Annotated[
        int, Field(ge=1, le=10**6, description="documents in a shard: the unit of parallelism and resume")
    ] = 256
