"""The plot of what a model's predictions cost by position."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sumi_core.evaluation.plot_style import GREY, add_legend, style_of, tidy, write

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_by_position(table: pd.DataFrame, title: str = "") -> Figure:
    """Nats per token by position, grey over all levels and coloured at each, and beside them the accuracy at each
    level; error bars are over documents. Without noise the left part alone.

    table: by_position.parquet of ``evaluation.by_position``."""
    from matplotlib.figure import Figure

    levels = table.dropna(subset="noise")
    panels = 1 if levels.empty else 2
    figure = Figure(figsize=(4.9 * panels, 4.0), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    whole = table[table["noise"].isna()]
    label = "exact" if bool(whole["exact"].all()) else "bound, all levels"
    _line(axes[0], whole, "nats", GREY, "s", label)
    for index, (noise, points) in enumerate(levels.groupby("noise")):
        colour, marker = style_of(index)
        _line(axes[0], points, "nats", colour, marker, f"cross-entropy, {noise:g} hit")
        _line(axes[1], points, "accuracy", colour, marker, f"{noise:g} of the tokens hit")
    axes[0].set_ylabel("nats per token")
    if panels == 2:
        axes[1].set_ylabel("accuracy of the most probable token")
        axes[1].set_ylim(0, 1)
    for own in axes:
        own.set_xlabel("position in the sequence")
        tidy(own)
        add_legend(own)
    if title:
        figure.suptitle(title)
    return figure


def _line(axes: Axes, points: pd.DataFrame, name: str, colour: str, marker: str, label: str) -> None:
    axes.errorbar(
        (points["first"] + points["last"]) / 2,
        points[name],
        points[f"{name}_stderr"].fillna(0.0),
        color=colour,
        marker=marker,
        markersize=4,
        linewidth=1.4,
        capsize=2,
        label=label,
    )


def plot_by_position(table: pd.DataFrame, path: Path, title: str = "") -> Path:
    """Write ``draw_by_position`` as a PNG file; returns its path."""
    return write(draw_by_position(table, title), path)
