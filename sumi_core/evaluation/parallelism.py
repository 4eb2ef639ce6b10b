"""Accuracy against tokens per network call: which points no other beats, and the area under them as one number."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

PENALTY, LOST = 3.0, 0.05  # α, and how far below the most sequential point accuracy may fall, as in the paper


def accuracy_under_parallelism(
    points: Sequence[tuple[float, float]], best: float, penalty: float = PENALTY, lost: float = LOST
) -> float:
    """AUP (Qian et al. 2026, d3LLM, arXiv 2601.07568): a weighted area under accuracy against tokens per call.

    points: (ρ, y), tokens per network call and accuracy in [0, 1], in any order; of several with one ρ the most
    accurate counts. best: y_max, the highest accuracy that any of the compared methods reaches on the task. With
    ρ_1 < … < ρ_m being those of the points whose accuracy is y_1 − ``lost`` or more (y_1: that of the least ρ),

        AUP = ρ_1 y_1 + Σ_{i ≥ 2} (ρ_i − ρ_{i−1}) (y_i W(y_i) + y_{i−1} W(y_{i−1})) / 2,
        W(y) = min(exp(−penalty (1 − y / y_max)), 1),

    in percent as published: a model that writes one token per call with accuracy 0.8 has 80. The unit is accuracy times
    tokens per call; it grows with the greatest ρ that is measured, so compare what was measured on one grid.
    Raises ValueError without a point, and for accuracies outside [0, 1].

    >>> round(accuracy_under_parallelism([(1.0, 0.8), (2.0, 0.8), (4.0, 0.5)], best=0.8), 6)
    160.0
    """
    if not points or any(not 0 <= y <= 1 or not rho > 0 for rho, y in points):
        raise ValueError("an area needs points of more than 0 tokens per call with accuracies in [0, 1]")
    highest: dict[float, float] = {}
    for rho, y in points:
        highest[rho] = max(y, highest.get(rho, 0.0))
    least = highest[min(highest)] - lost
    kept = sorted((rho, y) for rho, y in highest.items() if y >= least - 1e-12)  # 0.8 − 0.05 is not 0.75 in binary

    def weighted(y: float) -> float:
        return y * min(math.exp(-penalty * (1 - y / best)), 1.0) if y > 0 else 0.0

    area = kept[0][0] * kept[0][1]
    for (rho, y), (next_rho, next_y) in itertools.pairwise(kept):
        area += (next_rho - rho) * (weighted(y) + weighted(next_y)) / 2
    return 100 * area


def on_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points (tokens per call, accuracy) no other beats: none has as much of both and more of one.

    >>> on_front([(1.0, 0.9), (2.0, 0.9), (4.0, 0.5), (3.0, 0.4)])
    [False, True, True, False]
    """
    return [
        not any(x >= rho and y >= accuracy and (x, y) != (rho, accuracy) for x, y in points) for rho, accuracy in points
    ]


def areas_of(table: pd.DataFrame, best: float | None = None) -> dict[str, float]:
    """The AUP of each sampler of a ``speed.parquet``, where quality is a share. best: the highest accuracy of all that
    are compared; None: that of the table."""
    if not table["share"].all():
        return {}
    best = float(table["quality"].max()) if best is None else best
    return {
        str(name): accuracy_under_parallelism([*zip(own["tokens_per_call"], own["quality"], strict=True)], best)
        for name, own in table.groupby("sampler", sort=False)
    }
