"""Differences, corrections and ranks of cells whose truth is known."""

import math

import numpy as np
import pytest

from sumi_core.base.statistics import Error, holm_adjusted, t_interval, two_sided_p
from sumi_core.reports.differences import (
    CellLikelihood,
    Difference,
    SeedGroup,
    all_differences,
    bootstrap_interval,
    difference,
    oriented,
    ranks,
    shared_seeds,
)
from tests.evaluation.fakes import likelihoods

COUNT = 300
GENERATOR = np.random.default_rng(0)
BYTES = GENERATOR.integers(100, 300, COUNT)
FREEDOM = BYTES.sum() ** 2 / (BYTES**2).sum() - 1  # of documents of unlike size
HARDNESS = GENERATOR.normal(2.0, 0.5, COUNT)


def model(extra: float, seed: int, texts: str = "t") -> CellLikelihood:
    """A model that takes ``extra`` bits per byte more than the texts' own hardness, give or take 0.05 on each."""
    noise = np.random.default_rng(seed).normal(0, 0.05, COUNT)
    return CellLikelihood(
        (HARDNESS + extra + noise) * BYTES, BYTES, tuple(f"{texts}{i}" for i in range(COUNT)), np.arange(COUNT)
    )


def cell(extra: float, seed: int, texts: str = "t") -> SeedGroup:
    """A method with one training seed."""
    return SeedGroup({0: model(extra, seed, texts)})


def method(extra: float, spread: float, seeds: list[int], number: int) -> SeedGroup:
    """A method whose seeds lie ``spread`` apart in bits per byte; part of that is the seed's own luck, with any
    method."""
    own = np.random.default_rng(number)
    luck = {s: np.random.default_rng(s).normal(0, 0.2) for s in seeds}
    return SeedGroup({s: model(extra + luck[s] + own.normal(0, spread), 100 * number + s) for s in seeds})


def test_loading_averages_draws_and_turns_nats_into_bits(tmp_path):
    measured = likelihoods([[1.0, 3.0], [5.0, 7.0]], level=np.full((2, 2), 0.5), bytes_=[4, 5])
    measured.frame(["x", "y"]).to_parquet(tmp_path / "likelihood.parquet")
    loaded = CellLikelihood.load(tmp_path / "likelihood.parquet")
    np.testing.assert_allclose(loaded.bits, np.array([2.0, 6.0]) / math.log(2))
    assert loaded.bytes.tolist() == [4, 5]
    assert loaded.text_digests == ("x", "y")
    assert loaded.bits_per_byte.value == pytest.approx(8 / math.log(2) / 9)
    assert loaded.draw_variance == pytest.approx(1 / math.log(2) ** 2)  # each draw 1 nat from its sequence's mean


def test_pairing_tells_apart_what_the_separate_errors_cannot():
    cells = {"a": cell(0.0, 1), "b": cell(0.03, 2)}
    found = difference(cells, "b", "a")
    assert found.paired
    assert found.value == pytest.approx(0.03, abs=0.01)
    assert found.stderr == pytest.approx(0.05 * math.sqrt(2 / COUNT), rel=0.15)
    assert math.hypot(*(c.bits_per_byte.stderr for c in cells.values())) > 0.03
    low, high = bootstrap_interval(cells, "b", "a")
    assert 0 < low < found.value < high
    assert (found.low_95, found.high_95) == pytest.approx((low, high), abs=0.002)


def test_other_texts_are_not_paired():
    cells = {"a": cell(0.0, 1), "b": cell(0.03, 2, texts="other")}
    found = difference(cells, "b", "a")
    assert not found.paired
    assert found.stderr == pytest.approx(math.hypot(*(c.bits_per_byte.stderr for c in cells.values())))
    assert bootstrap_interval(cells, "b", "a") is None


