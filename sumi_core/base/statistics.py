"""Small statistics behind every ``±`` of a report: ratio estimates, paired differences, intervals, Holm correction.

All of them take independent units (validation documents, training seeds, sample texts) and say how far the figure
would move had other units been drawn. A difference between two models that is far beyond its error over documents is
one between those two *trained models*; one between two methods takes the error over seeds as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Vector: TypeAlias = "NDArray[np.float64]"

_SMALLEST = math.log(1e-30)  # p-values below are 0; quantiles are right down to here, and not much further
_RESAMPLED_AT_ONCE = 4_000_000  # numbers: bounds the memory of a bootstrap


class Estimate(NamedTuple):
    """A figure and its standard error, in the figure's unit. The error is NaN where fewer than two units exist."""

    value: float
    stderr: float


def _vector(values: ArrayLike, name: str) -> Vector:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{name} must be a non-empty list of numbers, got shape {array.shape}")
    return array


def mean_estimate(values: ArrayLike) -> Estimate:
    """Mean of independent values and its standard error s/√n (s with n − 1)."""
    array = _vector(values, "values")
    spread = array.std(ddof=1) / math.sqrt(array.size) if array.size > 1 else math.nan
    return Estimate(float(array.mean()), float(spread))


def binomial_estimate(successes: int, trials: int) -> Estimate:
    """Share p of successes in independent trials and its standard error √(p (1 − p) / n), which is 0 at both ends:
    ``wilson_interval`` says what these leave open. Raises ValueError for no trial."""
    if not 0 <= successes <= trials or not trials:
        raise ValueError(f"{successes} successes in {trials} trials are not a share")
    share = successes / trials
    return Estimate(share, math.sqrt(share * (1 - share) / trials))


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Interval of a share that keeps its level near 0 and 1 (Wilson 1927): the shares p for which the observed one lies
    within z standard errors √(p (1 − p) / n). z: 1.959964 for 95 %. Raises ValueError for no trial.

    >>> [round(end, 3) for end in wilson_interval(0, 64)]
    [0.0, 0.057]
    """
    share = binomial_estimate(successes, trials).value
    scale = 1 + z**2 / trials
    middle = (share + z**2 / (2 * trials)) / scale
    reach = z / scale * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return middle - reach if successes else 0.0, middle + reach if successes < trials else 1.0


def _ratio(numerators: ArrayLike, denominators: ArrayLike) -> tuple[Vector, Vector, float]:
    """Both as vectors, and the ratio of their sums."""
    a, b = _vector(numerators, "numerators"), _vector(denominators, "denominators")
    if a.shape != b.shape:
        raise ValueError(f"{a.size} numerators do not pair with {b.size} denominators")
    if b.sum() <= 0:
        raise ValueError("the denominators sum to zero, so there is no ratio to estimate")
    return a, b, float(a.sum() / b.sum())


def ratio_estimate(numerators: ArrayLike, denominators: ArrayLike) -> Estimate:
    """Ratio of sums R = Σa / Σb over many independent units of about one size, with its linearised (delta-method)
    standard error.

    se² = n/(n−1) · Σ (a_i − R b_i)² / (Σb)²  (Cochran, Sampling Techniques, 1977, section 6.3, without the
    finite-population factor). A sequence's nats and bytes vary together, so this is smaller than treating the
    denominator as exact would say, and right where mean-of-ratios is not: short sequences do not weigh more.
    Raises ValueError when the lengths differ or the denominators sum to nothing.
    """
    a, b, ratio = _ratio(numerators, denominators)
    if a.size < 2:
        return Estimate(ratio, math.nan)
    residuals = a - ratio * b
    return Estimate(ratio, float(math.sqrt(a.size / (a.size - 1) * (residuals**2).sum()) / b.sum()))


def ratio_over_units(numerators: ArrayLike, denominators: ArrayLike, units: ArrayLike) -> Estimate:
    """Ratio of sums R = Σa / Σb with its standard error over units, of which there may be few and of any size.

    units ``[n]`` names the unit of each entry (the document of a sequence); entries of one unit may depend on each
    other in any way. The jackknife around R: with the unit's share w_u of Σb,

        se² = (n−1)/n · Σ_u ((a_u − R b_u) / (1 − w_u))² / (Σb)²

    A large unit draws R towards itself, so its residual is too small by the factor 1 − w_u, which the linearised error
    leaves in. For units of one size both are the same. Raises ValueError as ``ratio_estimate``; the error is NaN where
    one unit has all of Σb.
    """
    a, b, ratio = _ratio(numerators, denominators)
    a, b = by_unit(a, units), by_unit(b, units)
    others = b.sum() - b
    if a.size < 2 or (others <= 0).any():
        return Estimate(ratio, math.nan)
    return Estimate(ratio, float(math.sqrt((a.size - 1) / a.size * (((a - ratio * b) / others) ** 2).sum())))


def effective_units(weights: ArrayLike, units: ArrayLike) -> float:
    """How many units of one size have a mean as variable as that of these, (Σw)² / Σw² (Kish 1965). An error over
    units has about this many degrees of freedom, less one."""
    sums = by_unit(_vector(weights, "weights"), units)
    return float(sums.sum() ** 2 / (sums**2).sum())


def ratio_or_nan(numerators: ArrayLike, denominators: ArrayLike) -> Estimate:
    """``ratio_estimate``, or NaN where there is nothing to divide by, as in samples without a single word."""
    if not np.sum(denominators):
        return Estimate(math.nan, math.nan)
    return ratio_estimate(numerators, denominators)


def by_unit(values: Vector, units: ArrayLike) -> Vector:
    """Sums of the values of each unit, in order of the units' names."""
    _, member = np.unique(np.asarray(units), return_inverse=True)
    sums: Vector = np.bincount(member, values).astype(np.float64)
    return sums


