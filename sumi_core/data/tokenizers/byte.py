"""Bytes as tokens: id = byte value, 256 ends a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sumi_core.data.tokenizers.alphabet import byte_alphabet
from sumi_core.data.tokenizers.tokenizer import EOS, Tokenizer


class Byte(Tokenizer):
    """257 tokens, nothing to fit; written as a byte-level BPE without merges, so that stock libraries open it."""

    ids_are_bytes = True
    learns = False

    @classmethod
    def expected_size(cls, options: Mapping[str, Any]) -> int:
        return 257

    def train(self, texts: Iterator[str]) -> None:
        """Build the fixed vocabulary; the texts are not read."""
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers

        vocabulary = {character: byte for byte, character in enumerate(byte_alphabet())}
        self.backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        self.backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        self.backend.decoder = decoders.ByteLevel()
        self.backend.add_special_tokens([EOS])
        self.eos_id = 256
        self._ready()
