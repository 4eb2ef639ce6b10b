"""Quality against tokens per network call: a panel for each thing that is judged, a line for each method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sumi_core.evaluation.parallelism import on_front
from sumi_core.evaluation.plot_style import GREY, LEGEND_ENTRIES, style_of, tidy, write

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ACROSS = 3  # panels beside each other


def draw_speed(panels: Mapping[str, Mapping[str, pd.DataFrame]], title: str = "") -> Figure:
    """Lines of quality against tokens per call. What is written token by token is a star, with a dotted line across.
    Where more is better, points that no other of the panel beats are filled.

    panels: by title, tables by what a line is called, with the columns tokens_per_call, quality, quality_stderr, share,
    token_by_token and reference of ``speed.parquet``. A name has one colour in all panels."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    across = min(_ACROSS, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(3.6 * across + 2.4, 3.1 * down + 0.5), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    for panel, (name, lines) in zip(axes.flat, panels.items(), strict=False):
        _panel(panel, lines, names)
        panel.set_title(name, loc="left", fontsize=10)
    for panel in list(axes.flat)[len(panels) :]:
        panel.set_visible(False)
    shown = {
        label: handle for panel in axes.flat for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    if 0 < len(shown) <= LEGEND_ENTRIES:
        figure.legend(shown.values(), shown.keys(), loc="outside right upper", fontsize=8, frameon=False)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def _panel(panel: Axes, lines: Mapping[str, pd.DataFrame], names: list[str]) -> None:
    tables = {name: table.sort_values("tokens_per_call") for name, table in lines.items()}
    points = [pair for t in tables.values() for pair in zip(t["tokens_per_call"], t["quality"], strict=True)]
    share = all(bool(table["share"].all()) for table in tables.values())
    front = dict(zip(points, on_front(points), strict=True)) if share else {}
    for name, table in tables.items():
        colour, marker = style_of(names.index(name))
        mark = bool(table["token_by_token"].all())
        if mark:
            panel.axhline(float(table["quality"].max()), color=colour, linestyle=":", linewidth=1.0)
        x, y = table["tokens_per_call"], table["quality"]
        panel.errorbar(x, y, yerr=table["quality_stderr"].fillna(0.0), color=colour, linewidth=1.4, capsize=2)
        full = [front.get(pair, True) for pair in zip(x, y, strict=True)]
        faces = [colour if own else "white" for own in full]
        style = "*" if mark else marker
        panel.scatter(x, y, s=130 if mark else 26, c=faces, edgecolors=colour, marker=style, zorder=3)
        panel.plot([], [], color=colour, marker=style, label=name)
    references = {float(value) for table in tables.values() for value in table["reference"].dropna()}
    for value in sorted(references):
        panel.axhline(value, color=GREY, linestyle="--", linewidth=1.2, label="validation text")
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter("{x:g}")
    if share:
        panel.set_ylim(-0.02, 1.02)
    panel.set_xlabel("tokens per network call")
    tidy(panel)


def plot_speed(panels: Mapping[str, Mapping[str, pd.DataFrame]], path: Path, title: str = "") -> Path:
    """Write ``draw_speed``; returns its path."""
    return write(draw_speed(panels, title), path)
