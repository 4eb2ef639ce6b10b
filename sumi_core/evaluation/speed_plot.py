"""Quality against tokens per network call, or per second: a panel for each thing that is judged, a line for each
method."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sumi_core.base.text import short_count
from sumi_core.evaluation.parallelism import on_front
from sumi_core.evaluation.plot_style import GREY, LEGEND_ENTRIES, style_of, tidy, write

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ACROSS = 3  # panels beside each other
_SECOND = "tokens_per_second"
_LABELS = {"tokens_per_call": "tokens per network call", _SECOND: "tokens per second"}


def timed_panels(
    lines: Mapping[str, pd.DataFrame], times: Mapping[str, pd.DataFrame]
) -> dict[str, dict[str, pd.DataFrame]]:
    """Panels to draw against ``tokens_per_second``, one for each number of texts at once.

    lines: as in ``draw_speed``, with the column steps. times: by the same names, as in ``speed_times.parquet``; the
    median where several cells were timed. The column alike is the rate of an autoregressive model of the same size."""
    panels: dict[str, dict[str, pd.DataFrame]] = {}
    for name, points in lines.items():
        own = times[name]
        own = own.assign(alike=own[_SECOND] / own["speedup"] if "speedup" in own else float("nan"))
        for batch, timed in own.groupby("batch"):
            rates = timed.groupby("steps")[[_SECOND, "alike"]].median()
            title = "one text at a time" if batch == 1 else f"{batch} texts at once"
            panels.setdefault(title, {})[name] = points.join(rates, on="steps", how="inner")
    return panels


def draw_speed(
    panels: Mapping[str, Mapping[str, pd.DataFrame]], title: str = "", along: str = "tokens_per_call"
) -> Figure:
    """Lines of quality against tokens per call. What is written token by token is a star, with a dotted line across.
    Where more is better, points that no other of the panel beats are filled.

    panels: by title, tables by what a line is called, with the columns tokens_per_call, quality, quality_stderr, share,
    token_by_token and reference of ``speed.parquet``. A name has one colour in all panels. along: the column of the
    horizontal axis; ``tokens_per_second`` of ``timed_panels``, where a vertical line marks ``alike``."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    across = min(_ACROSS, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(3.6 * across + 2.4, 3.1 * down + 0.5), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    for panel, (name, lines) in zip(axes.flat, panels.items(), strict=False):
        _panel(panel, lines, names, along)
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


def _panel(panel: Axes, lines: Mapping[str, pd.DataFrame], names: list[str], along: str) -> None:
    tables = {name: table.sort_values(along) for name, table in lines.items()}
    points = [pair for t in tables.values() for pair in zip(t[along], t["quality"], strict=True)]
    share = all(bool(table["share"].all()) for table in tables.values())
    front = dict(zip(points, on_front(points), strict=True)) if share else {}
    for name, table in tables.items():
        colour, marker = style_of(names.index(name))
        mark = bool(table["token_by_token"].all())
        if mark:
            panel.axhline(float(table["quality"].max()), color=colour, linestyle=":", linewidth=1.0)
        x, y = table[along], table["quality"]
        panel.errorbar(x, y, yerr=table["quality_stderr"].fillna(0.0), color=colour, linewidth=1.4, capsize=2)
        full = [front.get(pair, True) for pair in zip(x, y, strict=True)]
        faces = [colour if own else "white" for own in full]
        style = "*" if mark else marker
        panel.scatter(x, y, s=130 if mark else 26, c=faces, edgecolors=colour, marker=style, zorder=3)
        panel.plot([], [], color=colour, marker=style, label=name)
    references = {float(value) for table in tables.values() for value in table["reference"].dropna()}
    for value in sorted(references):
        panel.axhline(value, color=GREY, linestyle="--", linewidth=1.2, label="validation text")
    if along == _SECOND and (alike := [rate for table in tables.values() for rate in table["alike"].dropna()]):
        panel.axvline(
            statistics.median(alike), color=GREY, linestyle=":", linewidth=1.2, label="autoregressive, same size"
        )
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter("{x:g}" if along != _SECOND else lambda x, _: short_count(x))
    if share:
        panel.set_ylim(-0.02, 1.02)
    panel.set_xlabel(_LABELS[along])
    tidy(panel)


def plot_speed(
    panels: Mapping[str, Mapping[str, pd.DataFrame]], path: Path, title: str = "", along: str = "tokens_per_call"
) -> Path:
    """Write ``draw_speed``; returns its path."""
    return write(draw_speed(panels, title, along), path)
