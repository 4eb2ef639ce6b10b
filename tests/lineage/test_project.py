"""A project on disk: found from anywhere inside it, and pointed elsewhere by environment variables."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sumi_core.base.options import ConfigError
from sumi_core.base.paths import sqlite_path
from sumi_core.lineage.project import Project


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "project"
    (made / "experiments" / "ablations").mkdir(parents=True)
    monkeypatch.chdir(made)
    return made.resolve()


def test_a_project_is_found_from_inside_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Project.find() == Project(root)
    monkeypatch.chdir(root / "experiments" / "ablations")
    assert Project.find() == Project(root)
    assert Project.find(root / "experiments") == Project(root)


def test_where_there_is_none_the_folder_itself_is_it(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert Project.find(tmp_path / "empty") == Project((tmp_path / "empty").resolve())


def test_the_environment_names_another(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUMI_PROJECT", str(tmp_path / "other"))
    assert Project.find() == Project((tmp_path / "other").resolve())
    assert Project.find(root) == Project(root)


@pytest.mark.parametrize("name", ["what?", "100%20", os.fsdecode(b"caf\xe9")])
def test_a_path_that_no_database_can_have_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name / "experiments").mkdir(parents=True)
    with pytest.raises(ConfigError, match="SQLite addresses cannot hold this path") as caught:
        Project.find(tmp_path / name)
    assert str(caught.value).encode()


def test_a_database_has_an_address_whatever_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / 'it\'s "odd" 100% #1 [x] *;é'
    (root / "experiments").mkdir(parents=True)
    monkeypatch.chdir(root)
    tracking = Project.find().tracking
    assert sqlite_path(tracking.uri) == root / ".sumi" / "mlflow.db"
    assert sqlite_path("https://example.org") is None
    (root / ".sumi").mkdir()
    tracking.initialise()
    run = tracking.client.create_run(tracking.experiment_id("demo"))
    (root / "a.txt").write_text("a")
    tracking.client.log_artifact(run.info.run_id, str(root / "a.txt"))
    files = sorted(path.name for path in root.rglob("*") if path.is_file())
    assert files == ["a.txt", "a.txt", "mlflow.db", "mlflow.lock"]


def test_everything_computed_lives_below_one_folder(root: Path) -> None:
    project = Project.find()
    home = root / ".sumi"
    assert project.home == home
    assert project.experiments == root / "experiments"
    assert project.dagster_home == home / "dagster"
    assert project.store.root == home / "store"
    assert project.tracking.uri == f"sqlite:///{home}/mlflow.db"
    assert project.tracking.artifacts == home / "mlartifacts"
    assert project.tracking.locks == home / "locks"
    assert not home.exists()  # looking creates nothing


def test_shared_servers_take_the_places_of_local_folders(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUMI_STORE", "shared/store")
    monkeypatch.setenv("DAGSTER_HOME", "shared/dagster")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    project = Project.find()
    assert project.store.root == root / "shared" / "store"  # absolute: manifests and tags record it
    assert project.dagster_home == root / "shared" / "dagster"
    assert (project.tracking.uri, project.tracking.artifacts) == ("http://mlflow.example:5000", None)


def test_sweeps_are_read_with_overrides(root: Path) -> None:
    (root / "experiments" / "one.yaml").write_text("seed: 3")
    (cell,) = Project.find().sweeps(["training.steps=2000"])["one"].cells
    assert (cell.experiment.seed, cell.experiment.training.steps) == (3, 2000)
