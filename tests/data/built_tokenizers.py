"""Tokenizers by their name in a config, and what each has to get right."""

from __future__ import annotations

from typing import Any

from sumi_core.data import TOKENIZERS
from sumi_core.data.tokenizers.tokenizer import Tokenizer

TRAINING = ["the quick brown fox jumps over the lazy dog " * 5, "吾輩は猫である。" * 5, "naïve café 🙂🙂"] * 20


def build(name: str, **options: Any) -> Tokenizer:
    tokenizer = TOKENIZERS.build(name, options)
    tokenizer.train(iter(TRAINING))
    return tokenizer


def covered(tokenizer: Tokenizer, text: str) -> None:
    """A round trip of one text, and what its lengths must be."""
    ids, lengths = tokenizer.encode_with_lengths([text])[0]
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert tokenizer.decode(ids) == text
    assert int(lengths.sum()) == len(text.encode())
    assert len(ids) == len(lengths)
    assert not (ids == tokenizer.eos_id).any()
    assert ids.size == 0 or (ids.min() >= 0 and ids.max() < tokenizer.vocab_size)
