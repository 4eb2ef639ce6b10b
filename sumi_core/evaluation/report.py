"""The comparison of a sweep: every cell side by side, ranked as far as the evidence goes, among honest yardsticks.

report.md       the page: table, ranking, samples, what every figure means
report.txt      its table and samples for a terminal or a log
report.json     all of it as data
table.csv, table.parquet   one row a cell or yardstick
plots/          bits per byte, bound by noise level, loss against tokens, sample metrics against steps
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sumi_core.evaluation.comparison_pages import report_markdown, report_text
from sumi_core.evaluation.comparison_table import (
    ReportCell,
    SweepComparison,
    compare_cells,
    folder_of,
    tied_with_best,
)

__all__ = ["ReportCell", "build_ablation_report"]


def build_ablation_report(
    name: str, description: str, cells: Sequence[ReportCell], folder: Path, reference: str | None = None
) -> dict[str, Any]:
    """Compare the cells of sweep ``name`` and write the report into ``folder``; returns its summary.

    reference: the cell that differences are taken to; without it, or where it has no figures, the best cell.
    A cell without an evaluation is listed with its state and the reason; a sweep without any is a valid report.
    """
    comparison = compare_cells(name, description, cells, reference)
    _write_tables(comparison, folder)
    plots = _write_plots(comparison, folder / "plots")
    (folder / "report.md").write_text(report_markdown(comparison, plots), encoding="utf-8")
    (folder / "report.txt").write_text(report_text(comparison), encoding="utf-8")
    evaluated = [row for row in comparison.cell_rows if row.bits_per_byte is not None]
    summary: dict[str, Any] = {"cells": len(cells), "evaluated": len(evaluated)}
    if evaluated:
        best = evaluated[0]
        summary |= {
            "best": best.name,
            "best_bits_per_byte": best.bits_per_byte,
            "best_bits_per_byte_stderr": best.stderr,
            "tied_with_best": tied_with_best(comparison),
            "bits_per_byte": {row.name: row.bits_per_byte for row in evaluated},
        }
    return summary


def _write_tables(comparison: SweepComparison, folder: Path) -> None:
    import pandas as pd

    data = {"sweep": comparison.name, "description": comparison.description, **comparison.to_dict()}
    (folder / "report.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "table.csv").write_text(comparison.to_csv(), encoding="utf-8")
    pd.DataFrame([row.flat() for row in comparison.rows]).to_parquet(folder / "table.parquet", index=False)


def _write_plots(comparison: SweepComparison, folder: Path) -> list[Path]:
    from sumi_core.evaluation import plots

    if not comparison.cells:
        return []
    import pandas as pd

    labels = {key: key.removeprefix(f"{comparison.name}.") for key in comparison.cells}
    colour = {key: index for index, key in enumerate(labels)}
    bars = [
        plots.Bar(
            labels.get(row.name, row.name),
            row.bits_per_byte,
            math.nan if row.stderr is None else row.stderr,
            row.sign,
            colour.get(row.name),
        )
        for row in comparison.rows
        if row.bits_per_byte is not None
    ]
    written = [plots.plot_comparison(bars, folder / "bits_per_byte.png", f"{comparison.name}: bits per byte")]
    curves, histories, quality = {}, {}, []
    for key, cell in comparison.cells.items():
        curve = folder_of(cell) / "loss_by_level.parquet"
        curves[labels[key]] = pd.read_parquet(curve) if curve.is_file() else pd.DataFrame()
        history = cell.pretrained_denoiser.folder / "history.parquet" if cell.pretrained_denoiser else None
        histories[labels[key]] = pd.read_parquet(history) if history and history.is_file() else pd.DataFrame()
        metrics = pd.read_parquet(folder_of(cell) / "metrics.parquet")
        quality.append(metrics[metrics["group"].isin(["samples", "validation"])].assign(cell=labels[key]))
    if any(not curve.empty for curve in curves.values()):
        written.append(plots.plot_loss_by_level(curves, folder / "loss_by_level.png", "Bound by noise level"))
    if any(not history.empty for history in histories.values()):
        written.append(plots.plot_loss_history(histories, folder / "loss_history.png", "Loss against tokens"))
    described = pd.concat(quality, ignore_index=True)
    if not described.empty:
        written.append(plots.plot_quality_against_steps(described, folder / "sample_quality.png", "Samples"))
    return written
