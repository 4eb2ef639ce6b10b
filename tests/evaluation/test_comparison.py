"""Differences, corrections and ranks of cells whose truth is known."""

import math

import numpy as np
import pytest

from sumi_core.evaluation.comparison import (
    CellLikelihood,
    Difference,
    all_differences,
    difference,
    oriented,
    paired_interval,
    ranks,
)
from sumi_core.evaluation.statistics import Estimate, holm_adjusted, two_sided_p
from tests.evaluation.fakes import likelihoods

COUNT = 300
GENERATOR = np.random.default_rng(0)
BYTES = GENERATOR.integers(100, 300, COUNT)
HARDNESS = GENERATOR.normal(2.0, 0.5, COUNT)


def cell(extra: float, seed: int, texts: str = "t") -> CellLikelihood:
    """A cell that takes ``extra`` bits per byte more than the texts' own hardness, give or take 0.05 on each."""
    noise = np.random.default_rng(seed).normal(0, 0.05, COUNT)
    return CellLikelihood(
        (HARDNESS + extra + noise) * BYTES, BYTES, tuple(f"{texts}{i}" for i in range(COUNT)), np.arange(COUNT)
    )


def test_loading_averages_draws_and_turns_nats_into_bits(tmp_path):
    measured = likelihoods([[1.0, 3.0], [5.0, 7.0]], level=np.full((2, 2), 0.5), bytes_=[4, 5])
    measured.frame(["x", "y"]).to_parquet(tmp_path / "likelihood.parquet")
    loaded = CellLikelihood.load(tmp_path / "likelihood.parquet")
    np.testing.assert_allclose(loaded.bits, np.array([2.0, 6.0]) / math.log(2))
    assert loaded.bytes.tolist() == [4, 5]
    assert loaded.text_digests == ("x", "y")
    assert loaded.bits_per_byte.value == pytest.approx(8 / math.log(2) / 9)


def test_pairing_tells_apart_what_the_separate_errors_cannot():
    cells = {"a": cell(0.0, 1), "b": cell(0.03, 2)}
    found = difference(cells, "b", "a")
    assert found.paired
    assert found.value == pytest.approx(0.03, abs=0.01)
    assert found.stderr == pytest.approx(0.05 * math.sqrt(2 / COUNT), rel=0.15)
    assert math.hypot(*(c.bits_per_byte.stderr for c in cells.values())) > 0.03
    low, high = paired_interval(cells, "b", "a")
    assert 0 < low < found.value < high


def test_other_texts_are_not_paired():
    cells = {"a": cell(0.0, 1), "b": cell(0.03, 2, texts="other")}
    found = difference(cells, "b", "a")
    assert not found.paired
    assert found.stderr == pytest.approx(math.hypot(*(c.bits_per_byte.stderr for c in cells.values())))
    assert paired_interval(cells, "b", "a") is None


def test_every_pair_is_corrected_for_all():
    found = all_differences({"a": cell(0.0, 1), "b": cell(0.005, 2), "c": cell(0.5, 3)})
    assert [(d.first, d.second) for d in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    alone = [two_sided_p(Estimate(d.value, d.stderr), COUNT) for d in found]
    assert [d.p_adjusted for d in found] == holm_adjusted(alone)
    assert not found[0].significant
    assert found[1].significant
    assert found[2].significant


def test_ranks_with_ties():
    found = all_differences({"a": cell(0.0, 1), "b": cell(0.0, 2), "c": cell(0.3, 3), "d": cell(0.6, 4)})
    assert not found[0].significant
    assert ranks("abcd", found) == {"a": 1, "b": 1, "c": 3, "d": 4}
    assert ranks(["alone"], []) == {"alone": 1}


def test_a_false_alarm_is_rare():
    """Six equal cells, fifteen comparisons, 200 times: some 'significant' difference in at most about 5 % of them."""
    alarms = 0
    for trial in range(200):
        cells = {str(i): cell(0.0, 1000 + 10 * trial + i) for i in range(6)}
        alarms += any(d.significant for d in all_differences(cells))
    assert alarms <= 20  # 5 % and two and a half standard deviations


def test_orientation():
    found = [Difference("a", "b", 0.2, 0.1, True, 0.04)]
    assert oriented(found, "a", "b").value == 0.2
    turned = oriented(found, "b", "a")
    assert (turned.first, turned.value, turned.p_adjusted) == ("b", -0.2, 0.04)
    with pytest.raises(KeyError, match="not compared"):
        oriented(found, "a", "c")


def test_identical_cells_do_not_differ():
    same = cell(0.0, 1)
    found = all_differences({"a": same, "b": same})
    assert (found[0].value, found[0].stderr, found[0].p_adjusted) == (0.0, 0.0, 1.0)
    assert ranks("ab", found) == {"a": 1, "b": 1}
