"""What `sumi doctor` says of runs in MLflow and Dagster that nobody computes any more."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from dagster import DagsterInstance, DagsterRunStatus, job, op
from dagster._core.events import EngineEventData

from pipelines.health import check_runs_of, check_slots, is_run_alive
from pipelines.instance import PROCESS_TAG, open_instance, process_tag
from pipelines.processes import still_runs
from sumi_core.lineage.artifact_checks import check_runs
from sumi_core.lineage.project import Project
from tests.pipelines.findings import FINGERPRINT, doctor, levels, repair

# --- MLflow's runs ----------------------------------------------------------------------------------------------------


def open_run(project: Project, fingerprint: str = FINGERPRINT, dagster_run: str = "") -> str:
    tracking = project.tracking
    stages = ("corpus", "tokenizer", "token_shards", "pretrained_denoiser", "exported_model", "evaluation")
    tags = {f"sumi.fingerprint.{stage}": fingerprint for stage in stages}
    run = tracking.client.create_run(
        tracking.experiment_id("demo"),
        tags={"sumi.kind": "cell", "sumi.cell": "demo.one", **tags, "dagster.run_id": dagster_run},
    )
    return str(run.info.run_id)


def test_a_run_that_nobody_computes_is_told_and_marked(project: Project) -> None:
    run_id = open_run(project)
    assert f"MLflow run {run_id} of demo.one says RUNNING" in levels(check_runs(project, lambda _: False))["warn"][0]
    with project.store.building("exported_model", FINGERPRINT):
        assert "warn" not in levels(check_runs(project, lambda _: False)), "a stage is being computed"
    assert "warn" not in levels(check_runs(project, lambda _: True)), "its Dagster run lives"
    repair(check_runs(project, lambda _: False))
    killed = project.tracking.client.get_run(run_id)
    assert killed.info.status == "KILLED"
    assert killed.data.tags["sumi.error"] == "its process is gone; `sumi run` continues it"
    assert levels(check_runs(project, lambda _: False)) == {"ok": ["1 MLflow runs, none left behind"]}


def test_figures_that_a_killed_process_did_not_record_are_added(project: Project) -> None:
    run_id = open_run(project)
    with project.store.building("evaluation", FINGERPRINT) as build:
        summary = {"bits_per_byte": 2.5, "yardsticks": {"xz": 3.0}}
        build.finish({"summary": summary, "inputs": {}, "provenance": {}})
    assert "lacks figures of a finished cell" in levels(check_runs(project, lambda _: False))["warn"][0]
    repair(check_runs(project, lambda _: False))
    run = project.tracking.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"bits_per_byte": 2.5}
    assert json.loads(run.data.tags["sumi.evaluation.constants"]) == {"evaluation/yardsticks.xz": 3.0}


# --- Dagster ----------------------------------------------------------------------------------------------------------


@op
def nothing() -> None:
    """Does nothing."""


@job
def empty() -> None:
    """A job for runs to belong to."""
    nothing()


@pytest.fixture
def instance(project: Project) -> Iterator[DagsterInstance]:
    with open_instance(project) as opened:
        yield opened


@pytest.fixture
def dead_process() -> psutil.Process:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = psutil.Process(child.pid)
    process.create_time()  # read while it lives, and kept
    child.kill()
    child.wait()
    return process


def start_run(instance: DagsterInstance, status: DagsterRunStatus, tags: dict[str, str]) -> str:
    return instance.create_run_for_job(empty, status=status, tags=tags).run_id


def test_runs_of_dead_processes_are_ended(instance: DagsterInstance, dead_process: psutil.Process) -> None:
    gone = {PROCESS_TAG: f"{socket.gethostname()} {dead_process.pid} {dead_process.create_time():.2f}"}
    dead = [start_run(instance, status, gone) for status in (DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING)]
    alive = start_run(instance, DagsterRunStatus.STARTED, process_tag())
    elsewhere = start_run(instance, DagsterRunStatus.STARTED, {PROCESS_TAG: "another-host 1 1.00"})
    told = levels(check_runs_of(instance))
    assert len(told["warn"]) == 2
    assert all(any(run_id in message for message in told["warn"]) for run_id in dead)
    assert [is_run_alive(instance, run_id) for run_id in (*dead, alive, elsewhere, "", "nobody")] == [
        *(False, False, True, True),
        *(False, False),
    ]
    repair(check_runs_of(instance))
    statuses = [instance.get_run_by_id(run_id).status for run_id in (*dead, alive)]  # type: ignore[union-attr]
    assert statuses == [DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED, DagsterRunStatus.STARTED]
    assert "warn" not in levels(check_runs_of(instance))


def test_a_process_that_nobody_waited_for_is_gone() -> None:
    """A container without an init keeps the dead as zombies: their ids and start times stay."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        started = psutil.Process(child.pid).create_time()
        assert still_runs(child.pid, started)
        assert not still_runs(child.pid, started - 60), "an earlier one under this id"
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and still there to be asked for
        assert psutil.pid_exists(child.pid)
        assert not still_runs(child.pid, started)


def test_runs_without_our_tag_are_judged_by_the_processes_their_events_name(
    instance: DagsterInstance, dead_process: psutil.Process
) -> None:
    """Runs that the web server or `dagster asset materialize` executes carry no tag of ours."""
    runs = {}
    for name, pid in (("dead", dead_process.pid), ("alive", os.getpid()), ("unknown", None)):
        run_id = start_run(instance, DagsterRunStatus.STARTED, {})
        run = instance.get_run_by_id(run_id)
        if pid is not None:
            instance.report_engine_event("Executing steps", run, EngineEventData.in_process(pid))
        runs[name] = run_id
    told = levels(check_runs_of(instance))["warn"]
    assert len(told) == 1
    assert runs["dead"] in told[0]


def test_leaked_pool_slots_are_freed(instance: DagsterInstance) -> None:
    storage = instance.event_log_storage
    storage.set_concurrency_slots("trainer", 1)
    ended = start_run(instance, DagsterRunStatus.FAILURE, {})
    running = start_run(instance, DagsterRunStatus.STARTED, process_tag())
    storage.claim_concurrency_slot("trainer", ended, "train")
    claim = storage.claim_concurrency_slot("trainer", running, "train")
    assert not claim.is_claimed
    assert levels(check_slots(instance))["warn"] == [f"run {ended} has ended but holds a slot of pool trainer"]
    repair(check_slots(instance))
    assert storage.get_concurrency_info("trainer").active_run_ids == set()
    assert storage.claim_concurrency_slot("trainer", running, "train").is_claimed
    assert "warn" not in levels(check_slots(instance))


def test_an_environment_file_that_overrides_dagsters_home_is_told(project: Project) -> None:
    (project.root / ".env").write_text("DAGSTER_HOME=/somewhere/else\n")
    status, output = doctor()
    assert status == 0
    assert "sets DAGSTER_HOME" in output
