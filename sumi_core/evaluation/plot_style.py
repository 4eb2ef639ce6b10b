"""How all plots look: colours, markers, frames, and files that are the same for the same figure.

Colours are those of Okabe & Ito (2008), which people with any kind of colour vision can tell apart; lines differ in
their marker too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00")
_MARKERS = "os^Dv<>P"
GREY = "#8A8A8A"
LEGEND_ENTRIES = 16  # more would cover the plot

_METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}


def band(axes: Axes, across: Any, values: Any, error: Any, colour: str) -> None:
    """± one standard error of a mean over seeds, where there are several."""
    if error is not None:
        axes.fill_between(across, values - error, values + error, color=colour, alpha=0.18, linewidth=0)


def figure_of(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of that size in inches, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def style_of(index: int) -> tuple[str, str]:
    """Colour and marker of the line of that number; where colours begin again, with another marker each."""
    return COLOURS[index % len(COLOURS)], _MARKERS[(index + index // len(COLOURS)) % len(_MARKERS)]


def tidy(axes: Axes) -> None:
    """A light grid behind the lines, and no frame above and on the right."""
    axes.grid(True, color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)


def add_legend(axes: Axes) -> None:
    """Name each line once, unless there are so many that the names would cover them."""
    handles, labels = axes.get_legend_handles_labels()
    kept = dict(zip(labels, handles, strict=True))
    if 0 < len(kept) <= LEGEND_ENTRIES:
        axes.legend(kept.values(), kept.keys(), fontsize=8, frameon=False)


def finished(figure: Figure, axes: Axes, title: str, *, legend: bool = True) -> Figure:
    """The figure with its title, tidied."""
    tidy(axes)
    if not legend:
        axes.grid(axis="y", visible=False)
    else:
        add_legend(axes)
    if title:
        axes.set_title(title, loc="left", fontsize=11)
    return figure


def write(figure: Figure, path: Path) -> Path:
    """Write the file, of the kind that its suffix names, without time and software: the same figures give the same
    bytes. Text in SVG and PDF stays text."""
    from matplotlib import rc_context

    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": "sumi", "svg.fonttype": "none", "pdf.fonttype": 42}):
        figure.savefig(path, dpi=130, metadata=_METADATA[path.suffix])
    return path
