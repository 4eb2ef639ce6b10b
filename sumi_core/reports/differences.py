"""Which methods predict text better, from the nats of each validation sequence under each training seed.

A method is what cells that differ only in their seed have in common. Methods measured on the same texts are compared
sequence by sequence, and seed by seed where they share seeds, so that what makes a text or a seed hard for both
cancels. Every pair is one comparison, and all are corrected together by Holm's method: the chance that any difference
called significant is none stays below 5 %, whichever pairs a reader picks after seeing the table. Where a reference is
named beforehand, the differences to it are planned, and corrected together with each other alone.

Errors come from two sources, other validation documents and other training seeds. A method with one seed shows nothing
of the second: its differences are between two trained models. They have an interval over documents and no verdict,
since under other seeds the order may be another one.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sumi_core.base.statistics import (
    CrossedEstimate,
    Error,
    Estimate,
    by_unit,
    crossed_bootstrap,
    crossed_estimate,
    effective_units,
    holm_adjusted,
    mean_estimate,
    ratio_over_units,
    t_interval,
    two_sided_p,
)
from sumi_core.base.tables import read_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class CellLikelihood:
    """Bits (nats / ln 2, mean over draws) and UTF-8 bytes of each sequence, ``[N]``, and digests of their texts."""

    bits: NDArray[np.float64]
    bytes: NDArray[np.int64]
    text_digests: tuple[str, ...]
    documents: NDArray[np.int64]  # [N] the document of each sequence: what is independent
    draw_variance: float = math.nan  # of the bits of a sequence among its draws (n), mean over sequences; NaN: one draw

    @classmethod
    def load(cls, path: Path) -> CellLikelihood:
        """Read a likelihood.parquet as written by the evaluation stage. Raises TableError."""
        frame = read_table(path)
        frame["bits"] = (frame["diffusion"] + frame["reconstruction"] + frame["prior"]) / math.log(2)
        grouped = frame.groupby("sequence", sort=True)
        first = grouped.first()
        drawn_once = len(frame) == len(first)
        return cls(
            grouped["bits"].mean().to_numpy(dtype=np.float64),
            first["bytes"].to_numpy(dtype=np.int64),
            tuple(first["text_digest"]),
            first["document"].to_numpy(dtype=np.int64),
            math.nan if drawn_once else float(grouped["bits"].var(ddof=0).mean()),
        )

    @property
    def bits_per_byte(self) -> Estimate:
        """Σ bits / Σ bytes with its error over documents."""
        return ratio_over_units(self.bits, self.bytes, self.documents)

    @property
    def units(self) -> int:
        """Independent units: documents."""
        return len(np.unique(self.documents))

    @property
    def effective_units(self) -> float:
        """How many documents of one size would say as much."""
        return effective_units(self.bytes, self.documents)

    def draw_deviation(self, mc_stderr: float) -> float:
        """Standard deviation of the bound of a sequence of mean length from a single draw, over noise levels and noise
        alone, in bits per byte. ``mc_stderr``: the Monte-Carlo error of the whole figure; NaN with one draw each.

        A draw's variance is that among the draws of a sequence plus that of their mean: var(x) = E[var_n] + var(x̄).
        """
        mean_bytes = float(self.bytes.mean())
        of_means = (mc_stderr * mean_bytes) ** 2 * len(self.bytes)
        return math.sqrt(self.draw_variance + of_means) / mean_bytes


@dataclass(frozen=True)
class SeedGroup:
    """The models of one method, by training seed."""

    cells: Mapping[int, CellLikelihood]

    @property
    def text_digests(self) -> tuple[str, ...] | None:
        """The texts that every seed was measured on; None where they differ."""
        found = {cell.text_digests for cell in self.cells.values()}
        return found.pop() if len(found) == 1 else None

    @property
    def any(self) -> CellLikelihood:
        """One of the models: for what all of them share."""
        return next(iter(self.cells.values()))

    def bits(self, seeds: Iterable[int] | None = None) -> NDArray[np.float64]:
        """Bits by seed and sequence, ``[S, N]``."""
        return np.stack([self.cells[seed].bits for seed in (self.cells if seeds is None else seeds)])

    @property
    def bits_per_byte(self) -> CrossedEstimate:
        """The mean over seeds with both errors."""
        if self.text_digests is not None:
            return crossed_estimate([self.bits()], self.any.bytes, self.any.documents)
        each = [cell.bits_per_byte for cell in self.cells.values()]
        mean = mean_estimate([one.value for one in each])
        documents = [Error(e.stderr / len(each), c.units - 1) for e, c in zip(each, self.cells.values(), strict=True)]
        return CrossedEstimate(mean.value, tuple(documents), (Error(mean.stderr, len(each) - 1),))


@dataclass(frozen=True)
class Difference:
    """Bits per byte of ``first`` minus those of ``second``: below 0, ``first`` is better."""

    first: str
    second: str
    value: float
    stderr: float  # both parts below together; over documents alone where stderr_seeds is NaN
    paired: bool  # measured on the same texts; otherwise the error is that of two independent figures
    p_adjusted: float = math.nan  # Holm, over all pairs, or over the planned differences; NaN between trained models
    stderr_documents: float = math.nan
    stderr_seeds: float = math.nan  # NaN: a side has one seed, so that its spread is not known
    low_95: float = math.nan  # 95 % interval of this difference alone, by Student's t (``statistics.t_reach``)
    high_95: float = math.nan
    p: float = math.nan  # two-sided, of this difference alone
    seeds: int = 1  # training seeds of each side that went in; the smaller number where they differ
    paired_seeds: bool = False  # each seed against itself

    @property
    def of_methods(self) -> bool:
        """Whether both sides have several seeds; otherwise it is a difference between two trained models."""
        return not math.isnan(self.stderr_seeds)

    @property
    def significant(self) -> bool:
        """Whether methods differ after correction, at 5 % for all comparisons together."""
        return self.p_adjusted < SIGNIFICANCE

    def turned(self) -> Difference:
        """``second − first``."""
        low, high = -self.high_95, -self.low_95
        return dataclasses.replace(
            self, first=self.second, second=self.first, value=-self.value, low_95=low, high_95=high
        )


def difference(groups: Mapping[str, SeedGroup], first: str, second: str) -> Difference:
    """One difference, without correction."""
    a, b = groups[first], groups[second]
    if a.text_digests is None or a.text_digests != b.text_digests:
        found, shared, paired = a.bits_per_byte.minus(b.bits_per_byte), [], False
    else:
        shared, paired = shared_seeds(a, b), True
        found = crossed_estimate(_blocks(a, b), a.any.bytes, a.any.documents)
    low, high = t_interval(found.value, found.errors)
    return Difference(
        first,
        second,
        found.value,
        found.stderr,
        paired,
        stderr_documents=found.stderr_documents,
        stderr_seeds=found.stderr_seeds,
        low_95=low,
        high_95=high,
        p=two_sided_p(found.value, found.errors),
        seeds=len(shared) or min(len(a.cells), len(b.cells)),
        paired_seeds=bool(shared),
    )


def shared_seeds(a: SeedGroup, b: SeedGroup) -> list[int]:
    """The seeds that two methods are paired by: those they share. None where that would leave one of several."""
    shared = [seed for seed in a.cells if seed in b.cells]
    several = min(len(a.cells), len(b.cells)) > 1
    return [] if several and len(shared) == 1 else shared


def _blocks(a: SeedGroup, b: SeedGroup) -> list[NDArray[np.float64]]:
    """``[S, N]`` bits of each: their difference where seeds pair, else one block each."""
    shared = shared_seeds(a, b)
    return [a.bits(shared) - b.bits(shared)] if shared else [a.bits(), b.bits()]


def all_differences(groups: Mapping[str, SeedGroup]) -> list[Difference]:
    """Every pair once, with p-values corrected for all of them that are of methods."""
    return corrected([difference(groups, first, second) for first, second in itertools.combinations(groups, 2)])


def corrected(differences: Sequence[Difference]) -> list[Difference]:
    """The differences with p-values by Holm's method over those of methods; the others have none."""
    adjusted = iter(holm_adjusted([d.p for d in differences if d.of_methods]))
    return [dataclasses.replace(d, p_adjusted=next(adjusted) if d.of_methods else math.nan) for d in differences]


