"""Samples of the methods of a comparison: their figures, and a text of each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from sumi_core.base.statistics import mean_estimate
from sumi_core.reports.from_store import SweepComparison, figures_of, first_sample


def described_samples(comparison: SweepComparison) -> dict[str, dict[str, float]]:
    """Sample metrics of each method at its most steps, then those of validation text: once, if all agree on it. Of
    several seeds, means, their errors over samples and over seeds joined: seeds share the noise of the samples."""
    figures = {key: figures_of(cell) for key, cell in comparison.cells.items()}
    samples = {key: own["samples"] for key, own in figures.items() if "samples" in own}
    own = {key: samples[key][f"steps_{figures[key]['sample_steps']}"] for key in samples}
    drawn = {name: [own[key] for key in keys if key in own] for name, keys in comparison.members.items()}
    shown = {name: _averaged(seeds) for name, seeds in drawn.items() if seeds}
    validation = {key: own["validation"] for key, own in samples.items()}
    if len({tuple(sorted(own.items())) for own in validation.values()}) == 1:
        return {**shown, "validation": next(iter(validation.values()))}
    return {**shown, **{f"validation ({key})": own for key, own in validation.items()}}


def first_samples(comparison: SweepComparison) -> Iterator[tuple[str, int, str]]:
    """Cell, steps and text of the first sample of each method that has any."""
    for key in comparison.first_cells:
        if found := first_sample(comparison.cells[key]):
            yield key, *found


def _averaged(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    if len(seeds) == 1:
        return dict(seeds[0])
    names = [name for name in seeds[0] if not name.endswith("_stderr") and all(name in figures for figures in seeds)]
    estimates = {name: mean_estimate([figures[name] for figures in seeds]) for name in names}
    own = {name: math.fsum(figures.get(f"{name}_stderr", 0.0) for figures in seeds) / len(seeds) for name in names}
    return {
        key: value
        for name, e in estimates.items()
        for key, value in ((name, e.value), (f"{name}_stderr", math.hypot(e.stderr, own[name])))
    }
