"""Clusters by what tokens look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sumi_core.base.progress import Progress
from sumi_core.data.clusters.clustering import Clustering, TokenClusters, numbered
from sumi_core.data.sequences import PackedSequences
from sumi_core.data.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Surface(Clustering):
    """Words that begin with white space or go on, each lower case, capitalised or upper case; digits; punctuation;
    white space; bytes that are not whole characters; everything else; end-of-text."""

    def assign(
        self, tokenizer: Tokenizer, counts: NDArray[np.int64], train: PackedSequences, progress: Progress
    ) -> TokenClusters:
        contents = [tokenizer.decode_bytes([token]) for token in range(tokenizer.vocab_size)]
        labels = [surface_class(content) for content in contents]
        labels[tokenizer.eos_id] = "end of text"
        return numbered(labels)


def surface_class(content: bytes) -> str:
    """The class of a token by its bytes.

    >>> [surface_class(text) for text in (b" the", b"Lord", b"12", b",", b"\\xe2\\x80")]
    ['word start, lower case', 'word part, capitalised', 'digits', 'punctuation', 'bytes of a character']
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes of a character"
    inner = text.strip()
    if not inner:
        return "white space"
    if inner.isdigit():
        return "digits"
    if not any(character.isalnum() for character in inner):
        return "punctuation"
    place = "word start" if text[0].isspace() else "word part"
    letters = "".join(character for character in inner if character.isalpha())
    if inner.replace("'", "").replace("’", "").isalpha():
        if letters.islower():
            return f"{place}, lower case"
        if letters.istitle() and len(letters) > 1:
            return f"{place}, capitalised"
        if letters.isupper():
            return f"{place}, upper case"
    return f"{place}, mixed"
