"""`sumi lineage`: the command around the trace, and the walk from an MLflow run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from sumi_core.lineage.project import Project
from sumi_core.lineage.targets import LineageError, find_target
from sumi_core.lineage.trace import trace
from sumi_core.stages.identity import experiment_fingerprints
from tests.lineage.fakes import cell_of, compute, fake_project, record
from tests.pipelines.homes import furnish


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with pytest.MonkeyPatch.context() as patch:
        project = fake_project(tmp_path_factory.mktemp("lineage") / "project", patch)
        furnish(project.root, tmp_path_factory)
        record(project, compute(project, "demo.s0"))
        yield project


def lineage(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["lineage", *arguments], catch_exceptions=False)
    return result.exit_code, result.output


def run_of(project: Project) -> str:
    run = project.tracking.find_cell(cell_of(project, "demo.s0"))
    assert run is not None
    return str(run.info.run_id)


def test_a_run_leads_to_its_cell(project: Project) -> None:
    run_id = run_of(project)
    traced = trace(project, run_id)
    assert traced.target.key == "demo.s0"
    assert traced.target.fingerprints == find_target(project, "demo.s0").fingerprints
    assert {stage.state for stage in traced.stages} == {"whole"}
    experiment = project.tracking.experiment_id("demo")
    assert (
        traced.mlflow_url
        == f"http://127.0.0.1:5000/#/experiments/{experiment}/runs/{run_id}?workflowType=machine_learning"
    )
    status, output = lineage(run_id)
    assert status == 0
    assert f"`sumi dev`, then {traced.mlflow_url}" in " ".join(output.split())


def test_an_mlflow_that_is_broken_or_gone_hides_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = run_of(project)
    other = project.root / "other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}")
    assert trace(project, "demo.s0").mlflow_run_id is None, "it was computed without a run"
    folder = project.store.folder("evaluation", find_target(project, "demo.s0").fingerprints["evaluation"])
    manifest = folder / "manifest.json"
    before = manifest.read_text()
    try:
        manifest.write_text(before.replace('"provenance": {', f'"provenance": {{"mlflow_run_id": "{run_id}",', 1))
        assert f"run {run_id}, but there is no MLflow store here" in " ".join(lineage("demo.s0")[1].split())
        other.write_text("this is no database" * 100)
        status, output = lineage("demo.s0")
        assert status == 0
        assert "cannot be looked up; `sumi doctor` looks over the databases" in " ".join(output.split())
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        manifest.write_text(before.replace('"provenance": {', f'"provenance": {{"mlflow_run_id": "{"f" * 32}",', 1))
        assert f"run {'f' * 32} of {project.tracking.uri} is no longer there" in " ".join(lineage("demo.s0")[1].split())
    finally:
        manifest.write_text(before)


def test_a_name_comes_first_and_alone(project: Project) -> None:
    for arguments in (["demo.s0", "demo.s1"], ["training.steps=3", "demo.s0"]):
        result = CliRunner().invoke(app, ["lineage", *arguments])
        told = f"command line: {arguments[1]}: expected key=value; write one name, and after it what to change"
        assert str(result.exception) == told


def test_json_is_the_whole_record(project: Project) -> None:
    status, output = lineage("demo.s0", "--json")
    plain = json.loads(output)
    assert status == 0
    assert plain["stages"]["evaluation"]["summary"]["yardsticks"] == {"unigram": 4.5, "xz": 3.0}
    assert plain["experiment"]["training"]["steps"] == 4


def test_a_cell_with_changes_is_named_as_it_was_asked_for(project: Project) -> None:
    status, output = lineage("demo.s0", "runtime.threads=2", "--json")
    assert status == 0
    assert json.loads(output)["key"] == "demo.s0", "nothing that a fingerprint knows was changed"
    cell = compute(project, "demo.s1", overrides=["training.steps=3"])
    status, output = lineage("demo.s1", "training.steps=3")
    assert status == 0
    assert output.startswith("demo.s1[training.steps=3]  (cell demo.s1)\n")
    status, named = lineage("demo.s1[training.steps=3]")
    assert (status, named) == (0, output.replace("(cell demo.s1)", "(cell demo.s1[training.steps=3])"))
    assert f"evaluation  {experiment_fingerprints(cell.experiment)['evaluation']}  whole" in output
    with pytest.raises(LineageError, match=r"not computed with training.steps=2; run `sumi run demo.s1 training.st"):
        find_target(project, "demo.s1", ["training.steps=2"])


def test_runs_that_are_no_cell_are_told(project: Project) -> None:
    with pytest.raises(LineageError, match="is that of the sweep 'demo'; name one of its cells"):
        find_target(project, project.tracking.open_sweep("demo"))
    with pytest.raises(LineageError, match=f"has no run {'b' * 32}"):
        find_target(project, "b" * 32)
    foreign = project.tracking.client.create_run(project.tracking.experiment_id("demo"))
    with pytest.raises(LineageError, match=r"carries no sumi\.fingerprint"):
        find_target(project, foreign.info.run_id)


def test_damage_gives_status_1(project: Project) -> None:
    folder = project.store.folder(
        "tokenizer", experiment_fingerprints(cell_of(project, "demo.s0").experiment)["tokenizer"]
    )
    damaged = folder / "tokenizer.json"
    content = damaged.read_text()
    damaged.write_text("[]")
    try:
        status, output = lineage("demo.s0")
        assert status == 1
        assert f"{damaged} differs from its recorded SHA-256" in " ".join(output.split())
        assert lineage("demo.s0", "--no-verify")[0] == 0
    finally:
        Path(damaged).write_text(content)


def test_a_sweep_shows_where_the_records_of_its_cells_are(project: Project) -> None:
    status, output = lineage("demo")
    assert status == 0
    told = output.splitlines()
    assert told[0].startswith(f"demo.s0  evaluation {find_target(project, 'demo.s0').fingerprints['evaluation']}")
    assert any(line.split() == ["seed", "0"] for line in told)
    assert "demo.s3  not computed" in told
    assert told[-1] == "`sumi lineage demo.s0` shows the whole record of one"
    plain = json.loads(lineage("demo", "--json")[1])
    assert plain["demo.s0"]["key"] == "demo.s0"
    assert "is not computed" in plain["demo.s3"]


def test_the_short_run_id_of_dagsters_pages_is_enough(project: Project) -> None:
    runs = ["5e0f1a2b-0000-4000-8000-000000000001", "5e0f1a2b-0000-4000-8000-000000000002"]
    compute(project, "demo.s0", overrides=["training.steps=5"], dagster_run_id=runs[0])
    assert find_target(project, "5e0f1a2b").fingerprints == find_target(project, runs[0]).fingerprints
    compute(project, "demo.s0", overrides=["training.steps=6"], dagster_run_id=runs[1])
    with pytest.raises(LineageError, match=f"2 Dagster runs begin with 5e0f1a2b; name one of {', '.join(runs)}"):
        find_target(project, "5e0f1a2b")
