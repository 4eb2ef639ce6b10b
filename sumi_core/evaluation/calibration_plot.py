"""The plot of a denoiser's calibration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sumi_core.evaluation.plot_style import GREY, add_legend, style_of, tidy, write

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def draw_calibration(curve: pd.DataFrame, table: pd.DataFrame, title: str = "") -> Figure:
    """Accuracy against confidence, a line for each noise level (on the diagonal when calibrated), and accuracy and
    calibration error by noise; error bars are over documents.

    curve, table: reliability.parquet and calibration.parquet of ``evaluation.calibration``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.0), layout="constrained")
    reliability, by_noise = figure.subplots(1, 2)
    reliability.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="calibrated")
    for index, (noise, points) in enumerate(curve.groupby("noise")):
        colour, marker = style_of(index)
        reliability.errorbar(
            points["confidence"],
            points["accuracy"],
            points["accuracy_stderr"].fillna(0.0),
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1.4,
            capsize=2,
            label=f"{noise:g} of the tokens hit",
        )
    for index, name in enumerate(("accuracy", "calibration_error")):
        colour, marker = style_of(index)
        by_noise.errorbar(
            table["noise"],
            table[name],
            table[f"{name}_stderr"].fillna(0.0),
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1.4,
            capsize=2,
            label=name.replace("_", " "),
        )
    reliability.set_xlabel("confidence: probability of the most probable token")
    reliability.set_ylabel("accuracy")
    by_noise.set_xlabel("share of tokens hit, 1 − α")
    for axes in (reliability, by_noise):
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        tidy(axes)
        add_legend(axes)
    if title:
        figure.suptitle(title)
    return figure


def plot_calibration(curve: pd.DataFrame, table: pd.DataFrame, path: Path, title: str = "") -> Path:
    """Write ``draw_calibration`` as a PNG file; returns its path."""
    return write(draw_calibration(curve, table, title), path)
