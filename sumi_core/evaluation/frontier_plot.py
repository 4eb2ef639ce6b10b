"""The plot of generative frontiers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.evaluation.plot_style import figure_of, finished, style_of, write

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED = 12  # points whose temperature is written beside them, at most


def draw_frontier(tables: Mapping[str, pd.DataFrame], title: str = "") -> Figure:
    """Bits per byte under the scorer against the entropy of texts: a line through the temperatures for each number of
    steps, with ± one standard error both ways; a star is validation text, the mark to reach.

    tables: by cell, the rows of ``frontier.parquet``. Of several cells each has a colour and each number of steps a
    marker; of one, each number of steps has both."""
    figure, axes = figure_of(7.0, 4.6)
    every = sorted({int(n) for table in tables.values() for n in table["steps"] if n})
    for index, (label, table) in enumerate(tables.items()):
        samples = table[table["kind"] == "samples"]
        for steps, points in samples.groupby("steps"):
            place = every.index(int(str(steps)))
            colour = style_of(index if len(tables) > 1 else place)[0]
            named = f"{label}, {steps} steps".removeprefix(", ")
            points = points.sort_values("temperature")
            _points(axes, points, color=colour, marker=style_of(place)[1], markersize=5, linewidth=1.3, label=named)
            if len(samples) <= _NAMED and len(tables) == 1:
                for row in points.to_dict("records"):
                    at = (float(row["entropy"]), float(row["bits_per_byte"]))
                    axes.annotate(f"{row['temperature']:g}", at, (4, 4), textcoords="offset points", fontsize=7)
    seen: set[tuple[float, float]] = set()
    for table in tables.values():
        given = table[table["kind"] == "validation"]
        place_of = (round(float(given["entropy"].iloc[0]), 9), round(float(given["bits_per_byte"].iloc[0]), 9))
        if place_of not in seen:
            _points(axes, given, color="black", marker="*", markersize=12, linestyle="none", label="validation text")
        seen.add(place_of)
    axes.set_xlabel("entropy of a text (bits per token of the scorer)")
    axes.set_ylabel("bits per byte under the scorer")
    return finished(figure, axes, title)


def _points(axes: Axes, points: pd.DataFrame, **style: Any) -> None:
    axes.errorbar(
        points["entropy"],
        points["bits_per_byte"],
        points["bits_per_byte_stderr"].fillna(0.0),
        points["entropy_stderr"].fillna(0.0),
        capsize=2,
        elinewidth=0.8,
        **style,
    )


def plot_frontier(tables: Mapping[str, pd.DataFrame], path: Path, title: str = "") -> Path:
    """Write ``draw_frontier`` as a PNG file; returns its path."""
    return write(draw_frontier(tables, title), path)
