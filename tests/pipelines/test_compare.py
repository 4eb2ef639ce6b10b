"""`sumi compare`: the figures come from MLflow, the states from the plan, and what is not there is said."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from sumi_core.lineage.plan import plan
from sumi_core.lineage.project import Project
from sumi_core.reports.artifact import compare_sweep, report_cells
from sumi_core.reports.differences import CellLikelihood, SeedGroup, all_differences
from sumi_core.reports.from_mlflow import compare_tracked
from sumi_core.reports.from_store import compare_cells
from sumi_core.reports.row import Row
from sumi_core.stages.computation import Computation
from sumi_core.stages.identity import refresh_source_identities, stage_fingerprint
from tests.lineage.fakes import DRIFT, cell_of, compute, fake_project, record
from tests.lineage.test_reporting import METHODS, SEEDS, leave_samples
from tests.pipelines.homes import furnish

REASON = "TrainingDiverged: the loss is NaN at step 3; " + "lower training.learning_rate, " * 12 + "and run again"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """demo.s0 and demo.s1 are done, demo.s2 failed, demo.s3 was never asked for; each is a method of its own."""
    with pytest.MonkeyPatch.context() as patch:
        project = fake_project(tmp_path_factory.mktemp("compare") / "project", patch)
        furnish(project.root, tmp_path_factory)
        file = project.experiments / "demo.yaml"
        methods = ", ".join(f"s{seed}: {{seed: {seed}}}" for seed in range(4))
        file.write_text(file.read_text().replace("axes: {seed: [0, 1, 2, 3]}", f"axes: {{method: {{{methods}}}}}"))
        for key in ("demo.s0", "demo.s1"):
            record(project, compute(project, key))
        failed = cell_of(project, "demo.s2")
        own = stage_fingerprint(failed.experiment, "pretrained_denoiser")
        project.store.record_failure("pretrained_denoiser", own, failed.key, REASON)
        project.tracking.close(project.tracking.open_cell(failed), failed=REASON)
        yield project


def rows_of(project: Project, *overrides: str) -> dict[str, Row]:
    return {row.name: row for row in compare_tracked(project, project.sweeps(overrides)["demo"].cells).rows}


def compare(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["compare", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_every_cell_and_yardstick_has_a_row(project: Project) -> None:
    rows = compare_tracked(project, project.sweeps()["demo"].cells).rows
    figures = [row.bits_per_byte for row in rows if row.bits_per_byte is not None]
    assert figures == sorted(figures)
    assert [row.kind for row in rows].count("yardstick") == 2, "equal for both cells, so told once each"
    assert [row.state for row in rows[-2:]] == ["failed", "missing"]
    by_name = rows_of(project)
    done = by_name["demo.s0"]
    own = project.store.find("evaluation", str(done.fingerprint))
    assert own is not None
    assert (done.state, done.exact, done.reading, done.seed) == ("done", False, "diffusion", 0)
    assert done.bits_per_byte == own.summary["bits_per_byte"]
    assert done.stderr == 0.01
    assert (done.parameters, done.tokens_seen, done.flops, done.seconds) == (1000, 4096, 6e6, 1.0)
    assert (done.process, done.objective, done.schedule) == ("uniform", "nelbo", "linear")
    assert by_name["xz"].bits_per_byte == 3.0
    assert by_name["demo.s3"].mlflow_run_id is None


def test_it_says_what_list_says_of_every_state(project: Project) -> None:
    for overrides in ([], ["training.steps=5"]):
        plans = plan(project.sweeps(overrides)["demo"].cells, project.store)
        rows = rows_of(project, *overrides)
        assert {p.cell.key: p.state for p in plans} == {p.cell.key: rows[p.cell.key].state for p in plans}
        assert all(rows[p.cell.key].why == p.why for p in plans if p.state != "done")
    assert rows["demo.s0[training.steps=5]"].state == "missing"
    with project.store.building("evaluation", str(rows_of(project)["demo.s2"].fingerprint)):
        assert rows_of(project)["demo.s2"].state == "running"
    assert rows_of(project)["demo.s2"].state == "failed"


def test_figures_outlive_the_store_and_say_so(project: Project, tmp_path: Path) -> None:
    """Somebody else's store, or one that was cleaned: MLflow still has the figures, and the cell is not done here."""
    folder = project.store.folder("evaluation", str(rows_of(project)["demo.s1"].fingerprint))
    before = rows_of(project)["demo.s1"]
    shutil.move(folder, tmp_path / "away")
    try:
        row = rows_of(project)["demo.s1"]
        assert (row.state, row.bits_per_byte) == ("missing", before.bits_per_byte)
        assert row.difference is None
        assert "demo.s1 is missing: evaluation: never computed" in compare("demo")
    finally:
        shutil.move(tmp_path / "away", folder)


def test_figures_that_mlflow_lacks_are_told(project: Project) -> None:
    experiment = cell_of(project, "demo.s0", ["evaluation.samples=3"]).experiment
    Computation(project.store, log=lambda _: None).ensure_all(experiment, "demo.s0[evaluation.samples=3]")
    row = rows_of(project, "evaluation.samples=3")["demo.s0[evaluation.samples=3]"]
    assert (row.state, row.bits_per_byte) == ("done", None)
    assert row.why == "its figures are not in MLflow; `sumi run demo.s0 evaluation.samples=3` records them"


