"""Speed against quality in the report of a sweep: means over seeds, a panel for each thing judged, the best of all."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sumi_core.evaluation import plots
from sumi_core.evaluation.parallelism import accuracy_under_parallelism
from sumi_core.reports.from_store import ReportCell, SweepComparison, compare_cells, folder_of
from sumi_core.reports.pages import report_markdown
from sumi_core.reports.report import write_plots
from sumi_core.reports.speed import POINTS, TIMES, speed_lines, speed_notes, speed_panels, speed_rows
from tests.evaluation.test_report import report_cell

Points = list[tuple[float, float]]
MEASURED: dict[tuple[str, int], dict[str, Points]] = {
    ("diffusion", 0): {"ancestral": [(1, 0.7), (4, 0.6)], "first_hitting": [(1, 0.5)]},
    ("diffusion", 1): {"ancestral": [(1, 0.6), (4, 0.5)], "first_hitting": [(1, 0.6)]},
    ("ar", 0): {"left_to_right": [(1, 0.8)]},
    ("ar", 1): {"left_to_right": [(1, 0.9)]},
}


def table(lines: dict[str, Points]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [
        {
            "sampler": sampler,
            "steps": int(8 / rho),
            "texts": 10,
            "calls": 8 / rho,
            "tokens_per_call": rho,
            "slots_per_token": 2.0,
            "quality": y,
            "quality_stderr": 0.03,
            "title": "accuracy",
            "of": "copy",
            "share": True,
            "token_by_token": sampler == "left_to_right",
            "reference": float("nan"),
        }
        for sampler, points in lines.items()
        for rho, y in points
    ]
    return pd.DataFrame(rows)


def times(lines: dict[str, Points], seed: int) -> pd.DataFrame:
    rows = [
        {"sampler": sampler, "steps": int(8 / rho), "batch": 32, "tokens_per_second": 1000.0 * (1 + 2 * seed),
         "speedup": 0.5, "threads": 1, "machine": "a machine"}
        for sampler, points in lines.items()
        for rho, _ in points
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> SweepComparison:
    folder = tmp_path_factory.mktemp("evaluations")
    cells: list[ReportCell] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("plot_comparison", "plot_loss_by_level", "plot_quality_against_steps"):
            patch.setattr(plots, name, lambda *_: None)
        for (method, seed), lines in MEASURED.items():
            own = report_cell(folder, method, 0.1, seed, trained=seed)
            table(lines).to_parquet(folder_of(own) / POINTS)
            times(lines, seed).to_parquet(folder_of(own) / TIMES)
            cells.append(own)
        cells.append(report_cell(folder, "unmeasured", 0.1, 7, trained=0))
    return compare_cells("sweep", "", cells)


def test_lines_are_means_over_seeds_with_both_errors(comparison: SweepComparison) -> None:
    lines = {(line.method, line.sampler): line for line in speed_lines(comparison)}
    assert set(lines) == {
        ("sweep.diffusion", "ancestral"),
        ("sweep.diffusion", "first_hitting"),
        ("sweep.ar", "left_to_right"),
    }
    own = lines["sweep.diffusion", "ancestral"].points
    assert own["quality"].to_list() == pytest.approx([0.65, 0.55])
    spread = 0.05  # of 0.7 and 0.6: |a − b| / 2 is s / √2
    assert own["quality_stderr"].to_list() == pytest.approx([math.hypot(0.03, spread)] * 2)
    assert own["tokens_per_call"].to_list() == [1, 4]


def test_areas_are_of_each_seed_under_the_best_accuracy_of_all_methods(comparison: SweepComparison) -> None:
    lines = {line.sampler: line for line in speed_lines(comparison)}
    best = 0.85  # the mean of the autoregressive seeds
    areas = [
        accuracy_under_parallelism(MEASURED["diffusion", seed]["ancestral"], best) for seed in (0, 1)
    ]  # its second point is 10 points below the first and counts for nothing
    assert areas == pytest.approx([70, 60])
    found = lines["ancestral"].aup
    assert found is not None
    assert found.value == pytest.approx(65)
    assert found.stderr == pytest.approx(5)
    assert lines["left_to_right"].aup == pytest.approx((85, 5))


def test_a_panel_names_its_lines_without_what_all_share(comparison: SweepComparison) -> None:
    lines = speed_lines(comparison)
    labels = {"sweep.diffusion": "copy.diffusion", "sweep.ar": "copy.ar"}
    panels = speed_panels(lines, labels)
    assert list(panels) == ["accuracy of copy"]
    assert set(panels["accuracy of copy"]) == {"diffusion, ancestral", "diffusion, first_hitting", "ar"}
    assert [bool(own.points["token_by_token"].all()) for own in panels["accuracy of copy"].values()].count(True) == 1


def test_rows_show_the_steps_of_the_highest_quality_and_the_times_there(comparison: SweepComparison) -> None:
    lines = speed_lines(comparison)
    rows = {(row["cell"], row["sampler"]): row for row in speed_rows(lines)}
    own = rows["sweep.diffusion", "ancestral"]
    assert own["best"] == "0.650 ± 0.058"
    assert (own["AUP"], own["at calls"], own["tokens per call"]) == ("65.0 ± 5.0", "8.0", "1.00")
    assert own["tokens/s, 32 at once"] == "2 k (0.50 ×)"
    assert speed_notes(lines)[0].startswith("times were taken on: a machine with 1 threads")


def test_the_page_and_the_plot_have_them(comparison: SweepComparison, tmp_path: Path) -> None:
    files = write_plots(comparison, tmp_path)
    assert "speed.png" in [file.name for file in files]
    page = report_markdown(comparison, files)
    assert "## Speed against quality" in page
    assert "[speed](plots/speed.png)" in page
    assert "[speed_times](plots/speed_times.png)" in page
    assert "2601.07568" in page
