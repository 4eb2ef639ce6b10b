"""Tokenizers fitted on the train split only, and proved faithful on every validation document. The train split is
proved when its shards are built, before anything is trained."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from sumi_core.data.corpus import read_texts
from sumi_core.data.shard_building import check_tokens
from sumi_core.data.sources.source import Document
from sumi_core.data.tokenizers.tokenizer import Tokenizer, TokenizerError

_TOGETHER = 64  # documents encoded at a time
_SHOWN_TOKENS = 60


def write_tokenizer(tokenizer: Tokenizer, name: str, corpus: Path, folder: Path) -> dict[str, Any]:
    """Fit ``tokenizer`` to the train split in ``corpus``, check it and save it in ``folder``; returns its figures.

    Raises TokenizerError, quoting the text, when a validation document does not come back.
    """
    tokenizer.train(document.text for document in read_texts(corpus, "train"))
    documents, tokens, size = 0, 0, 0
    validation = read_texts(corpus, "validation")
    while group := list(itertools.islice(validation, _TOGETHER)):
        tokens += check_round_trip(tokenizer, group)
        documents, size = (documents + len(group), size + sum(len(document.text.encode()) for document in group))
    tokenizer.save(folder)
    summary = {
        "tokenizer": name,
        "vocab_size": tokenizer.vocab_size,
        "eos_id": tokenizer.eos_id,
        "round_trip_documents": documents,
        "bytes_per_token": size / tokens,
    }
    example = next(read_texts(corpus, "validation"))
    (folder / "report.md").write_text(_report(summary, tokenizer, example), encoding="utf-8")
    return summary


def check_round_trip(tokenizer: Tokenizer, documents: list[Document]) -> int:
    """Encode and decode documents; returns how many tokens they have.

    Raises TokenizerError for one that does not come back byte for byte, or has other tokens the second time.
    """
    texts = [document.text for document in documents]
    encoded, again = tokenizer.encode_with_lengths(texts), tokenizer.encode_batch(texts)
    for document, (ids, lengths), other in zip(documents, encoded, again, strict=True):
        if not np.array_equal(ids, other):
            raise TokenizerError(
                f"tokenizer: the text of '{document.id}' has other tokens each time that it is encoded; choose a "
                "tokenizer without dropout or sampling"
            )
        check_tokens(tokenizer, document, ids, lengths)
    return sum(len(ids) for ids, _ in encoded)


def _report(summary: dict[str, Any], tokenizer: Tokenizer, example: Document) -> str:
    """The figures, and how a text falls into tokens."""
    ids = tokenizer.encode_batch([example.text])[0][:_SHOWN_TOKENS]
    pieces = [json.dumps(tokenizer.decode([int(i)]), ensure_ascii=False)[1:-1] for i in ids]
    return (
        f"# Tokenizer {summary['tokenizer']}\n\n"
        f"{summary['vocab_size']:,} tokens, {summary['bytes_per_token']:.3f} UTF-8 bytes a token on validation text; "
        f"exact round trip of {summary['round_trip_documents']:,} documents.\n\n"
        f"## How {example.id} begins\n\n    {'|'.join(pieces)}\n"
    )
