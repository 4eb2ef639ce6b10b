"""A project whose databases are fresh."""

from __future__ import annotations

from pathlib import Path

import pytest

from sumi_core.lineage.project import Project
from tests.pipelines.homes import ADDRESSES, furnish


@pytest.fixture
def project(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An initialised project without anything computed."""
    for name in ADDRESSES:
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "project"
    (root / "experiments").mkdir(parents=True)
    monkeypatch.setenv("SUMI_PROJECT", str(root))
    monkeypatch.setenv("DAGSTER_HOME", str(root / ".sumi" / "dagster"))
    return furnish(root, tmp_path_factory)