def test_differences_are_those_of_the_report(project: Project) -> None:
    """The same rows from MLflow as from the store, and the p-value that the definition gives."""
    sweep = project.sweeps()["demo"]
    tracked = compare_tracked(project, sweep.cells)
    reported = compare_cells("demo", "", report_cells(project.store, sweep.cells))
    assert tracked.reference == reported.reference
    assert tracked.to_dict()["standing"] == reported.to_dict()["standing"]
    for name, row in {row.name: row for row in reported.rows}.items():
        own = rows_of(project)[name]
        own.mlflow_run_id = None
        if row.bits_per_byte is not None:
            assert own == row
    artifacts = {key: rows_of(project)[key].fingerprint for key in ("demo.s0", "demo.s1")}
    likelihoods = {
        key: SeedGroup({0: CellLikelihood.load(project.store.folder("evaluation", str(own)) / "likelihood.parquet")})
        for key, own in artifacts.items()
    }
    [pair] = all_differences(likelihoods)
    [worse] = [row for row in tracked.cell_rows if row.difference is not None]
    assert worse.difference == pytest.approx(abs(pair.value))
    assert worse.difference is not None
    assert worse.difference > 0
    assert (worse.difference_stderr, worse.p_adjusted, worse.significant) == (pair.stderr, None, None)
    told = "Of these trained models, one seed each, demo."
    assert told in " ".join(compare("demo").split())


def test_cells_made_with_overrides_are_compared_under_their_names(project: Project) -> None:
    for key in ("demo.s0", "demo.s1"):
        record(project, compute(project, key, overrides=["training.learning_rate=0.5"]))
    output = compare("demo.s0", "demo.s1", "training.learning_rate=0.5")
    assert output.startswith("Changed on the command line: training.learning_rate=0.5\n")
    assert "≤ 2." in output
    assert "Of these trained models, one seed each, demo." in " ".join(output.split())
    assert "Changed on the command line" not in compare("demo")


def test_the_command_prints_and_writes_the_table(project: Project, tmp_path: Path) -> None:
    output = compare("demo", "--csv", str(tmp_path / "table.csv"), "--json", str(tmp_path / "table.json"))
    assert "≤ 2." in output
    assert "± 0.010" in output
    assert "[unigram]" in output
    assert f"demo.s2 is failed: pretrained_denoiser: {REASON}" in " ".join(output.split()), "the whole reason"
    assert max(map(len, output.splitlines())) <= 100
    written = json.loads((tmp_path / "table.json").read_text())
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in written["rows"]] == [row["name"] for row in rows]
    by_name = {row["name"]: row for row in rows}
    assert by_name["demo.s0"]["axis.method"] == "s0"
    assert float(by_name["demo.s0"]["bits_per_byte"]) == rows_of(project)["demo.s0"].bits_per_byte
    [worse] = [row for row in written["rows"] if row["difference"] is not None]
    assert float(by_name[worse["name"]]["difference"]) == worse["difference"] > 0
    assert written["standing"] in " ".join(output.split())
    assert written["differences"][0]["significant"] is None


def test_tables_and_plots_for_a_paper(project: Project, tmp_path: Path) -> None:
    written = compare("demo", "--latex", "-", "--plots", str(tmp_path / "plots"))
    assert written.startswith("\\begin{tabular}{l")
    assert "$\\leq 2." in written
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"bits_per_byte.svg", "bits_per_byte.pdf", "differences.svg"} <= names
    before = {path: path.read_bytes() for path in (tmp_path / "plots").iterdir()}
    compare("demo", "--plots", str(tmp_path / "plots"))
    assert {path: path.read_bytes() for path in before} == before, "the same figures give the same bytes"
    drawn = (tmp_path / "plots" / "bits_per_byte.svg").read_text(encoding="utf-8")
    assert "bits per byte of validation text" in drawn, "text stays text"


def test_a_table_that_cannot_be_written_is_told(project: Project, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["compare", "demo", "--csv", str(tmp_path / "no" / "table.csv")])
    assert "--csv: cannot write" in str(result.exception)
    assert "name a file in a folder that exists" in str(result.exception)


def test_a_look_creates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = fake_project(tmp_path / "fresh", monkeypatch)
    assert {row.state for row in rows_of(project).values()} == {"missing"}
    assert not project.home.exists()


