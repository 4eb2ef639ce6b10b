"""Plots from plain tables. ``draw_…`` returns a matplotlib figure, ``plot_…`` writes it as a PNG file; neither touches
global state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.evaluation.plot_style import (
    GREY,
    LEGEND_ENTRIES,
    add_legend,
    band,
    figure_of,
    finished,
    style_of,
    tidy,
    write,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Bar:
    """One line of the comparison: a cell (``index`` gives its colour in every plot), or a yardstick (None)."""

    label: str
    value: float
    stderr: float = math.nan
    sign: str = ""  # "≤" a bound, "=" exact
    index: int | None = None
    seeds: tuple[float, ...] = ()  # the figure of each seed, where the value is their mean


@dataclass(frozen=True)
class Gap:
    """A difference to the reference with its 95 % interval; ``index`` as in ``Bar``."""

    label: str
    value: float
    low: float
    high: float
    significant: bool | None  # None: between two trained models
    index: int


def draw_loss_history(histories: Mapping[str, pd.DataFrame], title: str = "") -> Figure:
    """Training and validation loss against tokens seen, one colour a cell; tokens on a logarithmic axis.

    histories: by cell, a long table with columns step, tokens, name, value (history.parquet of pretrained_denoiser).
    Names that end in ``loss`` or ``nats_per_token`` are drawn: validation solid with markers, training thin. A column
    ``error`` (standard error over seeds) becomes a band around the validation loss.
    """
    figure, axes = figure_of(7.0, 4.2)
    for index, (label, history) in enumerate(histories.items()):
        if history.empty:
            continue
        colour, marker = style_of(index)
        losses = history[history["name"].str.endswith(("loss", "nats_per_token"))]
        for name, group in losses.groupby("name", sort=True):
            points = group[group["tokens"] > 0].sort_values("tokens")
            validation = str(name).startswith("val")
            style: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.45}
            if validation:
                style = {"linewidth": 1.6, "marker": marker, "markersize": 4}
            shown = f"{label} ({'validation' if validation else 'training'})"
            axes.plot(points["tokens"], points["value"], color=colour, label=shown, **style)
            if validation:
                band(axes, points["tokens"], points["value"], points.get("error"), colour)
    axes.set_xscale("log")
    axes.set_xlabel("tokens seen in training")
    axes.set_ylabel("loss (nats per token)")
    return finished(figure, axes, title)


def plot_loss_history(histories: Mapping[str, pd.DataFrame], path: Path, title: str = "") -> Path:
    """Write ``draw_loss_history`` as a PNG file; returns its path."""
    return write(draw_loss_history(histories, title), path)


def draw_loss_by_level(curves: Mapping[str, pd.DataFrame], title: str = "") -> Figure:
    """Where the bound comes from: its part of the bits per byte in each interval of t, and what a token costs per unit
    of α against the share of tokens hit, a curve that does not depend on the schedule.

    curves: by cell, the table of ``likelihood.loss_by_level``. Exact likelihoods have none and are left out. Columns
    ``bits_per_byte_error`` and ``per_alpha_error`` (of a mean over seeds: standard errors over seeds and documents)
    become bands; error bars are over documents, and stand where there is no band.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.0), layout="constrained")
    part, curve_axes = figure.subplots(1, 2)
    for index, (label, curve) in enumerate(curves.items()):
        if curve.empty:
            continue
        colour, marker = style_of(index)
        middle = (curve["low"] + curve["high"]) / 2
        common: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.4, "label": label}
        part.plot(middle, curve["bits_per_byte"], **common)
        band(part, middle, curve["bits_per_byte"], curve.get("bits_per_byte_error"), colour)
        if "per_alpha_error" in curve:
            curve_axes.plot(curve["noise"], curve["per_alpha"], **common)
            band(curve_axes, curve["noise"], curve["per_alpha"], curve["per_alpha_error"], colour)
        else:
            curve_axes.errorbar(curve["noise"], curve["per_alpha"], yerr=curve["per_alpha_stderr"], capsize=2, **common)
    part.set_ylabel("part of the bound in this interval (bits per byte)")
    part.set_xlabel("noise level t (0: clean, 1: noise)")
    curve_axes.set_ylabel("loss (nats per token per unit of α)")
    curve_axes.set_xlabel("share of tokens hit, 1 − α")
    for axes in (part, curve_axes):
        axes.set_xlim(0, 1)
        tidy(axes)
        axes.set_ylim(bottom=0)
    add_legend(part)
    if title:
        figure.suptitle(title)
    return figure


