"""Yardsticks: what simple, well-known models need for the very bytes that a model was evaluated on.

All are fitted on the train split and then code the evaluated validation sequences, and all are reported in bits per
UTF-8 byte of those sequences, as the model is. A model pays for the end of every text, which has no byte; so do the
yardsticks: an end of text is coded as the byte 0xFF, which UTF-8 never uses, and its cost is counted while its length
is not. The compressors are adaptive: they go on learning from the validation text while they code it, which a trained
model does not.
"""

from __future__ import annotations

import lzma
import math
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from sumi_core.base.text import markdown_table, with_error
from sumi_core.evaluation.measurement import Context, Findings, Measurement, Model, named_estimates
from sumi_core.evaluation.samples import END_OF_TEXT, sequence_bytes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MAX_TRAIN_BYTES = 32 << 20  # the first 32 MiB of the train split: more would take minutes and gain little
PPMD_ORDERS = (3, 5, 8)
_PPMD_MEMORY = (64 << 20, 1 << 30)  # smallest and largest model memory, bytes
_XZ_DICTIONARY = (1 << 20, 64 << 20)  # smallest and largest, bytes; the encoder needs ten times as much memory

DEFINITIONS: dict[str, str] = {
    "unigram_bytes": "cross-entropy of byte frequencies (add-one smoothing)",
    "unigram_tokens": "cross-entropy of token frequencies (add-one smoothing), the model's own tokenizer: what a model "
    "reaches that knows nothing but how frequent each token is",
    **{
        f"ppmd_{order}": f"PPMd variant H, order {order}: what the validation text adds after the training text"
        for order in PPMD_ORDERS
    },
    "xz": "xz (LZMA2 preset 9e, dictionary of up to 64 MiB): size of both texts less that of the training text",
}
NOTES = (
    *(f"{name}: {definition}." for name, definition in DEFINITIONS.items()),
    "yardsticks are fitted on the train split's first 32 MiB (token frequencies: its first 2^25 tokens).",
    "yardsticks code an end of text as one more symbol, as the model does, and go by the same bytes; the "
    "compressors go on learning from the validation text while they code it.",
)


class Yardsticks(Measurement):
    """Bits per byte of token frequencies and of compressors on the very bytes that models are measured on."""

    reads = ("sequences",)
    inputs = ("corpus", "tokenizer", "token_shards")  # no model: every cell with these tokens shares them

    def run(self, model: Model, context: Context) -> Findings:
        """Fit on the train split, and code the chosen sequences."""
        context.progress(0, 1, "yardsticks", "coding the validation text with compressors")
        tokenizer, tokens = model.tokenizer, context.tokens
        texts = [sequence_bytes(ids, tokenizer) for ids in tokens]
        coded = sum(len(text) - text.count(END_OF_TEXT) for text in texts)
        covered = sum(context.text.bytes(index) for index in context.chosen)
        if coded != covered:
            context.log(f"the tokenizer cuts characters: yardsticks code {coded} bytes, the sequences cover {covered}")
        counts = {
            "train": context.train_counts(),
            "validation": token_counts(tokens, tokenizer.vocab_size),
        }
        found = compute_yardsticks(training_bytes(context.train_texts()), b"".join(texts), coded, counts)
        context.progress(1, 1, "yardsticks", "coding the validation text with compressors")
        return yardstick_findings(found)


def yardstick_findings(yardsticks: Mapping[str, float]) -> Findings:
    """Findings of bits per byte by yardstick."""
    rows = [
        {"yardstick": name, "bits per byte": with_error(value)}
        for name, value in sorted(yardsticks.items(), key=lambda item: item[1])
    ]
    return Findings(
        summary={"yardsticks": dict(yardsticks)},
        estimates=named_estimates("yardstick", yardsticks),
        texts=("## Yardsticks on the same bytes", markdown_table(rows)),
        definitions=NOTES,
    )