def jackknife_stderr(leave_one_out: ArrayLike) -> float:
    """Standard error from the n values of a statistic with one unit left out in turn:
    √((n−1)/n · Σ(θ_i − θ̄)²) (Tukey 1958). NaN for fewer than two units."""
    array = _vector(leave_one_out, "leave_one_out")
    if array.size < 2:
        return math.nan
    return float(math.sqrt((array.size - 1) / array.size * ((array - array.mean()) ** 2).sum()))


class Error(NamedTuple):
    """A standard error from one source, and its degrees of freedom: the number of units that it was seen in, less 1."""

    stderr: float
    freedom: float


def t_reach(errors: Sequence[Error], alpha: float) -> float:
    """Half the width of a two-sided interval, √Σ (t_f(1 − α/2) · se)² over independent sources of error.

    Each source brings its own t quantile (Howe 1974; Zou and Donner 2008), which is Student's interval where one
    outweighs the others, and errs on the large side between. One t for the sum, by Satterthwaite's degrees of freedom,
    does not serve: when three seeds happen to lie close together it takes the many degrees of the documents, and at the
    small levels that a correction for many comparisons asks for it is wrong several times as often as it says.
    """
    return math.hypot(*(_quantile(f, alpha) * se if se else 0.0 for se, f in errors))


def _quantile(freedom: float, alpha: float) -> float:
    """t_f(1 − α/2); infinite where a float cannot hold it, as with next to no degrees of freedom."""
    from scipy.special import stdtrit

    found = -float(stdtrit(freedom, alpha / 2))
    return found if math.isfinite(found) else math.inf


def t_interval(value: float, errors: Sequence[Error], level: float = 0.95) -> tuple[float, float]:
    """Two-sided interval around a figure; NaN where an error is not known."""
    reach = t_reach(errors, 1 - level)
    return value - reach, value + reach


def two_sided_p(value: float, errors: Sequence[Error]) -> float:
    """Probability of a figure at least this far from 0 if the truth were 0: the α whose ``t_reach`` just reaches it.

    An exact zero error means the figure is exact: p is 0, or 1 for a figure of exactly 0. An unknown error gives 1, as
    does one without degrees of freedom. A p-value below 1e-30 is 0.
    """
    if any(math.isnan(se) for se, _ in errors):
        return 1.0
    counting = [error for error in errors if error.stderr]
    if value == 0 or not counting:
        return 1.0 if value == 0 else 0.0
    from scipy.special import stdtr

    if len(counting) == 1 and counting[0].freedom > 0:
        return float(2 * stdtr(counting[0].freedom, -abs(value) / counting[0].stderr))
    low, high = _SMALLEST, 0.0  # of log α; the reach falls with it, and may be infinite, so the interval is halved
    if t_reach(counting, math.exp(low)) < abs(value):
        return 0.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        if t_reach(counting, math.exp(middle)) < abs(value):
            high = middle
        else:
            low = middle
    return math.exp(high)


