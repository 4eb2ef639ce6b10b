"""A project that is moved or copied finds its artifacts in MLflow, and its copy leaves the original alone."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from sumi_core.lineage import mlflow_store
from sumi_core.lineage.project import Project
from tests.pipelines.homes import furnish


@pytest.fixture
def original(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a run that has an artifact; a place that is strange, but a place."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project = furnish(tmp_path / "a % strange 'place'", tmp_path_factory)
    client = project.tracking.client
    run = client.create_run(project.tracking.experiment_id("demo"))
    client.log_text(run.info.run_id, "here", "report/report.md")
    client.create_logged_model(run.info.experiment_id, name="model", source_run_id=run.info.run_id)
    client.create_experiment("by hand", artifact_location=(tmp_path / "elsewhere").as_uri())
    return project


def opened(project: Project, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """What opening it says, as by a new process."""
    monkeypatch.setattr(mlflow_store, "_initialised", set())
    _artifact_repos_cache.clear()  # MLflow's own, by the run alone
    return project.tracking.initialise()


def addresses(project: Project) -> list[str]:
    with sqlite3.connect(project.home / "mlflow.db") as database:
        tables = {"experiments": "artifact_location", "runs": "artifact_uri", "logged_models": "artifact_location"}
        return [row[0] for table, column in tables.items() for row in database.execute(f"SELECT {column} FROM {table}")]


@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_artifacts_are_found_where_the_project_is(
    original: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: object
) -> None:
    assert opened(original, monkeypatch) is None
    before = addresses(original)
    there = Project(tmp_path / "new place")
    how(original.root, there.root)  # type: ignore[operator]
    told = opened(there, monkeypatch)
    assert told is not None
    assert f"pointed to {original.home / 'mlartifacts'}, point to {there.home / 'mlartifacts'} now (" in told
    assert told.endswith("experiments, 1 runs)")
    assert opened(there, monkeypatch) is None, "it is said once"
    by_hand = (tmp_path / "elsewhere").as_uri()
    own = (there.home / "mlartifacts").as_uri()
    assert [a for a in addresses(there) if not a.startswith(f"{own}/")] == [by_hand], "an address that somebody chose"
    (experiment,) = (e for e in there.tracking.client.search_experiments() if e.name == "demo")
    (run,) = there.tracking.client.search_runs([experiment.experiment_id])
    assert [file.path for file in there.tracking.client.list_artifacts(run.info.run_id)] == ["report"]
    there.tracking.client.log_text(run.info.run_id, "new", "new.md")
    if original.home.exists():
        assert not list(original.home.rglob("new.md")), "a copy writes into itself"
        assert addresses(original) == before


def test_a_link_to_the_project_is_no_move(original: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = addresses(original)
    (tmp_path / "link").symlink_to(original.root)
    assert opened(Project(tmp_path / "link"), monkeypatch) is None
    assert addresses(original) == before
