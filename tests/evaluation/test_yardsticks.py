"""Yardsticks against closed forms."""

import math

import numpy as np
import pytest

from sumi_core.evaluation.yardsticks import (
    DEFINITIONS,
    END_OF_TEXT,
    byte_counts,
    compute_yardsticks,
    ppmd_bits,
    training_bytes,
    unigram_bits,
    xz_bits,
)


def random_bytes(size: int, seed: int) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).tobytes()


def test_random_bytes_take_eight_bits_each():
    found = compute_yardsticks(random_bytes(200_000, 0), random_bytes(50_000, 1), 50_000)
    assert found.keys() == DEFINITIONS.keys() - {"unigram_tokens"}
    assert found["unigram_bytes"] == pytest.approx(8, abs=0.01)
    assert found["xz"] == pytest.approx(8, abs=0.02)
    for order in (3, 5, 8):
        assert 8 <= found[f"ppmd_{order}"] < 8.4


def test_one_repeated_byte_takes_next_to_nothing():
    found = compute_yardsticks(b"a" * 200_000, b"a" * 50_000, 50_000)
    assert max(found.values()) < 0.01


def test_compressors_have_learned_the_train_split():
    """Noise cannot be predicted unless it was seen: a piece of the train split is cheap, the same piece alone no."""
    train = random_bytes(100_000, 2)
    seen = train[30_000:40_000]
    assert xz_bits(train, seen) / len(seen) < 1.0
    assert ppmd_bits(train, seen, 5) / len(seen) < 1.5
    assert xz_bits(b"", seen) / len(seen) > 7.9
    assert ppmd_bits(b"", seen, 5) / len(seen) > 7.9


def test_higher_orders_see_longer_contexts():
    """A text of 16-letter words over random letters: within a word everything follows from the first letters."""
    generator = np.random.default_rng(3)
    words = ["".join(generator.choice(list("abcd"), 16)) for _ in range(50)]
    text = "".join(words[i] for i in generator.integers(0, 50, 6000)).encode()
    train, validation = text[:80_000], text[80_000:]
    bits = [ppmd_bits(train, validation, order) / len(validation) for order in (3, 5, 8)]
    assert bits[0] > bits[1] > bits[2]
    assert bits[2] == pytest.approx(math.log2(50) / 16, rel=0.5)  # all there is to know: which word


def test_unigram_is_the_smoothed_cross_entropy():
    # Train: aaab over an alphabet of 256 with one added to each: p(a) = 4/260, p(c) = 1/260.
    expected = 2 * math.log2(260 / 4) + math.log2(260)
    assert unigram_bits(byte_counts(b"aaab"), byte_counts(b"aca")) == pytest.approx(expected)


def test_tokens_are_counted_with_the_end_of_text_and_divided_by_bytes():
    found = compute_yardsticks(b"xy", b"xy", 2, {"train": [3, 0, 1], "validation": [1, 1, 2]})
    expected = math.log2(7 / 4) + math.log2(7) + 2 * math.log2(7 / 2)
    assert found["unigram_tokens"] == pytest.approx(expected / 2)


def test_end_of_text_costs_bits_but_counts_no_byte():
    train = training_bytes(["ab", "ab"])
    assert train == b"ab" + END_OF_TEXT + b"ab" + END_OF_TEXT
    with_end = compute_yardsticks(train, b"ab" + END_OF_TEXT, 2)["unigram_bytes"]
    without = compute_yardsticks(train, b"ab", 2)["unigram_bytes"]
    assert with_end - without == pytest.approx(math.log2((6 + 256) / 3) / 2)


def test_training_bytes_stop_at_the_limit_without_reading_on():
    def texts():
        yield "x" * 60
        yield "y" * 60
        raise AssertionError("read beyond the limit")

    assert training_bytes(texts(), limit=100) == b"x" * 60 + END_OF_TEXT + b"y" * 39


def test_no_text_is_refused():
    with pytest.raises(ValueError, match="no text"):
        compute_yardsticks(b"abc", END_OF_TEXT, 0)
