"""Generative frontiers of the methods of a comparison: means over seeds, and intervals over seeds and texts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sumi_core.base.statistics import Error, mean_estimate, t_interval
from sumi_core.base.tables import read_table
from sumi_core.base.text import short_interval, with_error
from sumi_core.evaluation.definitions import MATCHED
from sumi_core.reports.from_store import SweepComparison, figures_of, folder_of

if TYPE_CHECKING:
    import pandas as pd

_KEYS = ("kind", "temperature", "steps")
_FIGURES = ("bits_per_byte", "perplexity", "entropy", "distinct_2", "repetition_4")


def mean_frontier(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The mean over seeds of the tables ``frontier.parquet``. Seeds share the noise that texts are
    drawn with, so the error over texts is not in that over seeds: ``<figure>_stderr`` is √(texts² + seeds²), and
    ``<figure>_seeds`` and ``<figure>_texts`` are its parts; a column ``seeds`` counts them."""
    import numpy as np
    import pandas as pd

    grouped = pd.concat(frames, ignore_index=True).groupby(list(_KEYS), sort=True)
    errors = [f"{name}_stderr" for name in _FIGURES]
    mean = grouped[[*_FIGURES, *errors, "calls", "texts"]].mean()
    spread = grouped[list(_FIGURES)].sem()
    for name in _FIGURES:
        mean[f"{name}_texts"], mean[f"{name}_seeds"] = mean[f"{name}_stderr"], spread[name]
        mean[f"{name}_stderr"] = np.hypot(mean[f"{name}_texts"], spread[name].fillna(0.0))
    mean["seeds"] = grouped.size()
    return mean.reset_index()


def frontiers_of(comparison: SweepComparison) -> dict[str, pd.DataFrame]:
    """``mean_frontier`` of each method that has one."""
    found: dict[str, pd.DataFrame] = {}
    for name, keys in comparison.members.items():
        files = [folder_of(comparison.cells[key]) / "frontier.parquet" for key in keys]
        if own := [read_table(file) for file in files if file.is_file()]:
            found[name] = mean_frontier(own)
    return found


def frontier_rows(tables: Mapping[str, pd.DataFrame]) -> list[dict[str, str]]:
    """A row for each method, temperature and number of steps, and one of validation text, with 95 % intervals over
    texts and seeds. tables: by method, of ``mean_frontier``."""
    rows = [row for name, table in tables.items() for row in _rows(name, table)]
    return list({tuple(row.items()): row for row in rows}.values())  # validation text is the same for all, as a rule


def _rows(name: str, table: pd.DataFrame) -> Iterator[dict[str, str]]:
    # Validation text comes last.
    for row in table.sort_values(["kind", "steps", "temperature"]).to_dict("records"):
        given = row["kind"] == "validation"
        errors = [
            Error(float(row["bits_per_byte_texts"]), float(row["texts"]) - 1),
            *([Error(float(row["bits_per_byte_seeds"]), float(row["seeds"]) - 1)] if row["seeds"] > 1 else []),
        ]
        yield {
            "cell": "[validation text]" if given else name,
            "steps": "–" if given else str(row["steps"]),
            "temperature": "–" if given else f"{row['temperature']:g}",
            "bits per byte": with_error(row["bits_per_byte"], row["bits_per_byte_stderr"]),
            "95 % interval": _interval(row["bits_per_byte"], errors),
            **{
                figure.replace("_", " "): with_error(row[figure], row[f"{figure}_stderr"])
                for figure in ("entropy", "perplexity", "distinct_2", "repetition_4")
            },
        }


def matched_rows(comparison: SweepComparison) -> list[dict[str, str]]:
    """A row for each method and number of steps: the bits per byte at the entropy of validation text, as far as every
    evaluated seed has them."""
    rows: list[dict[str, str]] = []
    for name, keys in comparison.members.items():
        found = [own for key in keys if (own := _figures(comparison, key))]
        for steps in dict.fromkeys(label for own in found for label in own if label.startswith("steps_")):
            known = [own[steps] for own in found if MATCHED in own.get(steps, {})]
            if len(known) < len(found):
                continue
            mean = mean_estimate([own[MATCHED] for own in known])
            texts = math.fsum(own.get(f"{MATCHED}_stderr", math.nan) for own in known) / len(known)
            several = len(known) > 1
            errors = [Error(texts, found[0]["texts"] - 1), *([Error(mean.stderr, len(known) - 1)] if several else [])]
            error = math.hypot(*(one.stderr for one in errors))
            rows.append(
                {
                    "cell": name,
                    "steps": steps.removeprefix("steps_"),
                    "at the entropy of validation text": with_error(mean.value, error),
                    "95 % interval": _interval(mean.value, errors),
                    "seeds": str(len(known)),
                }
            )
    return rows


def scored_by(comparison: SweepComparison) -> str:
    """Who scored the texts of the methods, and what to mind of it; empty where nobody did."""
    by_method = {
        name: [own for key in keys if (own := _figures(comparison, key))] for name, keys in comparison.members.items()
    }
    scorers = {name: sorted({own["scorer"] for own in found}) for name, found in by_method.items() if found}
    if not scorers:
        return ""
    told = [f"Scored by {', '.join(dict.fromkeys(one for own in scorers.values() for one in own))}."]
    if len({tuple(own) for own in scorers.values()}) > 1:
        told.append("Methods have different scorers, whose figures do not compare.")
    if itself := [name for name, found in by_method.items() if any(own["scorer_is_model"] for own in found)]:
        told.append(f"{', '.join(itself)} scored its own texts, which it finds probable whatever they are worth.")
    return " ".join(told)


def _figures(comparison: SweepComparison, key: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = figures_of(comparison.cells[key]).get("frontier", {})
    return found


def _interval(value: float, errors: Sequence[Error]) -> str:
    low, high = t_interval(value, errors)
    return short_interval(low, high).replace("+", "")
