"""Dagster's instance of a project: created once under a lock, and cleared of what dead processes left running."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import psutil
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.storage.dagster_run import RunsFilter

from sumi_core.lineage.store import locked, write_atomically
from sumi_core.project import Project

PROCESS_TAG = "sumi/process"  # host, pid and start time of the process that executes a run itself

_DAGSTER_YAML = """\
# Written by `sumi init`; yours to edit.
telemetry: {enabled: false}
nux: {enabled: false}
run_monitoring: {enabled: true}
concurrency:
  pools: {granularity: run, default_limit: 1}   # pool "trainer": how many runs the daemon lets train at once
"""


def open_instance(project: Project) -> DagsterInstance:
    """The project's instance. The first to touch a fresh one does so alone: several at once corrupt it for good."""
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    home = project.dagster_home
    with locked(project.home / "locks" / "dagster.lock"):
        home.mkdir(parents=True, exist_ok=True)
        if not (home / "dagster.yaml").exists():
            write_atomically(home / "dagster.yaml", _DAGSTER_YAML)
        os.environ["DAGSTER_HOME"] = str(home)
        instance = DagsterInstance.from_config(str(home))
        instance.get_runs_count()  # creates the databases
    return instance


def process_tag() -> dict[str, str]:
    """Names this process on the runs it executes, so that a later one can tell whether it still lives."""
    started = psutil.Process().create_time()
    return {PROCESS_TAG: f"{socket.gethostname()} {os.getpid()} {started:.2f}"}


def is_dead(tag: str) -> bool:
    """Whether the process a tag names, on this host, is gone."""
    host, pid, started = tag.split(" ")
    if host != socket.gethostname():
        return False
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(started)) > 1.0
    except psutil.NoSuchProcess:
        return True


def abandoned_runs(instance: DagsterInstance) -> list[str]:
    """Ids of runs that count as running although the process that executed them is gone."""
    unfinished = instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.STARTING]))
    return [run.run_id for run in unfinished if PROCESS_TAG in run.tags and is_dead(run.tags[PROCESS_TAG])]


def repair_abandoned_runs(instance: DagsterInstance) -> list[str]:
    """Mark abandoned runs failed and free the pool slots they hold; returns their ids."""
    repaired = abandoned_runs(instance)
    for run_id in repaired:
        run = instance.get_run_by_id(run_id)
        if run is not None:
            instance.report_run_failed(run, "the process that executed this run was killed")
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    return repaired


def initialise(project: Project) -> None:
    """Everything below ``.sumi/``: Dagster's instance, MLflow's database, the artifact store."""
    for folder in (project.home, project.store.root, project.home / "locks"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    project.tracking.initialise()
    open_instance(project)
