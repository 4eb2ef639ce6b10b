"""MAUVE in the report of a sweep: means over seeds, and validation text once for each number of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sumi_core.reports.from_store import ReportCell, SweepComparison, compare_cells
from sumi_core.reports.mauve import mauve_rows
from sumi_core.reports.pages import report_markdown
from tests.evaluation.test_report import report_cell

VALIDATION = {"mauve": 0.97, "mauve_stderr": 0.01}
MEASURED: dict[tuple[str, int], dict[str, Any]] = {
    ("several", 0): {"texts": 256, "steps_8": 0.5, "steps_32": 0.7},
    ("several", 1): {"texts": 256, "steps_8": 0.3, "steps_32": 0.9},
    ("alone", 0): {"texts": 100, "steps_8": 0.25},
}


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> SweepComparison:
    folder = tmp_path_factory.mktemp("evaluations")
    cells: list[ReportCell] = [report_cell(folder, "unmeasured", trained=0)]
    for (method, seed), found in MEASURED.items():
        cell = report_cell(folder, method, 0.1, seed, trained=seed)
        steps = {
            name: {"mauve": value, "mauve_stderr": 0.02} for name, value in found.items() if name.startswith("steps_")
        }
        assert cell.evaluation is not None
        cell.evaluation.manifest["summary"]["mauve"] = {
            "texts": found["texts"],
            "packages": {},
            "validation": VALIDATION,
            **steps,
        }
        cells.append(cell)
    return compare_cells("sweep", "", cells)


def test_rows_are_means_over_seeds_and_end_with_validation_text(comparison: SweepComparison) -> None:
    rows = [tuple(row.values()) for row in mauve_rows(comparison)]
    assert [row for row in rows if row[0] == "sweep.several"] == [
        ("sweep.several", "8", "0.400 ± 0.100", "256", "2"),  # |a − b| / 2 is s / √2
        ("sweep.several", "32", "0.800 ± 0.100", "256", "2"),
    ]
    assert ("sweep.alone.s0", "8", "0.250 ± 0.020", "100", "1") in rows, "one seed: the deviation over clusterings"
    assert rows[-2:] == [
        ("[validation text]", "–", "0.970 ± 0.010", "100", "–"),
        ("[validation text]", "–", "0.970 ± 0.010", "256", "–"),
    ]


def test_the_page_has_the_table_and_says_what_it_means(comparison: SweepComparison) -> None:
    page = report_markdown(comparison, [])
    assert "## MAUVE" in page
    assert "only figures of one N compare" in page


def test_a_page_without_the_measurement_says_nothing_of_it(tmp_path: Path) -> None:
    page = report_markdown(compare_cells("sweep", "", [report_cell(tmp_path, "alone")]), [])
    assert "MAUVE" not in page
    assert "mauve" not in page
