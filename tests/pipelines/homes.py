"""Initialised project homes: creating two databases takes seconds, copying them none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.instance import initialise
from sumi_core.lineage.project import Project

ADDRESSES = ("DAGSTER_HOME", "MLFLOW_TRACKING_URI", "SUMI_STORE", "SUMI_MLFLOW_UI")  # they point at real work


def furnish(root: Path, factory: pytest.TempPathFactory) -> Project:
    """Give the project at ``root`` what `sumi init` creates, made once a session."""
    template = factory.getbasetemp() / "initialised"
    if not template.exists():
        with pytest.MonkeyPatch.context() as patch:
            for name in ADDRESSES:
                patch.delenv(name, raising=False)
            patch.setenv("DAGSTER_HOME", str(template / ".sumi" / "dagster"))  # put back to what it was at the end
            initialise(Project(template))
    shutil.copytree(template / ".sumi", root / ".sumi")
    return Project(root)
