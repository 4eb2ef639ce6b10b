"""Commands that read write nothing: no file, no MLflow experiment, no lock; nor where nothing is."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from sumi_core.lineage.project import Project
from sumi_core.stages.identity import refresh_source_identities
from tests.lineage.fakes import compute, fake_project, record
from tests.pipelines.homes import ADDRESSES

READING = (
    ["list"],
    ["list", "demo", "training.steps=5"],
    ["plan", "demo"],
    ["plan", "demo.s0[training.steps=5]"],
    ["compare", "demo"],
    ["compare", "demo.s0[training.steps=5]"],
    ["lineage", "demo.s0"],
    ["lineage", "demo.s0[training.steps=5]"],
    ["doctor"],
    ["explain", "training.steps"],
    ["schema"],
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in ADDRESSES:
        monkeypatch.delenv(name, raising=False)
    return fake_project(tmp_path / "project", monkeypatch)


def contents(root: Path) -> dict[str, tuple[str, int]]:
    """Every file and folder, with its content's digest and the time of its last change."""
    found = {}
    for path in sorted(root.rglob("*")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        found[str(path.relative_to(root))] = digest, os.stat(path).st_mtime_ns
    return found


def ask(arguments: list[str]) -> None:
    refresh_source_identities()
    CliRunner().invoke(app, arguments)


def test_reading_commands_leave_an_empty_project_as_it_is(project: Project) -> None:
    before = contents(project.root)
    for arguments in READING:
        ask(arguments)
        assert contents(project.root) == before, arguments


def test_reading_commands_leave_a_computed_project_as_it_is(project: Project) -> None:
    record(project, compute(project, "demo.s0"))
    client = project.tracking.client
    record(project, compute(project, "demo.s0", overrides=["training.steps=5"]))
    compared = CliRunner().invoke(app, ["compare", "demo.s0", "demo.s0[training.steps=5]"]).stdout
    assert "demo.s0[training.steps=5]  ≤ " in compared
    assert compared.count("≤ 2.") >= 2, "both, side by side"
    client.delete_experiment(project.tracking.experiment_id("demo"))  # in the web interface: it is not to come back
    before = contents(project.root)
    for arguments in READING:
        ask(arguments)
        assert contents(project.root) == before, arguments
    assert client.get_experiment_by_name("demo").lifecycle_stage == "deleted"
