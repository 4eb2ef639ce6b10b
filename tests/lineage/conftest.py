"""An empty store, and a project whose MLflow database is there already."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sumi_core.lineage.project import Project
from sumi_core.lineage.tracking import Tracking
from sumi_core.stages.store import Store
from tests.lineage.fakes import fake_project


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("database")
    Tracking(f"sqlite:///{folder}/mlflow.db", folder / "artifacts", folder / "locks").initialise()
    return folder / "mlflow.db"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> Project:
    made = fake_project(tmp_path / "project", monkeypatch)
    made.home.mkdir()
    shutil.copy(empty_database, made.home / "mlflow.db")
    return made