def test_yardsticks_that_differ_name_their_cells(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells on other texts have yardsticks of their own."""
    import tests.lineage.fakes as fakes

    real = fakes.build_evaluation
    monkeypatch.setattr(fakes, "build_evaluation", lambda context: {**real(context), "yardsticks": {"xz": 2.9}})
    refresh_source_identities()
    DRIFT.clear()
    record(project, compute(project, "demo.s3"))
    names = {name for name, row in rows_of(project).items() if row.kind == "yardstick"}
    assert names == {"unigram", "xz (demo.s0, demo.s1)", "xz (demo.s3)"}


# --- several seeds --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Two methods with two seeds each, of which one is still to be computed; cold is the reference."""
    with pytest.MonkeyPatch.context() as patch:
        project = fake_project(tmp_path_factory.mktemp("seeded") / "project", patch)
        furnish(project.root, tmp_path_factory)
        leave_samples(patch)
        file = project.experiments / "demo.yaml"
        file.write_text(file.read_text().replace(SEEDS, "reference: cold\n" + METHODS))
        for key in ("demo.cold.s0", "demo.cold.s1", "demo.warm.s0"):
            record(project, compute(project, key))
        yield project


def test_seeds_are_one_row_and_differences_go_to_the_named_reference(seeded: Project) -> None:
    output = " ".join(compare("demo").split())
    assert "cell bits per byte seeds to demo.cold" in output
    assert re.search(r"demo\.warm ≤ 2\.\S+ ± \S+ 1 of 2", output)
    assert re.search(r"demo\.cold ≤ 2\.\S+ ± \S+ 2 reference", output)
    assert "In bits per byte, these trained models differ from demo.cold: demo.warm (" in output
    assert "demo.warm.s1 is missing: pretrained_denoiser: never computed" in output
    assert "No figures yet for 1 of 4 cells: demo.warm.s1 (missing)." in output
    rows = rows_of(seeded)
    sweep = seeded.sweeps()["demo"]
    reported = {row.name: row for row in compare_sweep(seeded.store, sweep).rows}
    told = {row.name: row for row in compare_tracked(seeded, sweep.cells, sweep.reference).rows}
    for name in ("demo.cold", "demo.warm"):
        assert told[name] == reported[name], "the same row from MLflow as from the store"
    assert rows["demo.cold"].stderr_seeds is not None


def test_a_reference_that_is_not_compared_is_not_missed(seeded: Project) -> None:
    output = compare("demo.warm.s0")
    assert "no figures" not in output
    assert "to demo.warm.s0" in output


def test_a_study_is_written_beside_its_plots(seeded: Project, tmp_path: Path) -> None:
    document = tmp_path / "warmth.md"
    compare("demo", "--study", str(document))
    text = document.read_text(encoding="utf-8")
    assert re.search(r"\| demo\.cold \| ≤ 2\.\S+ ± \S+ \| 2 \| reference", text)
    assert "```text\nsumi run demo\n```" in text
    assert "| axis method | cold, warm |" in text
    linked = set(re.findall(r"!\[[^]]*\]\(([^)]*)\)", text))
    assert linked == {f"warmth/demo/{path.name}" for path in (tmp_path / "warmth" / "demo").iterdir()}
    assert "warmth/demo/differences.png" in linked
    before = document.read_bytes()
    compare("demo", "--study", str(document))
    assert document.read_bytes() == before


@pytest.mark.parametrize(
    ("document", "sentence"),
    [("no/study.md", "name a file in a folder that exists"), ("hand.md", "has no part for demo; put the lines")],
)
def test_a_study_that_cannot_be_written_is_told(seeded: Project, tmp_path: Path, document: str, sentence: str) -> None:
    (tmp_path / "hand.md").write_text("# Mine\n")
    result = CliRunner().invoke(app, ["compare", "demo", "--study", str(tmp_path / document)])
    assert sentence in str(result.exception)
    assert (tmp_path / "hand.md").read_text() == "# Mine\n"


def test_plots_are_of_the_cells_that_are_named(seeded: Project, tmp_path: Path) -> None:
    text = (seeded.experiments / "demo.yaml").read_text()
    (seeded.experiments / "other.yaml").write_text(text)
    try:
        for number, names in enumerate((["demo.warm.s0", "demo.cold.s1"], ["demo.warm.s0", "other.cold.s1"], ["demo"])):
            folder, table = tmp_path / str(number), tmp_path / f"{number}.tex"
            compare(*names, "--plots", str(folder), "--latex", str(table))
            assert table.read_text().startswith("\\begin{tabular}")
            drawn = (folder / "bits_per_byte.svg").read_text(encoding="utf-8")
            labels = re.findall(r"<text[^>]*>([^<]*)</text>", drawn)
            own = [label for label in labels if "warm" in label or "cold" in label]
            assert (
                sorted(own)
                == [
                    ["cold.s1", "warm.s0"],
                    ["demo.warm.s0", "other.cold.s1"],
                    ["cold", "warm"],
                ][number]
            )
    finally:
        (seeded.experiments / "other.yaml").unlink()


def test_a_study_is_of_one_experiment(seeded: Project, tmp_path: Path) -> None:
    shutil.copy(seeded.experiments / "demo.yaml", seeded.experiments / "other.yaml")
    try:
        result = CliRunner().invoke(app, ["compare", "demo", "other", "--study", str(tmp_path / "study.md")])
        assert result.stdout == "", "it is refused before anything is printed"
        assert "--study: it is of one experiment, not of 2; name one" in str(result.exception)
    finally:
        (seeded.experiments / "other.yaml").unlink()