def test_every_pair_of_methods_is_corrected_for_all_and_trained_models_have_no_verdict():
    several = {
        name: method(extra, 0.002, [0, 1, 2], i) for i, (name, extra) in enumerate({"a": 0, "b": 0, "c": 0.5}.items())
    }
    found = all_differences({**several, "alone": cell(0.9, 4)})
    pairs = {(d.first, d.second): d for d in found}
    assert list(pairs) == [("a", "b"), ("a", "c"), ("a", "alone"), ("b", "c"), ("b", "alone"), ("c", "alone")]
    of_methods = [d for pair, d in pairs.items() if "alone" not in pair]
    ps = [two_sided_p(d.value, [Error(d.stderr_documents, FREEDOM), Error(d.stderr_seeds, 2)]) for d in of_methods]
    assert [d.p_adjusted for d in of_methods] == holm_adjusted(ps)
    assert [pairs["a", "b"].significant, pairs["a", "c"].significant, pairs["b", "c"].significant] == [
        False,
        True,
        True,
    ]
    assert ranks(found) == {"a": 1, "b": 1, "c": 3}
    for pair in (pair for pair in pairs if "alone" in pair):
        assert not pairs[pair].of_methods
        assert math.isnan(pairs[pair].p_adjusted)
        assert not pairs[pair].significant
        assert pairs[pair].low_95 < pairs[pair].value < pairs[pair].high_95
    assert ranks(all_differences({"a": cell(0.0, 1), "b": cell(0.5, 2)})) == ranks([]) == {}


def test_orientation():
    found = [Difference("a", "b", 0.2, 0.1, True, 0.04)]
    assert oriented(found, "a", "b").value == 0.2
    turned = oriented(found, "b", "a")
    assert (turned.first, turned.value, turned.p_adjusted) == ("b", -0.2, 0.04)
    with pytest.raises(KeyError, match="not compared"):
        oriented(found, "a", "c")


def test_identical_cells_do_not_differ():
    same = method(0.0, 0.1, [0, 1], 1)
    found = all_differences({"a": same, "b": same})
    assert (found[0].value, found[0].stderr, found[0].p_adjusted) == (0.0, 0.0, 1.0)
    assert ranks(found) == {"a": 1, "b": 1}


def test_seeds_that_both_have_are_paired():
    """What a seed does to any method cancels: the error is that of the methods' own spread."""
    groups = {"a": method(0.0, 0.01, [0, 1, 2, 3], 1), "b": method(0.1, 0.01, [0, 1, 2, 3], 2)}
    found = difference(groups, "b", "a")
    assert (found.seeds, found.paired_seeds, found.paired) == (4, True, True)
    each = [groups["b"].cells[s].bits_per_byte.value - groups["a"].cells[s].bits_per_byte.value for s in range(4)]
    assert found.value == pytest.approx(np.mean(each))
    assert found.stderr_seeds == pytest.approx(np.std(each, ddof=1) / 2)
    assert found.stderr == pytest.approx(math.hypot(found.stderr_seeds, found.stderr_documents))
    assert found.stderr_seeds < 0.2 * groups["a"].bits_per_byte.stderr_seeds
    assert found.low_95 > 0.05


def test_a_missing_seed_is_left_out_of_both_sides():
    whole, less = method(0.0, 0.01, [0, 1, 2], 1), method(0.1, 0.01, [0, 2], 2)
    found = difference({"a": whole, "b": less}, "b", "a")
    assert (found.seeds, found.paired_seeds) == (2, True)
    same = SeedGroup({s: whole.cells[s] for s in (0, 2)})
    assert found.value == pytest.approx(less.bits_per_byte.value - same.bits_per_byte.value)
    errors = [Error(found.stderr_documents, FREEDOM), Error(found.stderr_seeds, 1)]
    assert (found.low_95, found.high_95) == pytest.approx(t_interval(found.value, errors))


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ([0, 1, 2], [0, 1, 2], [0, 1, 2]),
        ([0, 1, 2], [2], [2]),
        ([0, 1], [1, 2], []),
        ([0, 1], [2, 3], []),
        ([0], [1], []),
    ],
)
def test_which_seeds_are_paired(first, second, shared):
    assert shared_seeds(method(0, 0, first, 1), method(0, 0, second, 2)) == shared


