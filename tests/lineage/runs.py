"""Runs and outputs of the cells of a project."""

from __future__ import annotations

from mlflow.entities import Run

from sumi_core.experiments.sweeps import Cell
from sumi_core.lineage.project import Project
from sumi_core.stages.identity import experiment_fingerprints
from sumi_core.stages.store import Artifact


def run_of(project: Project, run_id: str) -> Run:
    return project.tracking.client.get_run(run_id)


def artifact_of(project: Project, cell: Cell, stage: str) -> Artifact:
    found = project.store.find(stage, experiment_fingerprints(cell.experiment)[stage])
    assert found is not None
    return found
