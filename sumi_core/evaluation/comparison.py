"""Which cells of a sweep predict text better, told from the nats of each validation sequence.

Cells measured on the same texts are compared sequence by sequence, so that what makes a text hard for both cancels.
Every pair of cells is one comparison, and all are corrected together by Holm's method: the chance that any difference
called significant is none stays below 5 %, whichever pairs a reader picks after seeing the table. Errors are over
validation text; other training seeds are other cells.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sumi_core.evaluation.statistics import (
    Estimate,
    bootstrap_interval,
    by_unit,
    holm_adjusted,
    paired_difference,
    ratio_estimate,
    two_sided_p,
)

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class CellLikelihood:
    """Bits (nats / ln 2, mean over draws) and UTF-8 bytes of each sequence, ``[N]``, and digests of their texts."""

    bits: NDArray[np.float64]
    bytes: NDArray[np.int64]
    text_digests: tuple[str, ...]
    documents: NDArray[np.int64]  # [N] the document of each sequence: what is independent

    @classmethod
    def load(cls, path: Path) -> CellLikelihood:
        """Read a likelihood.parquet as written by the evaluation stage."""
        import pandas as pd

        frame = pd.read_parquet(path)
        frame["nats"] = frame["diffusion"] + frame["reconstruction"] + frame["prior"]
        grouped = frame.groupby("sequence", sort=True)
        first = grouped.first()
        return cls(
            grouped["nats"].mean().to_numpy(dtype=np.float64) / math.log(2),
            first["bytes"].to_numpy(dtype=np.int64),
            tuple(first["text_digest"]),
            first["document"].to_numpy(dtype=np.int64),
        )

    @property
    def bits_per_byte(self) -> Estimate:
        """Σ bits / Σ bytes with its error over documents."""
        return ratio_estimate(self.bits, self.bytes, self.documents)

    @property
    def units(self) -> int:
        """Independent units: documents."""
        return len(np.unique(self.documents))


@dataclass(frozen=True)
class Difference:
    """Bits per byte of ``first`` minus those of ``second``: below 0, ``first`` is better."""

    first: str
    second: str
    value: float
    stderr: float
    paired: bool  # measured on the same texts; otherwise the error is that of two independent figures
    p_adjusted: float = math.nan  # Holm, over all pairs of the comparison

    @property
    def significant(self) -> bool:
        """Whether the difference stands after correction, at 5 % for all comparisons together."""
        return self.p_adjusted < SIGNIFICANCE


def difference(cells: Mapping[str, CellLikelihood], first: str, second: str) -> Difference:
    """One difference, without correction."""
    a, b = cells[first], cells[second]
    if a.text_digests == b.text_digests:
        estimate = paired_difference(a.bits, b.bits, weights=a.bytes, units=a.documents)
        return Difference(first, second, estimate.value, estimate.stderr, paired=True)
    one, other = a.bits_per_byte, b.bits_per_byte
    return Difference(first, second, one.value - other.value, math.hypot(one.stderr, other.stderr), paired=False)


def all_differences(cells: Mapping[str, CellLikelihood]) -> list[Difference]:
    """Every pair of cells once, with p-values corrected for all of them."""
    found = [difference(cells, first, second) for first, second in itertools.combinations(cells, 2)]
    units = {key: cell.units for key, cell in cells.items()}
    adjusted = holm_adjusted(
        [two_sided_p(Estimate(d.value, d.stderr), min(units[d.first], units[d.second])) for d in found]
    )
    return [Difference(d.first, d.second, d.value, d.stderr, d.paired, p) for d, p in zip(found, adjusted, strict=True)]


def oriented(differences: Iterable[Difference], first: str, second: str) -> Difference:
    """``first − second`` out of a list that may hold it the other way round. Raises KeyError if it holds neither."""
    for d in differences:
        if (d.first, d.second) == (first, second):
            return d
        if (d.first, d.second) == (second, first):
            return Difference(first, second, -d.value, d.stderr, d.paired, d.p_adjusted)
    raise KeyError(f"{first} and {second} were not compared")


def ranks(keys: Iterable[str], differences: Iterable[Difference]) -> dict[str, int]:
    """1 + the number of cells that are significantly better. Cells that cannot be told apart may share a rank."""
    beaten = dict.fromkeys(keys, 0)
    for d in differences:
        if d.significant and d.value:
            beaten[d.second if d.value < 0 else d.first] += 1
    return {key: 1 + count for key, count in beaten.items()}


def paired_interval(
    cells: Mapping[str, CellLikelihood], first: str, second: str, level: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Bootstrap interval of a paired difference in bits per byte, uncorrected; None where the texts differ or lie
    in one document."""
    a, b = cells[first], cells[second]
    if a.text_digests != b.text_digests:
        return None
    columns = (a.bits - b.bits, a.bytes.astype(np.float64))
    units = np.stack([by_unit(column, a.documents) for column in columns], axis=1)
    if len(units) < 2:
        return None
    return bootstrap_interval(units, lambda rows: float(rows[:, 0].sum() / rows[:, 1].sum()), level=level, seed=seed)