def token_counts(sequences: Iterable[NDArray[np.integer[Any]]], vocab_size: int) -> NDArray[np.int64]:
    """How often each token occurs in some sequences, ``[V]``."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for ids in sequences:
        counts += np.bincount(np.asarray(ids, dtype=np.int64), minlength=vocab_size)
    return counts


def training_bytes(texts: Iterable[str], limit: int = MAX_TRAIN_BYTES) -> bytes:
    """Documents from the first, each followed by the end-of-text byte, cut at ``limit`` bytes."""
    joined = bytearray()
    for text in texts:
        joined += text.encode("utf-8") + END_OF_TEXT
        if len(joined) >= limit:
            break
    return bytes(joined[:limit])


def unigram_bits(train_counts: ArrayLike, counts: ArrayLike) -> float:
    """Bits to code symbols that occur ``counts`` times with frequencies of the train split, one added to each."""
    train = np.asarray(train_counts, dtype=np.float64) + 1.0
    observed: NDArray[np.float64] = np.asarray(counts, dtype=np.float64)
    return float((observed * (math.log2(train.sum()) - np.log2(train))).sum())


def byte_counts(data: bytes) -> NDArray[np.int64]:
    """How often each byte value occurs, ``[256]``."""
    return np.bincount(np.frombuffer(data, np.uint8), minlength=256)


def ppmd_bits(train: bytes, validation: bytes, order: int) -> float:
    """Bits that PPMd (variant H, Cleary & Witten 1984; Shkarin 2002) adds for ``validation`` after coding ``train``.

    Memory: 64 bytes for each byte of input, between 64 MiB and 1 GiB; on running out, PPMd forgets and starts anew.
    """
    import pyppmd  # what only reads the parts of an experiment does without

    memory = min(max(_PPMD_MEMORY[0], 64 * (len(train) + len(validation))), _PPMD_MEMORY[1])
    encoder = pyppmd.Ppmd7Encoder(order, memory)
    encoder.encode(train)  # what is still in the coder's range when this returns is a few bits
    return 8.0 * (len(encoder.encode(validation)) + len(encoder.flush()))


def xz_bits(train: bytes, validation: bytes) -> float:
    """Bits that xz adds for ``validation`` after ``train`` (raw LZMA2, no container; the dictionary holds both)."""
    needed = 1 << (len(train) + len(validation)).bit_length()
    dictionary = min(max(_XZ_DICTIONARY[0], needed), _XZ_DICTIONARY[1])
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}]

    def size(data: bytes) -> int:
        return len(lzma.compress(data, lzma.FORMAT_RAW, filters=filters))

    # liblzma works outside the interpreter's lock; two large dictionaries at once would take too much memory.
    with ThreadPoolExecutor(2 if dictionary <= 16 << 20 else 1) as pool:
        both, alone = pool.map(size, (train + validation, train))
    return 8.0 * (both - alone)


def compute_yardsticks(
    train: bytes,
    validation: bytes,
    validation_bytes: int,
    token_counts: Mapping[str, ArrayLike] | None = None,
) -> dict[str, float]:
    """Every yardstick in bits per byte; keys as in DEFINITIONS.

    train, validation: text with the end-of-text byte after each document. validation_bytes: UTF-8 bytes of the
    validation text, without those. token_counts: ``{"train": [V], "validation": [V]}`` counts for ``unigram_tokens``,
    which is left out without them. Raises ValueError when there is no validation text.
    """
    if validation_bytes <= 0:
        raise ValueError("the evaluated validation sequences hold no text; raise evaluation.sequences")
    bits = {"unigram_bytes": unigram_bits(byte_counts(train), byte_counts(validation))}
    if token_counts is not None:
        bits["unigram_tokens"] = unigram_bits(token_counts["train"], token_counts["validation"])
    bits |= {f"ppmd_{order}": ppmd_bits(train, validation, order) for order in PPMD_ORDERS}
    bits["xz"] = xz_bits(train, validation)
    return {name: value / validation_bytes for name, value in bits.items()}
