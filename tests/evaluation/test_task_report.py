"""Structured tasks in the report of a sweep: means over seeds by network calls, in the page and in a study."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from sumi_core.reports.from_store import ReportCell, SweepComparison, compare_cells, folder_of
from sumi_core.reports.pages import report_markdown
from sumi_core.reports.report import build_ablation_report
from sumi_core.reports.study import study_markdown
from sumi_core.reports.tasks import task_rows
from tests.evaluation.test_report import report_cell

#: By method and seed: form, steps, calls, accuracy.
MEASURED = {
    ("diffusion", 0): [("generation", 1, 1.0, 0.2), ("generation", 8, 8.0, 0.7), ("infilling", 8, 8.0, 0.9)],
    ("diffusion", 1): [("generation", 1, 1.0, 0.4), ("generation", 8, 8.0, 0.5), ("infilling", 8, 8.0, 0.9)],
    ("ar", 0): [("generation", 20, 8.0, 1.0), ("infilling", 20, 7.5, 0.4)],
    ("ar", 1): [("generation", 20, 8.0, 1.0), ("infilling", 20, 7.5, 0.3)],
}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[ReportCell]:
    folder, found = tmp_path_factory.mktemp("evaluations"), []
    for (method, seed), rows in MEASURED.items():
        cell = report_cell(folder, method, 0.1, seed, trained=seed)
        table = pd.DataFrame(rows, columns=["form", "steps", "calls", "accuracy"]).assign(
            accuracy_stderr=0.03, validity=1.0
        )
        table.to_parquet(folder_of(cell) / "task_accuracy.parquet")
        assert cell.evaluation is not None
        cell.evaluation.manifest["summary"]["tasks"] = {"task": "copy"}
        found.append(cell)
    return [*found, report_cell(folder, "unmeasured", trained=0)]


@pytest.fixture(scope="module")
def comparison(cells: list[ReportCell]) -> SweepComparison:
    return compare_cells("sweep", "", cells)


def test_a_row_is_a_method_and_form_and_a_column_a_number_of_calls(comparison: SweepComparison) -> None:
    rows = {(row["cell"], row["form"]): row for row in task_rows(comparison)}
    assert list(next(iter(rows.values()))) == ["cell", "task", "form", "1 call", "8 calls", "other numbers of calls"]
    error = math.hypot(0.03, 0.1)  # |a − b| / 2 is s / √2
    own = rows["sweep.diffusion", "generation"]
    assert (own["1 call"], own["8 calls"]) == (f"0.300 ± {error:.3f} (1.00)", f"0.600 ± {error:.3f} (1.00)")
    assert rows["sweep.ar", "generation"]["8 calls"] == "1.000 ± 0.030 (1.00)"
    assert rows["sweep.ar", "generation"]["1 call"] == "–"
    assert rows["sweep.ar", "infilling"]["other numbers of calls"] == "0.350 ± 0.058 (1.00; 7.5 calls)"


def test_the_page_and_the_study_have_the_table(
    comparison: SweepComparison, cells: list[ReportCell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sumi_core.reports.report.write_plots", lambda *_: [])
    assert "## Tasks\n" in report_markdown(comparison, [])
    build_ablation_report(comparison.question, cells, tmp_path)
    study = study_markdown(tmp_path)
    assert "### Tasks\n" in study
    assert "0.350 ± 0.058 (1.00; 7.5 calls)" in study
    assert "whose answer the task's checker accepts" in study
