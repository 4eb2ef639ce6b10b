"""Byte-level byte-pair encoding (Sennrich et al., 1508.07909; on bytes as in GPT-2), fitted to the train split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from sumi_core.data.tokenizers.alphabet import byte_alphabet
from sumi_core.data.tokenizers.tokenizer import EOS, Tokenizer


class ByteLevelBpe(Tokenizer):
    """``vocab_size`` tokens at most: 256 bytes, merges, and the end of text as the last; less on a tiny corpus."""

    @dataclass
    class Options:
        """vocab_size: V, the end-of-text token included."""

        vocab_size: Annotated[
            int, Field(ge=258, le=2**20, description="number of tokens, the 256 bytes and end-of-text included")
        ] = 1024

    @classmethod
    def expected_size(cls, options: Mapping[str, Any]) -> int:
        return int(options["vocab_size"])

    def train(self, texts: Iterator[str]) -> None:
        """Fit the merges."""
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers, trainers

        backend: Any = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.options.vocab_size - 1, initial_alphabet=byte_alphabet(), show_progress=False
        )
        backend.train_from_iterator(texts, trainer)
        backend.add_special_tokens([EOS])
        self.backend, self.eos_id = backend, backend.token_to_id(EOS)
        self._ready()
