"""The plot of how often, when and where a model changes the tokens of the texts that it writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sumi_core.base.statistics import mean_estimate
from sumi_core.evaluation.plot_style import add_legend, style_of, tidy, write

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_KINDS = ("changed", "revised")
_BARS = 8  # of as many times or more, the last one
_PLACES = 16  # points along a text


def draw_revisions(steps: pd.DataFrame, tokens: pd.DataFrame, title: str = "") -> Figure:
    """Three panels: the share of the tokens that changed, and that were revised, in each step; the share of the tokens
    to which that happened never, once, twice …; and how often it happened to a token by position, with error bars over
    texts.

    steps, tokens: revisions.parquet and token_revisions.parquet of ``evaluation.film``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.2, 3.8), layout="constrained")
    by_step, times, by_position = figure.subplots(1, 3)
    for index, kind in enumerate(_KINDS):
        colour, marker = style_of(index)
        line = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.4, "label": kind}
        by_step.plot(steps["step"][1:], steps[kind][1:], markevery=max(1, len(steps) // 20), **line)
        _bars(times, tokens[kind], (index - 0.5) * 0.4, colour, kind)
        first = tokens["position"] // _width(tokens)
        points = [
            (own["position"].mean(), mean_estimate(own.groupby("text")[kind].mean().to_numpy()))
            for _, own in tokens.groupby(first)
        ]
        errors = np.nan_to_num([estimate.stderr for _, estimate in points])
        values = [estimate.value for _, estimate in points]
        by_position.errorbar([place for place, _ in points], values, errors, capsize=2, **line)
    by_step.set_xlabel("step")
    by_step.set_ylabel("share of the tokens, in the step")
    times.set_xlabel("times that a token was changed, or revised")
    times.set_ylabel("share of the tokens")
    times.set_xticks(range(_BARS + 1), [*map(str, range(_BARS)), f"{_BARS}+"])
    by_position.set_xlabel("position in the text")
    by_position.set_ylabel("times per token")
    for axes in (by_step, times, by_position):
        axes.set_ylim(bottom=0)
        tidy(axes)
        add_legend(axes)
    times.grid(axis="x", visible=False)
    if title:
        figure.suptitle(title)
    return figure


def _width(tokens: pd.DataFrame) -> int:
    """Positions that share a point."""
    return -(-(int(tokens["position"].max()) + 1) // _PLACES) if len(tokens) else 1


def _bars(axes: Axes, counts: pd.Series[int], aside: float, colour: str, label: str) -> None:
    many = np.bincount(np.minimum(counts.to_numpy(), _BARS), minlength=_BARS + 1)
    # An edge, and hatching of the second kind, for those who print in black and white.
    hatch = "//" if aside > 0 else None
    axes.bar(
        np.arange(_BARS + 1) + aside,
        many / max(many.sum(), 1),
        0.4,
        color=colour,
        edgecolor="white",
        hatch=hatch,
        label=label,
    )


def plot_revisions(steps: pd.DataFrame, tokens: pd.DataFrame, path: Path, title: str = "") -> Path:
    """Write ``draw_revisions`` as a PNG file; returns its path."""
    return write(draw_revisions(steps, tokens, title), path)
