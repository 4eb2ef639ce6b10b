"""`sumi compare`: the table comes from MLflow, and says what is not there."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.commands.compare import shown_row
from sumi_core.lineage.comparison import comparison_table
from sumi_core.lineage.fingerprint import fingerprint
from sumi_core.project import Project
from sumi_core.stages import refresh_source_identities
from tests.lineage.fakes import DRIFT, cell_of, compute, fake_project, record
from tests.pipelines.homes import furnish


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """demo.s0 and demo.s1 are done, demo.s2 failed, demo.s3 was never asked for; the sweep has a report."""
    with pytest.MonkeyPatch.context() as patch:
        project = fake_project(tmp_path_factory.mktemp("compare") / "project", patch)
        furnish(project.root, tmp_path_factory)
        for key in ("demo.s0", "demo.s1"):
            record(project, compute(project, key))
        failed = project.tracking.open_cell(cell_of(project, "demo.s2"))
        project.tracking.close(failed, failed="TrainingDiverged: the loss is NaN at step 3\nand more")
        yield project


def rows_of(project: Project) -> dict[str, dict[str, object]]:
    return {str(row["name"]): row for row in comparison_table(project, project.sweeps()["demo"].cells)}


def report(project: Project, rows: list[dict[str, object]]) -> None:
    """Record a report of the sweep with these rows, as the asset does."""
    content = {"reference": "demo.s0", "rows": rows}
    with project.store.building("ablation_report", fingerprint(content)) as build:
        if build.artifact is None:
            (build.folder / "report.json").write_text(json.dumps(content))
            build.finish({"summary": {}, "inputs": {}, "key": "demo"})
    assert build.artifact is not None
    project.tracking.record_report("demo", build.artifact)


def test_every_cell_and_yardstick_has_a_row(project: Project) -> None:
    rows = comparison_table(project, project.sweeps()["demo"].cells)
    figures = [row["bits_per_byte"] for row in rows if row["bits_per_byte"] is not None]
    assert figures == sorted(figures)
    assert [row["kind"] for row in rows].count("yardstick") == 2, "equal for both cells, so told once each"
    assert [row["state"] for row in rows[-2:]] == ["failed", "missing"]
    by_name = rows_of(project)
    done = by_name["demo.s0"]
    own = project.store.find("evaluation", str(done["fingerprint"]))
    assert own is not None
    assert (done["state"], done["exact"], done["seed"]) == ("done", False, 0)
    assert done["bits_per_byte"] == own.summary["bits_per_byte"]
    assert done["stderr"] == 0.01
    assert (done["parameters"], done["train_tokens"], done["flops"], done["seconds"]) == (1000, 4096, 6e6, 1.0)
    assert (done["process"], done["objective"], done["schedule"]) == ("uniform", "nelbo", "linear")
    assert by_name["xz"]["bits_per_byte"] == 3.0
    assert by_name["demo.s2"]["why"] == "TrainingDiverged: the loss is NaN at step 3"
    assert by_name["demo.s3"]["why"] == "never computed"
    assert by_name["demo.s3"]["mlflow_run_id"] is None


def test_differences_are_those_of_the_report_while_it_is_of_these_figures(project: Project) -> None:
    now = {key: rows_of(project)[key]["bits_per_byte"] for key in ("demo.s0", "demo.s1")}
    rows: list[dict[str, object]] = [
        {"kind": "cell", "name": "demo.s0", "bits_per_byte": now["demo.s0"], "difference": None},
        {
            "kind": "cell",
            "name": "demo.s1",
            "bits_per_byte": now["demo.s1"],
            "difference": 0.5,
            "difference_stderr": 0.1,
        },
    ]
    report(project, rows)
    compared = rows_of(project)["demo.s1"]
    assert (compared["reference"], compared["difference"], compared["difference_stderr"]) == ("demo.s0", 0.5, 0.1)
    assert shown_row(compared)["to reference"] == "+0.500 ± 0.100"
    assert shown_row(rows_of(project)["demo.s0"])["to reference"] == "reference"
    report(project, [rows[0], {**rows[1], "bits_per_byte": 9.9}])
    assert rows_of(project)["demo.s1"]["difference"] is None, "the report is of other figures"


def test_figures_of_another_recipe_are_not_shown(project: Project) -> None:
    sweeps = project.sweeps(["training.steps=5"])
    rows = [row for row in comparison_table(project, sweeps["demo"].cells) if row["kind"] == "cell"]
    assert {row["name"]: row["state"] for row in rows} == {
        "demo.s0": "stale",
        "demo.s1": "stale",
        "demo.s2": "stale",
        "demo.s3": "missing",
    }
    assert all(row["bits_per_byte"] is None for row in rows)


def test_the_command_prints_and_writes_the_table(project: Project, tmp_path: Path) -> None:
    files = ["--csv", str(tmp_path / "table.csv"), "--json", str(tmp_path / "table.json")]
    result = CliRunner().invoke(app, ["compare", "demo", *files], catch_exceptions=False)
    assert result.exit_code == 0
    assert "≤ 2." in result.output
    assert "± 0.010" in result.output
    assert "[unigram]" in result.output
    assert "failed: TrainingDiverged: the loss is NaN" in result.output
    rows = json.loads((tmp_path / "table.json").read_text())
    assert [row["name"] for row in rows] == [row["name"] for row in csv.DictReader((tmp_path / "table.csv").open())]
    with (tmp_path / "table.csv").open() as file:
        first = next(row for row in csv.DictReader(file) if row["name"] == "demo.s0")
    assert first["axis.seed"] == "s0"
    assert float(first["bits_per_byte"]) == rows_of(project)["demo.s0"]["bits_per_byte"]


def test_a_table_that_cannot_be_written_is_told(project: Project, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["compare", "demo", "--csv", str(tmp_path / "no" / "table.csv")])
    assert "--csv: cannot write" in str(result.exception)


def test_a_look_creates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = fake_project(tmp_path / "fresh", monkeypatch)
    assert {row["state"] for row in comparison_table(project, project.sweeps()["demo"].cells)} == {"missing"}
    assert not project.home.exists()


def test_yardsticks_that_differ_name_their_cells(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells on other texts have yardsticks of their own."""
    import tests.lineage.fakes as fakes

    real = fakes.build_evaluation
    monkeypatch.setattr(fakes, "build_evaluation", lambda context: {**real(context), "yardsticks": {"xz": 2.9}})
    refresh_source_identities()
    DRIFT.clear()
    record(project, compute(project, "demo.s3"))
    names = {name for name, row in rows_of(project).items() if row["kind"] == "yardstick"}
    assert names == {"unigram", "xz (demo.s0, demo.s1)", "xz (demo.s3)"}
