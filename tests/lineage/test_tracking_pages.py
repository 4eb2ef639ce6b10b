"""MLflow as its readers meet it: sweeps and their reports, links, what was deleted there, what newcomers see."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs

from sumi_core.lineage.mlflow_store import NOTE
from sumi_core.lineage.project import Project
from sumi_core.stages.store import Artifact
from tests.lineage import fakes
from tests.lineage.fakes import cell_of, compute, record
from tests.lineage.runs import run_of

# --- reports, links, what was deleted ---------------------------------------------------------------------------------


def test_a_report_hangs_on_the_sweeps_run_once(project: Project, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.md").write_text("# demo")
    report = Artifact("ablation_report", "0" * 16, tmp_path / "report", {"summary": {}})
    tracking = project.tracking
    sweep = project.sweeps()["demo"]
    assert not tracking.has_report(sweep, report)
    assert tracking.known_experiment("demo") is None, "asking creates nothing"
    run_id = tracking.record_report(sweep, report)
    assert run_id == tracking.open_sweep("demo") == tracking.record_report(sweep, report)
    assert tracking.has_report(sweep, report)
    assert [file.path for file in tracking.client.list_artifacts(run_id, "report")] == ["report/report.md"]


def test_the_report_of_a_sweep_is_found_with_its_files_and_what_it_says(project: Project, tmp_path: Path) -> None:
    for number, said in enumerate(("a is best", "b is best")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "report.html").write_text(f"<html>{said}</html>")
        report = Artifact("ablation_report", str(number) * 16, folder, {"summary": {"findings": said}})
        run = run_of(project, project.tracking.record_report(project.sweeps()["demo"], report))
        assert run.data.tags["sumi.findings"] == said
        assert run.data.tags["mlflow.note.content"] == project.sweeps()["demo"].description
        assert run.data.tags["sumi.kind"] == "sweep"
        kept = project.tracking.client.download_artifacts(run.info.run_id, "report/report.html", str(tmp_path))
        assert Path(kept).read_text() == f"<html>{said}</html>"


def test_the_link_that_compares_runs_names_those_of_the_current_recipes(project: Project) -> None:
    tracking, cells = project.tracking, project.sweeps()["demo"].cells
    assert tracking.comparison_url(cells) is None
    ids = [tracking.open_cell(cell) for cell in cells[:2]]
    tracking.open_cell(cell_of(project, "demo.s0", ["training.steps=5"]))
    link = tracking.comparison_url(cells)
    assert link is not None
    page, query = link.removeprefix(f"{tracking.ui}/#/").split("?")
    parts = parse_qs(query)
    assert parts.pop("workflowType") == ["machine_learning"]
    asked = {name: json.loads(value[0]) for name, value in parts.items()}
    assert (page, asked) == ("compare-runs", {"runs": ids, "experiments": [tracking.experiment_id("demo")]})


def test_an_experiment_deleted_in_the_ui_comes_back(project: Project) -> None:
    tracking = project.tracking
    made = tracking.experiment_id("demo")
    tracking.client.delete_experiment(made)
    assert tracking.experiment_id("demo") == made
    assert tracking.client.get_experiment(made).lifecycle_stage == "active"


def test_a_run_deleted_in_the_ui_is_made_anew(project: Project) -> None:
    tracking, cell = project.tracking, cell_of(project, "demo.s0")
    first = tracking.open_cell(cell)
    tracking.client.delete_run(first)
    assert tracking.find_cell(cell) is None
    assert tracking.open_cell(cell) != first


# --- what was computed with changes -----------------------------------------------------------------------------------


def test_what_was_changed_is_on_no_page_of_the_plain_cell(project: Project) -> None:
    """Even where only the evaluation is another one, and the model is the same."""
    tracking = project.tracking
    plain = record(project, compute(project, "demo.s0"))
    before = run_of(project, plain)
    fakes.DRIFT["bits_per_byte"] = -0.5
    changed = compute(project, "demo.s0", overrides=["evaluation.samples=3"])
    fakes.DRIFT.clear()
    assert tracking.find_cell(changed) is None
    run = run_of(project, record(project, changed))
    after = run_of(project, plain)
    assert (after.data.metrics, after.data.tags, after.info) == (before.data.metrics, before.data.tags, before.info)
    assert run.info.experiment_id == before.info.experiment_id, "side by side in one experiment"
    assert run.info.run_name == run.data.tags["sumi.cell"] == "demo.s0[evaluation.samples=3]"
    parent = run_of(project, run.data.tags["mlflow.parentRunId"])
    assert parent.info.run_name == "demo[evaluation.samples=3] (sweep)"
    assert parent.info.run_id != before.data.tags["mlflow.parentRunId"]


# --- as newcomers meet it ---------------------------------------------------------------------------------------------


def test_a_fresh_store_has_no_empty_default_experiment_and_sweeps_say_what_they_ask(project: Project) -> None:
    project.tracking.open_cell(cell_of(project, "demo.s0"), "four seeds")
    experiments = project.tracking.client.search_experiments()
    assert [(own.name, own.tags["mlflow.note.content"]) for own in experiments] == [("demo", "four seeds")]


def test_every_link_leaves_the_mode_for_language_model_applications(project: Project) -> None:
    run_id = project.tracking.open_cell(cell_of(project, "demo.s0"))
    experiment = project.tracking.known_experiment("demo")
    page = f"/#/experiments/{experiment}/runs/{run_id}?workflowType=machine_learning"
    assert project.tracking.run_url(run_id) == project.tracking.ui + page
    assert "/assets/evaluation?view=partitions&partition=demo.s0)" in run_of(project, run_id).data.tags[NOTE]


def test_addresses_in_mlflow_are_built_in_one_place() -> None:
    root = Path(__file__).parents[2]
    files = [path for folder in ("sumi_core", "assets", "pipelines") for path in (root / folder).rglob("*.py")]
    assert [path.name for path in files if "/#/" in path.read_text()] == ["links.py"]


def test_a_sweeps_run_has_the_best_figure_and_the_time_from_first_to_last(project: Project, tmp_path: Path) -> None:
    sweep, client = project.sweeps()["demo"], project.tracking.client
    runs = [run_of(project, record(project, compute(project, f"demo.s{seed}"))) for seed in range(2)]
    (tmp_path / "report").mkdir()
    summary = {"best_bits_per_byte": 2.25, "best_bits_per_byte_stderr": 0.5, "evaluated": 2}
    parent = run_of(
        project,
        project.tracking.record_report(
            sweep, Artifact("ablation_report", "0" * 16, tmp_path / "report", {"summary": summary})
        ),
    )
    assert parent.data.metrics == {
        "bits_per_byte": 2.25,
        "bits_per_byte_stderr": 0.5,
        "cells_evaluated": 2,
        "training_seconds": 2.0,
    }
    assert parent.info.end_time == max(run.info.end_time for run in runs)
    found = client.search_runs([parent.info.experiment_id], "metrics.bits_per_byte < 9 and tags.`sumi.kind` = 'cell'")
    assert {run.info.run_id for run in found} == {run.info.run_id for run in runs}


def test_a_comparison_of_runs_has_one_name_for_each_param_and_none_for_what_a_cell_lacks(
    project: Project, tmp_path: Path
) -> None:
    file = project.experiments / "demo.yaml"
    axes = "axes: {method: {a: {}, b: {process: null, objective: autoregressive, model.attention: causal}}}\n"
    file.write_text(file.read_text().partition("axes:")[0] + axes)
    (tmp_path / "report").mkdir()
    sweep = project.sweeps()["demo"]
    ids = [project.tracking.open_cell(cell) for cell in sweep.cells]
    project.tracking.record_report(sweep, Artifact("ablation_report", "0" * 16, tmp_path / "report", {"summary": {}}))
    assert "objective.weighting" not in run_of(project, ids[1]).data.params, (
        "params of an unfinished cell are still to come"
    )
    for cell in sweep.cells:
        record(project, compute(project, cell.key))
    project.tracking.record_report(sweep, Artifact("ablation_report", "1" * 16, tmp_path / "report", {"summary": {}}))
    a, b = (run_of(project, run_id).data.params for run_id in ids)
    assert a.keys() == b.keys()
    assert {key: b[key] for key in ("axis.method", "clock.name", "process.name", "objective.weighting")} == {
        "axis.method": "b",
        "clock.name": "none",
        "process.name": "none",
        "objective.weighting": "none",
    }
    assert "clock" not in a


def test_cells_of_a_sweep_whose_run_was_deleted_belong_to_the_new_one(project: Project) -> None:
    kept = project.tracking.open_cell(cell_of(project, "demo.s0"))
    gone = run_of(project, kept).data.tags["mlflow.parentRunId"]
    project.tracking.client.delete_run(gone)
    project.tracking.open_cell(cell_of(project, "demo.s1"))
    parent = run_of(project, kept).data.tags["mlflow.parentRunId"]
    assert parent != gone
    found = run_of(project, parent)
    assert found.info.lifecycle_stage == "active"
    assert found.info.start_time == run_of(project, kept).info.start_time, "a sweep lasts from its first cell"
