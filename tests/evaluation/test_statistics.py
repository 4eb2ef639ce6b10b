"""Estimates, errors and corrections against known values and against simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sumi_core.base.statistics import (
    Error,
    binomial_estimate,
    crossed_bootstrap,
    crossed_estimate,
    effective_units,
    holm_adjusted,
    jackknife_stderr,
    mean_estimate,
    ratio_estimate,
    ratio_over_units,
    t_interval,
    two_sided_p,
    wilson_interval,
)


def test_mean_of_four_numbers():
    assert mean_estimate([1, 2, 3, 4]) == pytest.approx((2.5, math.sqrt(5 / 3) / 2))


def test_share_of_successes() -> None:
    assert binomial_estimate(3, 12) == pytest.approx((0.25, 0.125))
    assert binomial_estimate(0, 5) == (0.0, 0.0)
    with pytest.raises(ValueError, match="0 successes in 0 trials are not a share"):
        binomial_estimate(0, 0)


@pytest.mark.parametrize("successes", [0, 1, 7, 20])
def test_an_interval_of_a_share_ends_where_the_observed_one_is_z_errors_away(successes: int) -> None:
    low, high = wilson_interval(successes, 20, z=2.0)
    for end, inside in ((low, successes > 0), (high, successes < 20)):
        if inside:
            assert abs(successes / 20 - end) == pytest.approx(2 * math.sqrt(end * (1 - end) / 20))
    assert (low == 0) == (successes == 0)
    assert (high == 1) == (successes == 20)


def test_ratio_with_equal_denominators_is_the_scaled_mean():
    numerators = [3.0, 5.0, 4.0, 9.0]
    mean = mean_estimate(numerators)
    assert ratio_estimate(numerators, [2.0] * 4) == pytest.approx((mean.value / 2, mean.stderr / 2))


def test_ratio_of_proportional_sums_has_no_error():
    assert ratio_estimate([2, 4, 12], [1, 2, 6]) == pytest.approx((2.0, 0.0))


def test_ratio_error_is_what_repeated_sampling_shows():
    generator = np.random.default_rng(0)
    estimates = []
    for _ in range(3000):
        bytes_ = generator.integers(20, 200, size=60).astype(float)
        nats = bytes_ * generator.normal(1.5, 0.3, size=60) + generator.normal(0, 10, size=60)
        estimates.append(ratio_estimate(nats, bytes_))
    true_spread = np.std([e.value for e in estimates])
    claimed = math.sqrt(np.mean([e.stderr**2 for e in estimates]))
    assert claimed == pytest.approx(true_spread, rel=0.05)


def test_error_over_units_is_the_jackknife_around_the_ratio():
    a, b, units = [3.0, 1.0, 9.0, 4.0, 1.0], [1.0, 1.0, 5.0, 1.0, 2.0], [0, 0, 1, 2, 2]
    found = ratio_over_units(a, b, units)
    assert found.value == pytest.approx(1.8)
    left_out = np.array([14 / 8, 9 / 5, 13 / 7])
    assert found.stderr == pytest.approx(math.sqrt(2 / 3 * ((left_out - 1.8) ** 2).sum()))


def test_units_of_one_size_have_the_linearised_error():
    a = [3.0, 5.0, 4.0, 9.0]
    assert ratio_over_units(a, [2.0] * 4, range(4)) == pytest.approx(ratio_estimate(a, [2.0] * 4))
    assert effective_units([2.0] * 6, [0, 0, 1, 1, 2, 2]) == pytest.approx(3.0)


SIZES = np.array([16, 14, 10, 9, 8, 7, 6, 5, 5, 4, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1.0])  # bytes of 20 documents, in percent


def test_few_units_of_unlike_size_claim_no_more_than_they_know():
    """False rejections at 5 % and 1.25 %, with an effect of each document; the linearised error has more."""
    generator, documents = np.random.default_rng(6), np.arange(20)
    rejected, naive = [], []
    for _ in range(4000):
        values = 0.3 * SIZES * generator.normal(size=20) + np.sqrt(SIZES) * generator.normal(size=20)
        found = crossed_estimate([[values]], SIZES, documents)
        rejected.append(two_sided_p(found.value, found.errors))
        naive.append(two_sided_p(found.value, [Error(ratio_estimate(values, SIZES).stderr, 19)]))
    assert np.mean(np.array(rejected) < 0.05) < 0.06
    assert np.mean(np.array(rejected) < 0.0125) < 0.017
    assert np.mean(np.array(naive) < 0.05) > 0.065


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.array([2.0, 7.0, 1.0, 8.0, 2.0])
    left_out = [(values.sum() - v) / 4 for v in values]
    assert jackknife_stderr(left_out) == pytest.approx(mean_estimate(values).stderr)


def test_two_errors_of_three_seeds_by_hand():
    """Seeds' ratios 2, 3 and 4: their mean 3, and 1/√3 between them. Documents' mean sums 12 and 18 of 4 and 6 bytes
    have the ratio 3 both, so they add no error."""
    rows = [[8.0, 12.0], [12.0, 18.0], [16.0, 24.0]]
    found = crossed_estimate([rows], [4.0, 6.0], [0, 1])
    assert found.value == pytest.approx(3.0)
    assert found.documents == (pytest.approx((0.0, 100 / 52 - 1)),)
    assert found.seeds == (pytest.approx((1 / math.sqrt(3), 2)),)
    assert found.stderr == pytest.approx(1 / math.sqrt(3))
    against = crossed_estimate([rows, [[4.0, 6.0], [8.0, 12.0]]], [4.0, 6.0], [0, 1])
    assert against.value == pytest.approx(1.5)
    assert against.stderr_seeds == pytest.approx(math.sqrt(1 / 3 + 0.5 / 2))
    assert [error.freedom for error in against.seeds] == [2, 1]
    one = crossed_estimate([[rows[0]]], [4.0, 6.0], [0, 1])
    assert math.isnan(one.stderr_seeds)
    assert one.stderr == one.stderr_documents


def test_one_seed_is_the_ratio_over_documents():
    generator = np.random.default_rng(4)
    bits, size, documents = generator.normal(200, 20, 30), generator.integers(50, 150, 30), np.arange(30) // 3
    found = crossed_estimate([[bits]], size, documents)
    assert (found.value, found.stderr) == pytest.approx(ratio_over_units(bits, size, documents))
    assert found.documents[0].freedom == pytest.approx(effective_units(size, documents) - 1)


def test_t_interval():
    one, other = Error(2.0, 20), Error(0.5, 2)
    assert t_interval(1.0, [one]) == pytest.approx((1 - 2 * 2.085963, 1 + 2 * 2.085963), abs=1e-5)
    reach = math.hypot(2 * 2.085963, 0.5 * 4.302653)
    assert t_interval(1.0, [one, other]) == pytest.approx((1 - reach, 1 + reach), abs=1e-5)
    assert t_interval(1.0, [Error(0.0, 20)]) == (1.0, 1.0)
    assert all(map(math.isnan, t_interval(1.0, [Error(math.nan, 0)])))


def crossed(generator: np.random.Generator, seeds: int, documents: int, spread: tuple[float, float, float]):
    """Figures ``[S, D]`` around 0: what seeds, documents, and both together add."""
    of_seed, of_document, of_both = spread
    return (
        of_seed * generator.normal(size=(seeds, 1))
        + of_document * generator.normal(size=(1, documents))
        + of_both * generator.normal(size=(seeds, documents))
    )


@pytest.mark.parametrize("spread", [(1.0, 0.0, 0.0), (0.0, 1.0, 1.0), (0.2, 0.5, 1.0), (0.3, 1.0, 1.0)])
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_t_interval_covers_the_truth(spread, seeds):
    """Wherever the variation comes from; where both count it may cover too often, never too rarely."""
    generator, inside = np.random.default_rng(5), 0
    for _ in range(600):
        found = crossed_estimate([crossed(generator, seeds, 40, spread)], np.ones(40), np.arange(40))
        low, high = t_interval(found.value, found.errors)
        inside += low <= 0 <= high
    assert 0.93 * 600 < inside < 600


def test_intervals_of_methods_without_common_seeds_cover_the_truth():
    generator, inside = np.random.default_rng(6), 0
    for _ in range(600):
        documents = generator.normal(size=(1, 40))
        blocks = [crossed(generator, seeds, 40, (spread, 0, 0.2)) + documents for seeds, spread in ((3, 0.1), (5, 0.5))]
        found = crossed_estimate(blocks, np.ones(40), np.arange(40))
        low, high = t_interval(found.value, found.errors)
        inside += low <= 0 <= high
    assert 0.93 < inside / 600 < 0.995


def test_an_error_over_documents_alone_does_not_cover_other_seeds():
    generator, alone, bootstrap = np.random.default_rng(7), 0, 0
    for trial in range(300):
        rows = crossed(generator, 3, 40, (0.5, 0.5, 0.5))
        found = crossed_estimate([rows], np.ones(40), np.arange(40))
        low, high = t_interval(found.value, found.documents)
        alone += low <= 0 <= high
        low, high = crossed_bootstrap([rows], np.ones(40), resamples=300, seed=trial)
        bootstrap += low <= 0 <= high
    assert alone / 300 < 0.6
    assert 0.7 < bootstrap / 300 < 0.93, "better, and too narrow for three seeds: why the t interval is the primary one"


def test_bootstrap_of_one_seed_is_seeded_and_agrees_with_the_normal_interval():
    values = np.random.default_rng(2).normal(5, 1, size=(1, 400))
    interval = crossed_bootstrap([values], np.ones(400), seed=7)
    assert interval == crossed_bootstrap([values], np.ones(400), seed=7)
    assert interval != crossed_bootstrap([values], np.ones(400), seed=8)
    mean = mean_estimate(values[0])
    assert interval == pytest.approx((mean.value - 1.96 * mean.stderr, mean.value + 1.96 * mean.stderr), abs=0.015)


def test_bootstrap_of_many_seeds_has_both_errors():
    rows = crossed(np.random.default_rng(8), 150, 200, (1.0, 1.0, 0.0))
    found = crossed_estimate([rows], np.ones(200), np.arange(200))
    interval = crossed_bootstrap([rows], np.ones(200), resamples=8000)
    assert interval == pytest.approx((found.value - 1.96 * found.stderr, found.value + 1.96 * found.stderr), abs=0.02)
    turned = crossed_bootstrap([np.zeros((1, 200)), rows], np.ones(200), resamples=8000)
    assert turned == pytest.approx((-interval[1], -interval[0]), abs=0.02)


def test_a_large_bootstrap_is_made_in_parts(monkeypatch):
    monkeypatch.setattr("sumi_core.base.statistics._RESAMPLED_AT_ONCE", 1000)
    rows = crossed(np.random.default_rng(9), 4, 50, (0.1, 1.0, 0.1))
    low, high = crossed_bootstrap([rows], np.ones(50))
    found = crossed_estimate([rows], np.ones(50), np.arange(50))
    assert (high - low) / 2 == pytest.approx(1.96 * found.stderr, rel=0.15)


@pytest.mark.parametrize("value", [1e-9, 0.1, 1e9])
@pytest.mark.parametrize(
    "freedoms", [(2.8469662965183258, 2.0), (2.3, 2.9), (0.0, 2.0), (1e-7, 1e7), (0.01, 1.0), (1.0, 0.0)]
)
def test_any_degrees_of_freedom_give_a_p_value(value, freedoms):
    errors = [Error(0.01, freedom) for freedom in freedoms]
    p = two_sided_p(value, errors)
    assert 0 <= p <= 1
    assert p >= max(two_sided_p(value, [error]) for error in errors) - 1e-12  # a second error adds no certainty
    low, high = t_interval(value, errors)
    assert low <= value <= high


def test_two_sided_p():
    assert two_sided_p(1.959964, [Error(1.0, 10**9)]) == pytest.approx(0.05, abs=1e-6)
    assert two_sided_p(-2.085963, [Error(1.0, 20)]) == pytest.approx(0.05, abs=1e-6)  # t with 20 degrees of freedom
    assert two_sided_p(0.1, [Error(0.0, 9)]) == 0.0
    assert two_sided_p(0.0, [Error(0.0, 9)]) == 1.0
    assert two_sided_p(9.0, [Error(math.nan, 0)]) == 1.0
    both = [Error(1.0, 30), Error(0.3, 2)]
    for level in (0.5, 0.95, 0.999):
        reach = t_interval(0.0, both, level)[1]
        assert two_sided_p(reach, both) == two_sided_p(-reach, both) == pytest.approx(1 - level)
    assert two_sided_p(0.0, both) == 1.0
    assert 0 < two_sided_p(1e6, both) < 1e-12
    assert two_sided_p(1e9, [Error(1.0, 10**6), Error(1.0, 10**6)]) == 0.0


@pytest.mark.parametrize("ratio", [0.1, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_small_p_values_are_as_rare_as_they_say(ratio, seeds):
    """At the level that Holm's method asks of the best of fifteen comparisons, whichever error is the larger."""
    generator, count, alpha = np.random.default_rng(10), 100_000, 0.05 / 15
    values = np.abs(generator.normal(0, math.sqrt(1 + ratio), count))
    documents = np.sqrt(generator.chisquare(59, count) / 59)
    between = np.sqrt(ratio * generator.chisquare(seeds - 1, count) / (seeds - 1))
    quantiles = [t_interval(0.0, [Error(1.0, freedom)], 1 - alpha)[1] for freedom in (59, seeds - 1)]
    reach = t_interval(0.0, [Error(documents[0], 59), Error(between[0], seeds - 1)], 1 - alpha)[1]
    reaches = np.hypot(quantiles[0] * documents, quantiles[1] * between)
    assert reaches[0] == pytest.approx(reach)
    assert (values > reaches).mean() < alpha * 1.15