def plot_loss_by_level(curves: Mapping[str, pd.DataFrame], path: Path, title: str = "") -> Path:
    """Write ``draw_loss_by_level`` as a PNG file; returns its path."""
    return write(draw_loss_by_level(curves, title), path)


def draw_comparison(bars: Sequence[Bar], title: str = "") -> Figure:
    """Bits per byte of cells (coloured, with ± one standard error; dots: each seed) among the yardsticks (grey, dotted
    lines)."""
    ordered = sorted(bars, key=lambda bar: bar.value)
    figure, axes = figure_of(8.0, 1.2 + 0.34 * len(ordered))
    reach = max((bar.value for bar in ordered), default=1.0)
    for row, bar in enumerate(ordered):
        colour = "#D0D0D0" if bar.index is None else style_of(bar.index)[0]
        if bar.index is None:
            axes.axvline(bar.value, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
        known = bar.stderr > 0  # not of NaN either
        axes.barh(row, bar.value, color=colour, height=0.7, xerr=bar.stderr if known else None, capsize=3)
        axes.plot(bar.seeds, [row] * len(bar.seeds), "o", color="white", markeredgecolor="black", markersize=3)
        error = f" ± {bar.stderr:.3f}" if known else ""
        text = f"{bar.sign} {bar.value:.3f}{error}".strip()
        axes.text(
            max(bar.value + (bar.stderr if known else 0.0), *bar.seeds, 0.0) + 0.015 * reach, row, text,
            va="center", ha="left", fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip
    axes.set_yticks(range(len(ordered)), [bar.label for bar in ordered])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * reach)
    axes.set_xlabel("bits per byte of validation text (lower is better; ≤ upper bound, = exact)")
    axes.grid(axis="y", visible=False)
    return finished(figure, axes, title, legend=False)


def plot_comparison(bars: Sequence[Bar], path: Path, title: str = "") -> Path:
    """Write ``draw_comparison`` as a PNG file; returns its path."""
    return write(draw_comparison(bars, title), path)


def plot_differences(gaps: Sequence[Gap], path: Path, title: str = "", reference: str = "") -> Path:
    """Differences in bits per byte to the reference (the line at 0) with 95 % intervals, best first; hollow where
    methods are not told apart, full between trained models."""
    ordered = sorted(gaps, key=lambda gap: gap.value)
    figure, axes = figure_of(8.0, 1.4 + 0.34 * len(ordered))
    for row, gap in enumerate(ordered):
        colour, marker = style_of(gap.index)
        axes.plot([gap.low, gap.high], [row, row], color=colour, linewidth=1.6, solid_capstyle="butt")
        filled = "white" if gap.significant is False else colour
        axes.plot(gap.value, row, marker, color=filled, markeredgecolor=colour, markersize=7)
    axes.axvline(0.0, color="#444444", linewidth=1.0, zorder=0)
    axes.set_yticks(range(len(ordered)), [gap.label for gap in ordered])
    axes.set_ylim(len(ordered) - 0.4, -0.6)
    hollow = "; hollow: not significant after correction" if any(gap.significant is not None for gap in ordered) else ""
    axes.set_xlabel(f"bits per byte minus those of {reference} (95 % intervals{hollow})")
    return write(finished(figure, axes, title, legend=False), path)


def draw_quality_against_steps(table: pd.DataFrame, title: str = "") -> Figure:
    """Sample metrics against the number of sampling steps, a panel each; the dashed line is validation text.

    table: columns cell, steps (0: the validation text beside that cell's samples), name, value, stderr.
    """
    from matplotlib.figure import Figure

    names = sorted(table["name"].unique())
    cells = {cell: index for index, cell in enumerate(table["cell"].unique())}
    steps = sorted(table.loc[table["steps"] > 0, "steps"].unique())
    across = min(3, len(names))
    down = math.ceil(len(names) / across)
    figure = Figure(figsize=(3.4 * across + 1.8, 2.9 * down + 0.5), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False)
    for panel, name in zip(panels.flat, names, strict=False):
        rows = table[table["name"] == name]
        for value in rows[rows["steps"] == 0]["value"].drop_duplicates():
            panel.axhline(value, color=GREY, linestyle="--", linewidth=1.2, label="validation text")
        for cell, points in rows[rows["steps"] > 0].groupby("cell", sort=False):
            colour, marker = style_of(cells[cell])
            points = points.sort_values("steps")
            panel.errorbar(
                points["steps"], points["value"], yerr=points["stderr"].fillna(0.0), color=colour, marker=marker,
                markersize=5, linewidth=1.4, capsize=2, label=str(cell),
            )  # fmt: skip
        panel.set_xscale("log")
        panel.set_xticks(steps, [str(step) for step in steps], minor=False)
        panel.minorticks_off()
        if steps:
            panel.set_xlim(steps[0] / 1.4, steps[-1] * 1.4)
        panel.set_xlabel("sampling steps (network calls)")
        panel.set_ylabel(name)
        tidy(panel)
    for panel in list(panels.flat)[len(names) :]:
        panel.set_visible(False)
    shown = {
        label: handle for panel in panels.flat for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    if 0 < len(shown) <= LEGEND_ENTRIES:
        figure.legend(shown.values(), shown.keys(), loc="outside right upper", fontsize=8, frameon=False)
    if title:
        figure.suptitle(title)
    return figure


def plot_quality_against_steps(table: pd.DataFrame, path: Path, title: str = "") -> Path:
    """Write ``draw_quality_against_steps`` as a PNG file; returns its path."""
    return write(draw_quality_against_steps(table, title), path)


def draw_readings(tables: Mapping[str, pd.DataFrame], title: str = "") -> Figure:
    """Bits per byte against the tokens of a block: the bound of blocks of each length with its error over
    documents, and the exact figure of the same model as a line across.

    tables: by cell, the table of ``readings.readings_table``. Columns ``bits_per_byte_stderr`` become error bars."""
    figure, axes = figure_of(7.0, 4.2)
    for index, (label, table) in enumerate(tables.items()):
        colour, marker = style_of(index)
        blocks = table[table["block_length"] > 0].sort_values("block_length")
        named = f"{label} " if label else ""
        axes.errorbar(
            blocks["block_length"],
            blocks["bits_per_byte"],
            blocks["bits_per_byte_stderr"],
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1.4,
            capsize=2,
            label=f"{named}blocks (≤)",
        )
        for exact in table[table["exact"]].to_dict("records"):
            label = f"{named}{exact['reading']} (=)"
            axes.axhline(float(exact["bits_per_byte"]), color=colour, linestyle="--", label=label)
    axes.set_xscale("log", base=2)
    lengths = sorted({int(n) for table in tables.values() for n in table["block_length"] if n > 0})
    axes.set_xticks(lengths, [str(n) for n in lengths])
    axes.minorticks_off()
    axes.set_xlabel("tokens of a block")
    axes.set_ylabel("bits per byte")
    return finished(figure, axes, title)


def plot_readings(tables: Mapping[str, pd.DataFrame], path: Path, title: str = "") -> Path:
    """Write ``draw_readings`` as a PNG file; returns its path."""
    return write(draw_readings(tables, title), path)


def draw_task_accuracy(tables: Mapping[str, pd.DataFrame], parallel: float | None = None, title: str = "") -> Figure:
    """Share of solved instances against network calls with 95 % intervals; what has only the form of an answer, dotted.

    tables: by what a line is called, the rows of ``task_accuracy.parquet`` (columns calls, accuracy, low, high,
    validity). parallel: the accuracy of independent drawing in one step, a cross at one call."""
    figure, axes = figure_of(7.0, 4.2)
    for index, (label, table) in enumerate(tables.items()):
        colour, marker = style_of(index)
        points = table.sort_values("calls")
        errors = [points["accuracy"] - points["low"], points["high"] - points["accuracy"]]
        axes.errorbar(
            points["calls"],
            points["accuracy"],
            errors,
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1.4,
            capsize=2,
            label=f"{label}: solved",
        )
        axes.plot(points["calls"], points["validity"], color=colour, linestyle=":", label=f"{label}: valid")
    if parallel is not None:
        axes.plot(1, parallel, "x", color=GREY, markersize=9, label="exact marginals, drawn in one call")
    axes.set_xscale("log", base=2)
    calls = sorted({1.0, *(float(own) for table in tables.values() for own in table["calls"])})
    axes.set_xticks(calls, [f"{own:g}" for own in calls])
    axes.set_xlim(calls[0] / 1.2, calls[-1] * 1.2)
    axes.minorticks_off()
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("network calls of an answer")
    axes.set_ylabel("share of instances")
    return finished(figure, axes, title)


def plot_task_accuracy(
    tables: Mapping[str, pd.DataFrame], path: Path, parallel: float | None = None, title: str = ""
) -> Path:
    """Write ``draw_task_accuracy`` as a PNG file; returns its path."""
    return write(draw_task_accuracy(tables, parallel, title), path)
