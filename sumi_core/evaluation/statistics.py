"""Small statistics behind every ``±`` of a report: ratio estimates, paired differences, intervals, Holm correction.

All of them take independent units (here: validation documents, or sample texts) and say how far the figure would move
had other units been drawn. Nothing here knows about training seeds: a difference between two models that is far
beyond these errors is one between those two *trained models*, not yet one between two methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Estimate(NamedTuple):
    """A figure and its standard error, in the figure's unit. The error is NaN where fewer than two units exist."""

    value: float
    stderr: float


def _vector(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{name} must be a non-empty list of numbers, got shape {array.shape}")
    return array


def mean_estimate(values: ArrayLike) -> Estimate:
    """Mean of independent values and its standard error s/√n (s with n − 1)."""
    array = _vector(values, "values")
    spread = array.std(ddof=1) / math.sqrt(array.size) if array.size > 1 else math.nan
    return Estimate(float(array.mean()), float(spread))


def ratio_estimate(numerators: ArrayLike, denominators: ArrayLike, units: ArrayLike | None = None) -> Estimate:
    """Ratio of sums R = Σa / Σb over independent units, with its linearised (delta-method) standard error.

    ``units`` ``[n]`` names the unit that each entry belongs to (the document of a sequence); without it every entry is
    its own. Entries of one unit may depend on each other in any way.

    se² = n/(n−1) · Σ (a_i − R b_i)² / (Σb)²  (Cochran, Sampling Techniques, 1977, section 6.3, without the
    finite-population factor). A sequence's nats and bytes vary together, so this is smaller than treating the
    denominator as exact would say, and right where mean-of-ratios is not: short sequences do not weigh more.
    Raises ValueError when the lengths differ or the denominators sum to nothing.
    """
    a, b = _vector(numerators, "numerators"), _vector(denominators, "denominators")
    if a.shape != b.shape:
        raise ValueError(f"{a.size} numerators do not pair with {b.size} denominators")
    if units is not None:
        a, b = by_unit(a, units), by_unit(b, units)
    total = b.sum()
    if total <= 0:
        raise ValueError("the denominators sum to nothing, so there is no ratio to estimate")
    ratio = a.sum() / total
    if a.size < 2:
        return Estimate(float(ratio), math.nan)
    residuals = a - ratio * b
    return Estimate(float(ratio), float(math.sqrt(a.size / (a.size - 1) * (residuals**2).sum()) / total))


def by_unit(values: NDArray[np.float64], units: ArrayLike) -> NDArray[np.float64]:
    """Sums of the values of each unit, in order of the units' names."""
    _, member = np.unique(np.asarray(units), return_inverse=True)
    sums: NDArray[np.float64] = np.bincount(member, values).astype(np.float64)
    return sums


def paired_difference(
    first: ArrayLike, second: ArrayLike, weights: ArrayLike | None = None, units: ArrayLike | None = None
) -> Estimate:
    """``first − second`` measured on the same units, unit by unit, so that what both share cancels.

    Without ``weights``: the mean difference. With ``weights`` (the bytes of each sequence): Σ(first − second) /
    Σ weights, the difference of the two ratios of sums, whose error follows from the differences alone; ``units`` as
    in ``ratio_estimate``.
    """
    a, b = _vector(first, "first"), _vector(second, "second")
    if a.shape != b.shape:
        raise ValueError(f"{a.size} and {b.size} values are not pairs; both must be measured on the same units")
    return mean_estimate(a - b) if weights is None else ratio_estimate(a - b, weights, units)


def jackknife_stderr(leave_one_out: ArrayLike) -> float:
    """Standard error from the n values of a statistic with one unit left out in turn:
    √((n−1)/n · Σ(θ_i − θ̄)²) (Tukey 1958). NaN for fewer than two units."""
    array = _vector(leave_one_out, "leave_one_out")
    if array.size < 2:
        return math.nan
    return float(math.sqrt((array.size - 1) / array.size * ((array - array.mean()) ** 2).sum()))


def bootstrap_interval(
    units: ArrayLike,
    statistic: Callable[[NDArray[np.float64]], float],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron 1979) of ``statistic`` over rows of ``units`` (``[n]`` or ``[n, k]``).

    The same seed gives the same interval. Raises ValueError for fewer than two units or a level outside (0, 1).
    """
    array = np.asarray(units, dtype=np.float64)
    if array.shape[0] < 2 or not 0 < level < 1:
        raise ValueError("a bootstrap interval needs two or more units and a level between 0 and 1")
    generator = np.random.default_rng(seed)
    drawn = [statistic(array[generator.integers(len(array), size=len(array))]) for _ in range(resamples)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def two_sided_p(estimate: Estimate, units: int) -> float:
    """Probability of a figure at least this far from 0 if the truth were 0: Student's t with units − 1 degrees.

    An exact zero error means the figure is exact: p is 0, or 1 for a figure of exactly 0. An unknown error gives 1.
    """
    if math.isnan(estimate.stderr):
        return 1.0
    if estimate.stderr == 0:
        return 1.0 if estimate.value == 0 else 0.0
    from scipy.special import stdtr

    return float(2 * stdtr(units - 1, -abs(estimate.value / estimate.stderr)))


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for having made all these comparisons (Holm 1979, step-down, any dependence).

    Rejecting those below 0.05 keeps the chance of even one false rejection below 0.05.

    >>> [round(p, 3) for p in holm_adjusted([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
