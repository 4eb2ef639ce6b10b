"""A real cell of the smallest kind: a few texts, byte tokens, one layer, four steps. Computed once a session."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from sumi_core.experiments.sweeps import Cell
from sumi_core.lineage.project import Project
from sumi_core.stages.computation import Computation
from sumi_core.trainer.request import Request
from sumi_core.trainer.run import train

EXPERIMENT = """\
description: the smallest real cell
corpus: {source: {name: text, paths: ["texts/*.txt"], licence: public domain}, validation_fraction: 0.3}
tokenizer: byte
shards: {sequence_length: 32}
model: {hidden_size: 16, intermediate_size: 24, num_layers: 1, num_heads: 2, num_kv_heads: 1}
training: {steps: 4, batch_size: 4, warmup_steps: 1, validate_every: 2, validation_sequences: 4}
evaluation: {sequences: 4, times_per_sequence: 2, sampling_steps: [2, 4], samples: 2}
runtime: {device: cpu, threads: 1, data_workers: 1, log_every: 1, checkpoint_every: 2}
axes:
  method:
    uniform: {process: uniform}
    left: {process: null, objective: autoregressive, model.attention: causal}
"""


def tiny_project(factory: pytest.TempPathFactory) -> Project:
    """The project with ``tiny.uniform`` computed; the same folder for every module of a session."""
    root = factory.getbasetemp() / "tiny"
    project = Project(root)
    if root.exists():
        return project
    (root / "experiments").mkdir(parents=True)
    (root / "experiments" / "tiny.yaml").write_text(EXPERIMENT)
    write_texts(root)
    with pytest.MonkeyPatch.context() as patch:
        enter(project, patch)
        compute(project, "tiny.uniform")
    return project


def write_texts(root: Path) -> None:
    """The corpus: twelve short files."""
    (root / "texts").mkdir()
    for number in range(12):
        verse = f"{number}: and the evening and the morning were the day number {number} of the making.\n"
        (root / "texts" / f"{number}.txt").write_text(verse * 6)


def enter(project: Project, patch: pytest.MonkeyPatch) -> None:
    """Make it the current project."""
    for name in ("DAGSTER_HOME", "MLFLOW_TRACKING_URI", "SUMI_STORE"):
        patch.setenv(name, "")  # so that what the commands set in this process is undone with the patch
        patch.delenv(name)
    patch.chdir(project.root)
    patch.setenv("SUMI_PROJECT", str(project.root))
    patch.setenv("OMP_NUM_THREADS", "1")


def compute(project: Project, key: str, overrides: Iterable[str] = ()) -> Cell:
    """Every stage of a cell, for real."""
    cell = next(cell for cell in project.sweeps(overrides)["tiny"].cells if cell.plain == key)
    Computation(project.store, launcher=Here(), log=lambda line: None).ensure_all(cell.experiment, key)
    return cell


class Here:
    """Trains in this process, which has imported everything already."""

    def run(self, request: Path) -> None:
        train(Request.read(request))


def sample(*arguments: str) -> tuple[str, str]:
    """Standard output and standard error of `sumi sample`."""
    result = CliRunner().invoke(app, ["sample", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def texts(stdout: str) -> list[str]:
    """The texts that `sumi sample` printed."""
    return stdout.split("--- ")[1:]
