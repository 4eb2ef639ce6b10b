"""What speed costs in quality, method by method: the measurement ``speed`` of all cells of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sumi_core.base.statistics import Estimate, mean_estimate
from sumi_core.base.tables import read_table
from sumi_core.base.text import short_count, with_error
from sumi_core.evaluation.definitions import SPEED_NOTES
from sumi_core.evaluation.parallelism import areas_of
from sumi_core.reports.from_store import SweepComparison, folder_of

if TYPE_CHECKING:
    import pandas as pd

POINTS, TIMES = "speed.parquet", "speed_times.parquet"
_KEYS = ["sampler", "steps"]


@dataclass(frozen=True)
class Line:
    """A method's texts by one sampler. of: what was judged, such as ``accuracy of sudoku``. points: a row for each
    number of steps, means over seeds, as in ``speed.parquet``; quality_stderr: √(texts² + seeds²). aup: accuracy under
    parallelism, ± over seeds; None where quality is no share. times: as in ``speed_times.parquet``, of every seed."""

    method: str
    sampler: str
    of: str
    points: pd.DataFrame
    aup: Estimate | None
    times: pd.DataFrame


def speed_lines(comparison: SweepComparison) -> list[Line]:
    """Every line of the evaluated cells that were measured, best method first."""
    import pandas as pd

    found: list[tuple[str, str, str, list[pd.DataFrame], pd.DataFrame]] = []
    for method, keys in comparison.members.items():
        folders = [folder_of(comparison.cells[key]) for key in keys]
        tables = [read_table(folder / POINTS) for folder in folders if (folder / POINTS).is_file()]
        if not tables:
            continue
        timed = [read_table(folder / TIMES) for folder in folders if (folder / TIMES).is_file()]
        times = pd.concat(timed, ignore_index=True) if timed else pd.DataFrame(columns=_KEYS)
        for sampler, own in pd.concat(tables).groupby("sampler", sort=False):
            of = f"{own['title'].iloc[0]} of {own['of'].iloc[0]}"
            seeds = [table[table["sampler"] == sampler] for table in tables]
            found.append((method, str(sampler), of, seeds, times[times["sampler"] == sampler]))
    means = [_mean(seeds) for *_, seeds, _ in found]
    best = _best([of for _, _, of, _, _ in found], means)
    return [
        Line(method, sampler, of, points, _area(seeds, best[of]), times)
        for (method, sampler, of, seeds, times), points in zip(found, means, strict=True)
    ]


def _mean(seeds: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of several seeds: they share the questions and the noise that texts are drawn with, so that the error
    over texts is not in that over seeds, and is added to it."""
    import numpy as np
    import pandas as pd

    grouped = pd.concat(seeds, ignore_index=True).groupby(_KEYS, sort=False)
    mean = grouped.mean(numeric_only=True).reset_index()
    for flag in ("share", "token_by_token"):
        mean[flag] = mean[flag].astype(bool)
    spread = grouped["quality"].sem().to_numpy()
    mean["quality_stderr"] = np.hypot(mean["quality_stderr"], np.nan_to_num(spread))
    return mean


def _best(of: Sequence[str], tables: Sequence[pd.DataFrame]) -> dict[str, float]:
    """The highest mean quality of all methods, for each thing that was judged."""
    best: dict[str, float] = {}
    for name, table in zip(of, tables, strict=True):
        best[name] = max(float(table["quality"].max()), best.get(name, -math.inf))
    return best


def _area(seeds: Sequence[pd.DataFrame], best: float) -> Estimate | None:
    areas = [area for table in seeds for area in areas_of(table, best).values()]
    return mean_estimate(areas) if areas else None


def speed_panels(lines: Sequence[Line], labels: Mapping[str, str]) -> dict[str, dict[str, Line]]:
    """The lines by what was judged, then by name: the method's label without what all methods of the panel share, and
    the sampler where a method has several. labels: of methods."""
    panels: dict[str, dict[str, Line]] = {}
    for of in dict.fromkeys(line.of for line in lines):
        own = [line for line in lines if line.of == of]
        methods = {line.method: labels.get(line.method, line.method).split(".") for line in own}
        shared = _shared([*methods.values()])
        several = {line.method for line in own if sum(other.method == line.method for other in own) > 1}
        panels[of] = {
            ".".join(methods[line.method][shared:]) + (f", {line.sampler}" if line.method in several else ""): line
            for line in own
        }
    return panels


def _shared(names: Sequence[Sequence[str]]) -> int:
    """How many leading parts all names share, the last part excepted."""
    most = min(len(name) for name in names) - 1
    return next((n for n in range(most) if len({name[n] for name in names}) > 1), most)


def plot_speed_lines(lines: Sequence[Line], labels: Mapping[str, str], folder: Path, suffix: str) -> list[Path]:
    """Draw quality against tokens per call, a panel for each thing that was judged, and where cells were timed against
    tokens per second, one for each number of texts at once too; returns the files."""
    from sumi_core.evaluation.speed_plot import plot_speed, timed_panels

    panels = speed_panels(lines, labels)
    points = {of: {name: line.points for name, line in own.items()} for of, own in panels.items()}
    written = [plot_speed(points, folder / f"speed{suffix}", "Quality against tokens per call")]
    timed: dict[str, dict[str, pd.DataFrame]] = {}
    for of, own in panels.items():
        known = {name: line.times for name, line in own.items() if len(line.times)}
        found = timed_panels({name: points[of][name] for name in known}, known)
        timed |= {f"{of}, {batch}" if len(panels) > 1 else batch: lines for batch, lines in found.items()}
    if timed:
        title = "Quality against time" if len(panels) > 1 else f"{next(iter(panels))}, against time"
        written.append(plot_speed(timed, folder / f"speed_times{suffix}", title, "tokens_per_second"))
    return written


def speed_rows(lines: Sequence[Line]) -> list[dict[str, str]]:
    """A row for each line: the area, and quality, cost and time at the steps of the highest quality."""
    rows = []
    for line in lines:
        known = line.points[line.points["quality"].notna()]
        if known.empty:
            continue
        best = max(known.to_dict("records"), key=lambda point: point["quality"])
        row = {
            "cell": line.method,
            "of": line.of,
            "sampler": line.sampler,
            "AUP": "–" if line.aup is None else with_error(line.aup.value, line.aup.stderr, digits=1),
            "best": with_error(float(best["quality"]), float(best["quality_stderr"])),
            "at calls": f"{best['calls']:.1f}",
            "tokens per call": f"{best['tokens_per_call']:.2f}",
            "slots per token": f"{best['slots_per_token']:.1f}",
        }
        here = line.times[line.times["steps"] == best["steps"]]
        for batch, own in here.groupby("batch") if len(here) else ():
            speedup = f" ({own['speedup'].median():.2f} ×)" if "speedup" in own else ""
            row[f"tokens/s, {batch} at once"] = short_count(float(own["tokens_per_second"].median())) + speedup
        rows.append(row)
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name, "–") for name in columns} for row in rows]


def speed_notes(lines: Sequence[Line]) -> list[str]:
    """What the times were taken on, and what the columns mean."""
    found = [line.times for line in lines if len(line.times)]
    machines = dict.fromkeys(
        f"{row['machine']} with {row['threads']} threads"
        for table in found
        for row in table[["machine", "threads"]].drop_duplicates().to_dict("records")
    )
    taken = [f"times were taken on: {'; '.join(machines)}; (×): of the autoregressive reference."] if machines else []
    return [*taken, *SPEED_NOTES] if lines else []