def oriented(differences: Iterable[Difference], first: str, second: str) -> Difference:
    """``first − second`` out of a list that may hold it the other way round. Raises KeyError if it holds neither."""
    for d in differences:
        if (d.first, d.second) == (first, second):
            return d
        if (d.first, d.second) == (second, first):
            return d.turned()
    raise KeyError(f"{first} and {second} were not compared")


def ranks(differences: Iterable[Difference]) -> dict[str, int]:
    """1 + the number of methods that are significantly better, of every method with several seeds. Those that are not
    told apart may share a rank."""
    of_methods = [d for d in differences if d.of_methods]
    beaten = {key: 0 for d in of_methods for key in (d.first, d.second)}
    for d in of_methods:
        if d.significant and d.value:
            beaten[d.second if d.value < 0 else d.first] += 1
    return {key: 1 + count for key, count in beaten.items()}


def bootstrap_interval(
    groups: Mapping[str, SeedGroup], first: str, second: str, level: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Bootstrap interval, over documents and seeds, of a difference in bits per byte, uncorrected; None where the
    texts differ or lie in one document."""
    a, b = groups[first], groups[second]
    if a.text_digests is None or a.text_digests != b.text_digests:
        return None
    documents = a.any.documents
    if a.any.units < 2:
        return None
    blocks = [np.stack([by_unit(row, documents) for row in block]) for block in _blocks(a, b)]
    weights = by_unit(a.any.bytes.astype(np.float64), documents)
    return crossed_bootstrap(blocks, weights, level=level, seed=seed)