def test_methods_without_common_seeds_carry_the_spread_of_both():
    groups = {"a": method(0.0, 0.1, [0, 1, 2], 1), "b": method(0.0, 0.1, [3, 4, 5, 6], 2)}
    found = difference(groups, "a", "b")
    assert (found.seeds, found.paired_seeds) == (3, False)
    spreads = [groups[name].bits_per_byte.stderr_seeds for name in "ab"]
    assert found.stderr_seeds == pytest.approx(math.hypot(*spreads))
    low, high = bootstrap_interval(groups, "a", "b")
    assert low < found.value < high


def test_a_reference_with_one_seed_says_nothing_of_seeds():
    groups = {"a": method(0.0, 0.01, [0], 1), "b": method(0.1, 0.01, [0, 1, 2], 2)}
    found = difference(groups, "b", "a")
    assert (found.seeds, math.isnan(found.stderr_seeds)) == (1, True)
    alone = difference({"a": groups["a"], "b": SeedGroup({0: groups["b"].cells[0]})}, "b", "a")
    assert (found.value, found.stderr, found.p) == (alone.value, alone.stderr, alone.p)


def test_methods_that_differ_only_by_their_seeds_are_tied():
    """By one seed each, the interval over documents leaves zero out more often than not, so it is no verdict on
    methods. Three seeds know better."""
    fooled = wise = 0
    for trial in range(40):
        groups = {name: method(0.0, 0.05, [0, 1, 2], 10 * trial + i) for i, name in enumerate("ab")}
        single = {name: SeedGroup({0: group.cells[0]}) for name, group in groups.items()}
        [alone] = all_differences(single)
        fooled += alone.low_95 > 0 or alone.high_95 < 0
        found = all_differences(groups)
        wise += found[0].significant
        assert found[0].significant or ranks(found) == {"a": 1, "b": 1}
    assert fooled > 20
    assert wise <= 5


def test_equal_methods_are_rarely_told_apart_by_chance():
    alarms = 0
    for trial in range(150):
        groups = {str(i): method(0.0, 0.05, [0, 1, 2], 2000 + 10 * trial + i) for i in range(4)}
        alarms += any(d.significant for d in all_differences(groups))
    assert alarms <= 15  # 5 % and about two and a half standard deviations


def test_seeds_on_other_texts_have_an_error_of_independent_figures():
    group = SeedGroup({0: model(0.0, 1), 1: model(0.2, 2, texts="other")})
    found, each = group.bits_per_byte, [cell.bits_per_byte for cell in group.cells.values()]
    assert found.value == pytest.approx((each[0].value + each[1].value) / 2)
    assert found.stderr_documents == pytest.approx(math.hypot(*(e.stderr for e in each)) / 2)
    assert not difference({"a": group, "b": cell(0.0, 3)}, "a", "b").paired


def test_noise_of_one_draw_is_the_spread_of_single_draws():
    """The variance among K systematic draws lacks that of their mean; together they are the variance of one draw."""
    generator, count, draws, size = np.random.default_rng(3), 400, 4, 80
    offset = generator.random((count, 1))
    level = (offset + np.arange(draws) / draws) % 1.0
    bits = 100 + 30 * level**2 + generator.normal(0, 3, (count, draws))
    mean_variance = np.var(
        [(100 + 30 * ((u + np.arange(draws) / draws) % 1.0) ** 2).mean() for u in np.linspace(0, 1, 999)]
    )
    mc_stderr = math.sqrt((mean_variance + 9 / draws) / count) / size
    measured = CellLikelihood(
        bits.mean(axis=1), np.full(count, size), ("t",) * count, np.arange(count), float(bits.var(axis=1).mean())
    )
    true = math.sqrt(900 * (1 / 5 - 1 / 9) + 9) / size
    assert measured.draw_deviation(mc_stderr) == pytest.approx(true, rel=0.03)
