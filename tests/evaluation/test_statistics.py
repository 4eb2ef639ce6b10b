"""Estimates, errors and corrections against known values and against simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sumi_core.evaluation.statistics import (
    Estimate,
    bootstrap_interval,
    holm_adjusted,
    jackknife_stderr,
    mean_estimate,
    paired_difference,
    ratio_estimate,
    two_sided_p,
)


def test_mean_of_four_numbers():
    assert mean_estimate([1, 2, 3, 4]) == pytest.approx((2.5, math.sqrt(5 / 3) / 2))


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


def test_pairing_removes_what_both_share():
    generator = np.random.default_rng(1)
    shared = generator.normal(100, 20, size=200)
    a, b = shared + generator.normal(0, 1, 200), shared + 2 + generator.normal(0, 1, 200)
    paired = paired_difference(a, b)
    assert paired.value == pytest.approx(a.mean() - b.mean())
    assert paired.stderr == pytest.approx(math.sqrt(2 / 200), rel=0.15)
    assert math.hypot(mean_estimate(a).stderr, mean_estimate(b).stderr) > 10 * paired.stderr


def test_weighted_paired_difference_is_the_difference_of_ratios():
    a, b, weights = [3.0, 8.0, 2.0], [1.0, 9.0, 5.0], [2.0, 5.0, 3.0]
    difference = paired_difference(a, b, weights)
    assert difference.value == pytest.approx(ratio_estimate(a, weights).value - ratio_estimate(b, weights).value)
    residuals = np.subtract(a, b) - difference.value * np.array(weights)
    assert difference.stderr == pytest.approx(math.sqrt(1.5 * (residuals**2).sum()) / 10)


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.array([2.0, 7.0, 1.0, 8.0, 2.0])
    left_out = [(values.sum() - v) / 4 for v in values]
    assert jackknife_stderr(left_out) == pytest.approx(mean_estimate(values).stderr)


def test_bootstrap_interval_is_seeded_and_agrees_with_the_normal_one():
    values = np.random.default_rng(2).normal(5, 1, size=400)
    interval = bootstrap_interval(values, lambda rows: float(rows.mean()), seed=7)
    assert interval == bootstrap_interval(values, lambda rows: float(rows.mean()), seed=7)
    assert interval != bootstrap_interval(values, lambda rows: float(rows.mean()), seed=8)
    mean = mean_estimate(values)
    assert interval == pytest.approx((mean.value - 1.96 * mean.stderr, mean.value + 1.96 * mean.stderr), abs=0.015)


def test_two_sided_p():
    assert two_sided_p(Estimate(1.959964, 1.0), 10**9) == pytest.approx(0.05, abs=1e-6)
    assert two_sided_p(Estimate(-2.085963, 1.0), 21) == pytest.approx(0.05, abs=1e-6)  # t with 20 degrees of freedom
    assert two_sided_p(Estimate(0.1, 0.0), 9) == 0.0
    assert two_sided_p(Estimate(0.0, 0.0), 9) == 1.0
    assert two_sided_p(Estimate(9.0, math.nan), 1) == 1.0


def test_entries_of_one_unit_may_depend_on_each_other():
    """The claimed error is the true spread where sequences of a document share its difficulty; theirs alone is not."""
    generator = np.random.default_rng(3)
    documents = np.repeat(np.arange(40), 12)
    size = np.full(documents.size, 300.0)

    def draw() -> np.ndarray:
        return size * (2.0 + 0.3 * generator.normal(size=40)[documents] + 0.2 * generator.normal(size=documents.size))

    true = np.std([ratio_estimate(draw(), size).value for _ in range(2000)])
    claimed = np.sqrt(np.mean([ratio_estimate(draw(), size, documents).stderr ** 2 for _ in range(200)]))
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
        (lambda: ratio_estimate([1.0], [0.0]), "nothing"),
        (lambda: ratio_estimate([1.0, 2.0], [1.0]), "do not pair"),
        (lambda: paired_difference([1.0, 2.0], [1.0]), "same units"),
        (lambda: bootstrap_interval([1.0], lambda rows: 0.0), "two or more"),
    ],
)
def test_what_cannot_be_estimated_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_one_unit_has_no_error():
    assert math.isnan(mean_estimate([3.0]).stderr)
    assert math.isnan(ratio_estimate([3.0], [2.0]).stderr)
    assert math.isnan(jackknife_stderr([3.0]))
