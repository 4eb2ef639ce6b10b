"""The comparison of a sweep: every method side by side, ranked as far as the evidence goes, among honest yardsticks.

report.md       the page: the question, what was found, how sure it is, how to reproduce it, what every figure means
report.html     the same page with its plots in it; needs no other file
report.txt      its table and samples for a terminal or a log
report.json     all of it as data; a study is written from it (``sumi_core.reports.study``)
table.csv, table.parquet   one row a method, cell or yardstick
columns.csv     what each of their columns is
plots/          bits per byte, differences, bound by noise level, loss against tokens, sample metrics against steps,
                quality against tokens per call, generative frontiers
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.base.files import json_text
from sumi_core.base.tables import read_table
from sumi_core.reports.definitions import column_definitions
from sumi_core.reports.findings import certainty, findings
from sumi_core.reports.from_store import Question, ReportCell, SweepComparison, compare_cells, folder_of
from sumi_core.reports.frontier import frontiers_of
from sumi_core.reports.pages import report_html, report_markdown, report_text
from sumi_core.reports.sections import measured_sections
from sumi_core.reports.speed import plot_speed_lines, speed_lines
from sumi_core.reports.table import tied_with_best

if TYPE_CHECKING:
    import pandas as pd


def build_ablation_report(question: Question, cells: Sequence[ReportCell], folder: Path) -> dict[str, Any]:
    """Compare the cells of a sweep and write the report into ``folder``; returns its summary.

    A cell without an evaluation is listed with its state and the reason; a sweep without any is a valid report.
    """
    comparison = compare_cells(question.name, question.description, cells, question=question)
    plots = write_plots(comparison, folder / "plots")
    _write_tables(comparison, folder, plots)
    (folder / "report.md").write_text(report_markdown(comparison, plots), encoding="utf-8")
    (folder / "report.html").write_text(report_html(comparison, plots), encoding="utf-8")
    (folder / "report.txt").write_text(report_text(comparison), encoding="utf-8")
    methods = [row for row in comparison.method_rows if row.bits_per_byte is not None]
    summary: dict[str, Any] = {"cells": len(cells), "evaluated": len(comparison.cells)}
    if methods:
        best = methods[0]
        summary |= {
            "best": best.name,
            "best_bits_per_byte": best.bits_per_byte,
            "best_bits_per_byte_stderr": best.stderr,
            "best_seeds": best.seeds,
            "reference": comparison.reference,
            **({"tied_with_best": tied_with_best(comparison)} if best.rank is not None else {}),
            "bits_per_byte": {row.name: row.bits_per_byte for row in methods},
            "findings": " ".join(findings(comparison)),
        }
    return summary


def _write_tables(comparison: SweepComparison, folder: Path, plots: Sequence[Path]) -> None:
    import pandas as pd

    data = {
        "question": asdict(comparison.question),
        "commits": comparison.commits,
        "findings": findings(comparison),
        "certainty": certainty(comparison),
        "plots": [path.name for path in plots],
        "sections": [asdict(section) for section in measured_sections(comparison)],
        **comparison.to_dict(),
    }
    (folder / "report.json").write_text(json_text(data) + "\n", encoding="utf-8")
    (folder / "table.csv").write_text(comparison.to_csv(), encoding="utf-8")
    table = pd.DataFrame([row.flat() for row in comparison.rows])
    table.to_parquet(folder / "table.parquet", index=False)
    with (folder / "columns.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("column", "meaning"), *column_definitions(table.columns)])


def write_plots(comparison: SweepComparison, folder: Path, suffix: str = ".png") -> list[Path]:
    """Write the plots of a comparison; returns their files. suffix: ``.png``, ``.svg`` or ``.pdf``."""
    from sumi_core.evaluation import plots

    if not comparison.cells:
        return []
    named = {(own.cell.sweep, own.cell.change) for own in comparison.cells.values()}
    sweep, change = named.pop() if len(named) == 1 else ("", "")  # what all share is in the title
    labels = {name: name.removesuffix(change).removeprefix(f"{sweep}.") for name in comparison.members}
    colour = {name: index for index, name in enumerate(labels)}
    bars = [
        plots.Bar(
            labels.get(row.name, row.name),
            row.bits_per_byte,
            math.nan if row.stderr is None else row.stderr,
            row.sign,
            colour.get(row.name),
            tuple(c.bits_per_byte for c in comparison.cell_rows if c.group == row.name and c.bits_per_byte is not None),
        )
        for row in comparison.rows
        if row.bits_per_byte is not None and row.group is None
    ]
    written = [plots.plot_comparison(bars, folder / f"bits_per_byte{suffix}", f"{comparison.name}: bits per byte")]
    gaps = [
        plots.Gap(
            labels[row.name],
            row.difference,
            row.difference if row.difference_low_95 is None else row.difference_low_95,
            row.difference if row.difference_high_95 is None else row.difference_high_95,
            row.significant,
            colour[row.name],
        )
        for row in comparison.method_rows
        if row.difference is not None
    ]
    if gaps and comparison.reference:
        title, reference = f"{comparison.name}: differences", labels[comparison.reference]
        written.append(plots.plot_differences(gaps, folder / f"differences{suffix}", title, reference))
    curves = {labels[name]: _level_curve(frames) for name, frames in _frames(comparison, _curve_of).items()}
    if any(not curve.empty for curve in curves.values()):
        written.append(plots.plot_loss_by_level(curves, folder / f"loss_by_level{suffix}", "Bound by noise level"))
    histories = {labels[name]: _history(frames) for name, frames in _frames(comparison, _history_of).items()}
    if any(not history.empty for history in histories.values()):
        written.append(plots.plot_loss_history(histories, folder / f"loss_history{suffix}", "Loss against tokens"))
    described = _quality({labels[name]: frames for name, frames in _frames(comparison, _metrics_of).items()})
    if not described.empty:
        written.append(plots.plot_quality_against_steps(described, folder / f"sample_quality{suffix}", "Samples"))
    if lines := speed_lines(comparison):
        written += plot_speed_lines(lines, labels, folder, suffix)
    if frontiers := {labels[name]: table for name, table in frontiers_of(comparison).items()}:
        from sumi_core.evaluation.frontier_plot import plot_frontier

        written.append(plot_frontier(frontiers, folder / f"frontier{suffix}", "Generative frontiers"))
    return written


# --- the files of a method's cells, averaged over its seeds ---------------------------------------------------------


def _frames(comparison: SweepComparison, path: Callable[[ReportCell], Path | None]) -> dict[str, list[pd.DataFrame]]:
    """A file of each cell, where it has it, by method."""
    found: dict[str, list[pd.DataFrame]] = {}
    for name, keys in comparison.members.items():
        paths = [path(comparison.cells[key]) for key in keys]
        found[name] = [read_table(file) for file in paths if file is not None and file.is_file()]
    return found


def _curve_of(cell: ReportCell) -> Path:
    return folder_of(cell) / "loss_by_level.parquet"


def _metrics_of(cell: ReportCell) -> Path:
    return folder_of(cell) / "metrics.parquet"


def _history_of(cell: ReportCell) -> Path | None:
    return cell.pretrained_denoiser.folder / "history.parquet" if cell.pretrained_denoiser else None


def _over_seeds(frames: Sequence[pd.DataFrame], keys: list[str], values: list[str]) -> pd.DataFrame:
    """Means of ``values`` where ``keys`` agree, with their standard errors over seeds as ``<value>_error``."""
    import pandas as pd

    grouped = pd.concat(frames, ignore_index=True).groupby(keys, sort=True)[values]
    errors = grouped.sem().rename(columns={name: f"{name}_error" for name in values})
    return pd.concat([grouped.mean(), errors], axis=1).reset_index()


def _level_curve(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    if len(frames) < 2:
        return frames[0] if frames else pd.DataFrame()
    values = ["bits_per_byte", "noise", "per_alpha", "per_t", "per_alpha_stderr", "per_t_stderr"]
    mean = _over_seeds(frames, ["low", "high"], values)
    # Both errors, as for the figures of the table: documents that are hard for one seed are hard for all.
    mean["per_alpha_error"] = np.hypot(mean["per_alpha_error"], mean["per_alpha_stderr"])
    documents = mean["bits_per_byte"] * mean["per_t_stderr"] / mean["per_t"]
    mean["bits_per_byte_error"] = np.hypot(mean["bits_per_byte_error"], documents)
    return mean


def _history(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    if len(frames) < 2:
        return frames[0] if frames else pd.DataFrame()
    return _over_seeds(frames, ["step", "tokens", "name"], ["value"]).rename(columns={"value_error": "error"})


def _quality(frames: dict[str, list[pd.DataFrame]]) -> pd.DataFrame:
    """Sample metrics by method. Seeds share the noise that samples are drawn with: the error over samples is not in
    that over seeds, and is added to it."""
    import numpy as np
    import pandas as pd

    found = []
    for name, seeds in frames.items():
        kept = [frame[frame["group"].isin(["samples", "validation"])] for frame in seeds]
        if len(kept) > 1:
            mean = _over_seeds(kept, ["group", "steps", "name"], ["value", "stderr"])
            mean["stderr"] = np.hypot(mean["value_error"], mean["stderr"])
            kept = [mean]
        found += [frame.assign(cell=name) for frame in kept]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()
