"""Byte-level byte-pair encoding (Sennrich et al., 1508.07909; on bytes as in GPT-2), fitted to the train split."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from sumi_core.base.process import interruptible
from sumi_core.data.tokenizers.alphabet import byte_alphabet
from sumi_core.data.tokenizers.tokenizer import EOS, Tokenizer

#: A word of which no more than so many characters are fitted at a time: the time grows with the square of a word's
#: length. Runs of one of the kinds of characters that byte-level words consist of; no word of a language is as long.
_LONGEST_WORD = 1000
_KINDS = (r"[^\W\d_]", r"\d", r"(?:[^\w\s]|_)", r"\s")
_LONG_WORD = re.compile("|".join(f"{kind}{{{_LONGEST_WORD}}}" for kind in _KINDS))
_LONG_RUN = re.compile(rf"\S{{{_LONGEST_WORD}}}|\s{{{_LONGEST_WORD}}}")  # seen faster, and hardly ever there


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
        cut = (piece for text in texts for piece in cut_long_words(text))
        interruptible(lambda: backend.train_from_iterator(cut, trainer))
        backend.add_special_tokens([EOS])
        self.backend, self.eos_id = backend, backend.token_to_id(EOS)
        self._ready()


def cut_long_words(text: str) -> Iterator[str]:
    """A text in pieces that begin after every thousand characters of a word without end (a genome, base64), for the
    merges to be fitted to; other texts whole.

    >>> [len(piece) for piece in cut_long_words("a word and " + 2500 * "A" + " more")]
    [1011, 1000, 505]
    """
    start = 0
    if not _LONG_RUN.search(text):
        yield text
        return
    for found in _LONG_WORD.finditer(text):
        yield text[start : found.end()]
        start = found.end()
    yield text[start:]
