"""The plots of one model as matplotlib figures, from the tables that its stages left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sumi_core.base.tables import read_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from sumi_core.evaluation.plots import Bar


def model_figures(name: str, outputs: Mapping[str, Path], *, exact: bool) -> dict[str, Figure]:
    """Figures by name, as far as their tables exist: loss_history, loss_by_level, bits_per_byte, sample_quality,
    frontier.

    name: of the model, for legends. outputs: the folders of its stages, by stage. exact: whether its bits per byte are
    exact or an upper bound."""
    from sumi_core.evaluation import plots

    found: dict[str, Figure] = {}
    history = _table(outputs, "pretrained_denoiser", "history.parquet")
    if history is not None:
        found["loss_history"] = plots.draw_loss_history({name: history}, "Loss against tokens")
    curve = _table(outputs, "evaluation", "loss_by_level.parquet")
    if curve is not None:
        found["loss_by_level"] = plots.draw_loss_by_level({name: curve}, "Bound by noise level")
    frontier = _table(outputs, "evaluation", "frontier.parquet")
    if frontier is not None:
        from sumi_core.evaluation.frontier_plot import draw_frontier

        found["frontier"] = draw_frontier({name: frontier}, "Generative frontier")
    figures = _table(outputs, "evaluation", "metrics.parquet")
    if figures is None:
        return found
    if bars := _bars(name, figures, "=" if exact else "≤"):
        found["bits_per_byte"] = plots.draw_comparison(bars, "Bits per byte beside the yardsticks")
    quality = figures[figures["group"].isin(["samples", "validation"])].assign(cell=name)
    if not quality.empty:
        found["sample_quality"] = plots.draw_quality_against_steps(quality, "Samples")
    return found


def _table(outputs: Mapping[str, Path], stage: str, file: str) -> pd.DataFrame | None:
    path = outputs[stage] / file if stage in outputs else None
    return read_table(path) if path is not None and path.is_file() else None


def _bars(name: str, figures: pd.DataFrame, sign: str) -> list[Bar]:
    """The model's bits per byte and those of the yardsticks; empty where the likelihood was not measured."""
    from sumi_core.evaluation.plots import Bar

    own = figures[(figures["group"] == "likelihood") & (figures["name"] == "bits_per_byte")]
    if own.empty:
        return []
    yardsticks = figures[figures["group"] == "yardstick"]
    return [
        Bar(name, float(own["value"].iloc[0]), float(own["stderr"].iloc[0]), sign, index=0),
        *(Bar(str(label), float(value)) for label, value in zip(yardsticks["name"], yardsticks["value"], strict=True)),
    ]
