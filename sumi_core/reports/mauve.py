"""MAUVE of the methods of a comparison, beside that of validation text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sumi_core.base.statistics import Estimate, mean_estimate
from sumi_core.base.text import with_error
from sumi_core.reports.from_store import SweepComparison, figures_of

_NAME, _GIVEN, _STEPS = "mauve", "validation", "steps_"


def mauve_rows(comparison: SweepComparison) -> list[dict[str, str]]:
    """A row for each method and number of steps that all its evaluated seeds have, means over these seeds, then one of
    other validation texts for each number of texts: figures of different numbers do not compare."""
    rows: list[dict[str, str]] = []
    given: dict[int, dict[float, Mapping[str, Any]]] = {}
    for name, keys in comparison.members.items():
        seeds = [own for key in keys if (own := figures_of(comparison.cells[key]).get("mauve"))]
        for own in seeds:
            given.setdefault(own["texts"], {})[own[_GIVEN][_NAME]] = own[_GIVEN]  # cells share it, as a rule
        rows += _method_rows(name, seeds)
    validation = [_row("[validation text]", "–", [texts], list(own.values())) for texts, own in sorted(given.items())]
    return rows + validation


def _method_rows(name: str, seeds: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    texts = sorted({own["texts"] for own in seeds})
    for label in dict.fromkeys(label for own in seeds for label in own if label.startswith(_STEPS)):
        if all(label in own for own in seeds):
            yield _row(name, label.removeprefix(_STEPS), texts, [own[label] for own in seeds], len(seeds))


def _row(
    name: str, steps: str, texts: Sequence[int], found: Sequence[Mapping[str, Any]], seeds: int | None = None
) -> dict[str, str]:
    mauve = _mean(found)
    return {
        "cell": name,
        "steps": steps,
        "MAUVE": with_error(mauve.value, mauve.stderr),
        "texts": ", ".join(map(str, texts)),
        "seeds": str(seeds or "–"),
    }


def _mean(found: Sequence[Mapping[str, Any]]) -> Estimate:
    """Over seeds, whose spread holds that of k-means; of one seed, the deviation over clusterings."""
    if len(found) == 1:
        return Estimate(found[0][_NAME], found[0].get(f"{_NAME}_stderr", math.nan))
    return mean_estimate([own[_NAME] for own in found])
