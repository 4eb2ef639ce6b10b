"""Dagster's instance of a project: created once under a lock, and cleared of what dead processes left running."""

from __future__ import annotations

import os
import socket
import sys

import psutil
from dagster import DagsterInstance

from pipelines.processes import still_runs
from sumi_core.base.files import made_folder, write_atomically
from sumi_core.base.locks import locked
from sumi_core.lineage.project import Project

TRAINER_POOL = "trainer"  # a training holds a slot of it
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
        made_folder(home)
        if not (home / "dagster.yaml").exists():
            write_atomically(home / "dagster.yaml", _DAGSTER_YAML)
        os.environ["DAGSTER_HOME"] = str(home)
        instance = DagsterInstance.from_config(str(home))
        instance.get_runs_count()  # creates the databases
        events = instance.event_log_storage
        if events.supports_global_concurrency_limits and TRAINER_POOL not in events.get_concurrency_keys():
            # The daemon does so itself, but lets everything pass that it finds waiting when it first hears of a pool.
            events.initialize_concurrency_limit_to_default(TRAINER_POOL)
    return instance


def process_tag() -> dict[str, str]:
    """The tag of this process on the runs it executes, so that a later process can check whether it is alive."""
    started = psutil.Process().create_time()
    return {PROCESS_TAG: f"{socket.gethostname()} {os.getpid()} {started:.2f}"}


def is_dead(tag: str) -> bool:
    """Whether the process a tag names, on this host, is gone."""
    host, pid, started = tag.split(" ")
    return host == socket.gethostname() and not still_runs(int(pid), float(started))


def initialise(project: Project) -> None:
    """Create what is missing below ``.sumi/``: Dagster's instance, MLflow's database, the artifact store. Says so where
    addresses of an earlier place of the project are corrected."""
    for folder in (project.home, project.store.root, project.home / "locks"):
        made_folder(folder)
    if moved := project.tracking.initialise():
        print(f"sumi: {moved}", file=sys.stderr, flush=True)
    open_instance(project)