def test_entries_of_one_unit_may_depend_on_each_other():
    """The claimed error is the true spread where sequences of a document share its difficulty; theirs alone is not."""
    generator = np.random.default_rng(3)
    documents = np.repeat(np.arange(40), 12)
    size = np.full(documents.size, 300.0)

    def draw() -> np.ndarray:
        return size * (2.0 + 0.3 * generator.normal(size=40)[documents] + 0.2 * generator.normal(size=documents.size))

    true = np.std([ratio_estimate(draw(), size).value for _ in range(2000)])
    claimed = np.sqrt(np.mean([ratio_over_units(draw(), size, documents).stderr ** 2 for _ in range(200)]))
    naive = np.sqrt(np.mean([ratio_estimate(draw(), size).stderr ** 2 for _ in range(200)]))
    assert claimed == pytest.approx(true, rel=0.08)
    assert naive < 0.5 * true


def test_holm_worked_example():
    # Ordered 0.005·4, 0.01·3, 0.03·2, 0.04·1, then made to rise: 0.02, 0.03, 0.06, 0.06.
    assert holm_adjusted([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_adjusted([]) == []
    assert holm_adjusted([0.6, 0.7]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_and_corrects_the_smallest_like_bonferroni(p_values):
    adjusted = holm_adjusted(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= 1.0
    order = np.argsort(p_values, kind="stable")
    assert list(np.diff(np.array(adjusted)[order]) >= 0) == [True] * (len(p_values) - 1)
    assert min(adjusted) == pytest.approx(min(1.0, min(p_values) * len(p_values)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mean_estimate([]), "non-empty"),
        (lambda: ratio_estimate([1.0], [0.0]), "sum to zero"),
        (lambda: ratio_estimate([1.0, 2.0], [1.0]), "do not pair"),
        (lambda: ratio_over_units([1.0, 2.0], [1.0], [0, 1]), "do not pair"),
        (lambda: crossed_bootstrap([[[1.0]]], [1.0]), "two or more documents"),
    ],
)
def test_what_cannot_be_estimated_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_one_unit_has_no_error():
    assert math.isnan(mean_estimate([3.0]).stderr)
    assert math.isnan(ratio_estimate([3.0], [2.0]).stderr)
    assert math.isnan(ratio_over_units([3.0, 1.0], [2.0, 1.0], [0, 0]).stderr)
    assert math.isnan(ratio_over_units([3.0, 1.0], [2.0, 0.0], [0, 1]).stderr)  # the other has no bytes
    assert math.isnan(jackknife_stderr([3.0]))