class CrossedEstimate(NamedTuple):
    """A figure of models trained with several seeds, measured on the same documents, and where its error comes from.

    documents: what it would move had other documents been drawn, the models as they are. seeds: had other seeds been
    trained, the documents as they are; empty where there is one seed, since its spread cannot be seen. Each has several
    parts where the figure is a difference of independent ones."""

    value: float
    documents: tuple[Error, ...]
    seeds: tuple[Error, ...]

    @property
    def errors(self) -> tuple[Error, ...]:
        """Every source."""
        return self.documents + self.seeds

    @property
    def stderr_documents(self) -> float:
        """Standard error over documents."""
        return math.hypot(*(error.stderr for error in self.documents))

    @property
    def stderr_seeds(self) -> float:
        """Standard error over seeds; NaN where it is not known."""
        return math.hypot(*(error.stderr for error in self.seeds)) if self.seeds else math.nan

    @property
    def stderr(self) -> float:
        """Both together, √(documents² + seeds²); over documents alone where seeds say nothing.

        What seeds and documents do only together is in both parts, so that the sum errs on the large side."""
        return math.hypot(*(error.stderr for error in self.errors))

    def minus(self, other: CrossedEstimate) -> CrossedEstimate:
        """The difference to a figure that shares neither seeds nor documents."""
        seeds = self.seeds + other.seeds if self.seeds and other.seeds else ()
        return CrossedEstimate(self.value - other.value, self.documents + other.documents, seeds)


def crossed_estimate(blocks: Sequence[ArrayLike], weights: ArrayLike, units: ArrayLike) -> CrossedEstimate:
    """The first block's mean over its rows of Σ row / Σ weights, minus that of a second block if there is one.

    blocks: ``[S, n]`` each: rows are seeds, columns the same sequences in every row; weights: ``[n]`` their bytes;
    units: ``[n]`` their documents. The error over documents is that of the ratio of sums of the row means, with
    ``effective_units`` − 1 degrees of freedom; the one over seeds is s/√S for each block, s the standard deviation
    (n − 1) of its rows' ratios, with S − 1. A block of one row has no spread that could be seen: then no error over
    seeds is known.
    """
    rows = [np.atleast_2d(np.asarray(block, dtype=np.float64)) for block in blocks]
    means = [block.mean(axis=0) for block in rows]
    other = means[1] if len(means) > 1 else np.zeros_like(means[0])
    value, stderr = ratio_over_units(means[0] - other, weights, units)
    seeds = [mean_estimate(block.sum(axis=1) / np.sum(weights)).stderr for block in rows]
    known = all(len(block) > 1 for block in rows)
    return CrossedEstimate(
        value,
        (Error(stderr, effective_units(weights, units) - 1),),
        tuple(Error(se, len(block) - 1) for se, block in zip(seeds, rows, strict=True)) if known else (),
    )


def crossed_bootstrap(
    blocks: Sequence[ArrayLike],
    weights: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval where seeds and documents are both drawn: of the first block's mean over its rows
    of Σ row / Σ weights, minus that of a second block if there is one.

    blocks: ``[S, D]`` each, sums by seed and document; weights: ``[D]``. Every resample draws one set of documents for
    all rows and, independently, rows within each block (the pigeonhole bootstrap: McCullagh 2000; Owen 2007), n − 1 of
    n, so that the variance of a mean comes out without the factor (n − 1)/n (Rao & Wu 1988), which matters for few
    seeds. A block of one row says nothing of seeds: that row is taken as it is. Percentiles know no t distribution:
    with two or three seeds the interval is too narrow. The same seed gives the same interval. Raises ValueError for
    fewer than two documents or a level outside (0, 1).
    """
    bytes_ = _vector(weights, "weights")
    rows = [np.asarray(block, dtype=np.float64) for block in blocks]
    if len(bytes_) < 2 or not 0 < level < 1:
        raise ValueError("a bootstrap interval needs two or more documents and a level between 0 and 1")
    generator = np.random.default_rng(seed)
    figures = []
    for part in np.array_split(np.arange(resamples), -(-resamples * len(bytes_) // _RESAMPLED_AT_ONCE)):
        times = _resampled(generator, len(bytes_), len(part))
        total, figure = times @ bytes_, np.zeros(len(part))
        for sign, block in zip((1.0, -1.0), rows, strict=False):
            drawn = _resampled(generator, len(block), len(part)) if len(block) > 1 else np.ones((len(part), 1))
            figure += sign * ((times @ block.T) * drawn).sum(axis=1) / drawn.sum(axis=1) / total
        figures.append(figure)
    low, high = np.quantile(np.concatenate(figures), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resampled(generator: np.random.Generator, count: int, resamples: int) -> NDArray[np.float64]:
    """How often each of ``count`` units is in a draw of ``count − 1`` with replacement, ``[resamples, count]``."""
    return generator.multinomial(count - 1, np.full(count, 1 / count), size=resamples).astype(np.float64)


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
