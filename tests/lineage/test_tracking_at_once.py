"""MLflow written by several processes and threads at once."""

from __future__ import annotations

import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from sumi_core.lineage.project import Project
from tests.lineage.fakes import cell_of, compute, fake_project, fake_stages, record
from tests.lineage.runs import artifact_of, run_of


def test_cells_that_share_data_record_it_one_after_another(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow looks for a data set, then adds it: two at once would add it twice, which its database refuses."""
    cells = [compute(project, f"demo.s{seed}") for seed in (0, 1)]
    runs = [project.tracking.open_cell(cell) for cell in cells]
    corpora = [artifact_of(project, cell, "corpus") for cell in cells]
    assert corpora[0].fingerprint == corpora[1].fingerprint
    inside, log_inputs = threading.Lock(), MlflowClient.log_inputs

    def alone(*arguments: Any, **named: Any) -> None:
        assert inside.acquire(blocking=False), "another run is being given its data"
        try:
            time.sleep(0.2)  # the other thread comes now
            log_inputs(*arguments, **named)
        finally:
            inside.release()

    monkeypatch.setattr(MlflowClient, "log_inputs", alone)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(Project(project.root).tracking.record_stage, runs, corpora))
    for run_id in runs:
        assert [item.dataset.name for item in run_of(project, run_id).inputs.dataset_inputs] == ["corpus"]


def _open_a_cell(root: Path, told: SimpleQueue[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fake_stages(patch)
        patch.chdir(root)
        project = Project(root)
        told.put(project.tracking.open_cell(cell_of(project, "demo.s0")))


def test_a_fresh_database_that_four_processes_touch_at_once_is_sound_and_holds_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the lock the four would create the same tables, and break the database for good."""
    project = fake_project(tmp_path / "project", monkeypatch)
    processes = multiprocessing.get_context("forkserver")
    slow_to_import = [
        "mlflow.store.tracking.sqlalchemy_store",
        "sumi_core.corruption.uniform",
        "sumi_core.objectives.nelbo",
    ]
    processes.set_forkserver_preload([__name__, *slow_to_import])  # once for the four
    told = processes.SimpleQueue()
    started = [processes.Process(target=_open_a_cell, args=(project.root, told)) for _ in range(4)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, 0, 0, 0]
    (run_id,) = {told.get() for _ in started}
    assert [run.info.run_id for run in project.tracking.cell_runs(["demo"])] == [run_id]
    compute(project, "demo.s0")
    assert record(project, cell_of(project, "demo.s0")) == run_id
