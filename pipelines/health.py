"""Checks of Dagster's instance: its databases, runs whose process is gone, pool slots that no run holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES, RunsFilter
from dagster._core.storage.runs import SqliteRunStorage

from pipelines.instance import PROCESS_TAG, is_dead, open_instance
from pipelines.processes import still_runs
from sumi_core.base.files import is_writable
from sumi_core.lineage.checkup import Finding, check_sqlite
from sumi_core.lineage.project import Project

# Not QUEUED: the daemon starts those whenever it runs.
_IN_PROGRESS = [status for status in NOT_FINISHED_STATUSES if status != DagsterRunStatus.QUEUED]
_GONE = "the process that executed this run is gone"


def check_dagster(project: Project) -> Iterator[Finding]:
    """Check databases, runs and pool slots of the instance. Creates nothing where there is none yet."""
    home = project.dagster_home
    if not (home / "dagster.yaml").is_file():
        yield Finding(
            "info", "dagster", f"there is no instance in {home} yet", "`sumi init` creates it, and so does a run"
        )
        return
    databases, damaged = _databases(project)
    yield from damaged
    if any(finding.level == "bad" for finding in damaged):
        return
    yield Finding("ok", "dagster", f"{len(databases)} databases in {home} are intact")
    instance = open_if_intact(project)
    if instance is None:
        yield Finding("info", "dagster", f"runs were not checked: Dagster needs to write to {home}")
        return
    with instance:
        yield from check_runs_of(instance)
        yield from check_slots(instance)


def open_if_intact(project: Project) -> DagsterInstance | None:
    """The instance, or None where there is none, it cannot be written, or a database is damaged: opening that could
    make it worse."""
    exists = (project.dagster_home / "dagster.yaml").is_file()
    if not (exists and is_writable(project.dagster_home) and is_writable(project.home)):
        return None
    damaged = any(finding.level == "bad" for finding in _databases(project)[1])
    return None if damaged else open_instance(project)


def _databases(project: Project) -> tuple[list[Path], list[Finding]]:
    paths = sorted(project.dagster_home.rglob("*.db"))
    return paths, [finding for path in paths for finding in check_sqlite(path, "dagster")]


def check_environment_file(project: Project) -> Iterator[Finding]:
    """Dagster's tools read ``.env`` and let it override the shell."""
    path = project.root / ".env"
    if path.is_file() and "DAGSTER_HOME" in path.read_text(encoding="utf-8", errors="replace"):
        message = f"{path} sets DAGSTER_HOME, which Dagster prefers to the shell's value and to ours"
        yield Finding("warn", "dagster", message, "remove the line, or let both name one folder")


def check_runs_of(instance: DagsterInstance) -> Iterator[Finding]:
    """Report runs that count as running although no process executes them."""
    unfinished = instance.get_runs(RunsFilter(statuses=_IN_PROGRESS))
    dead = [run for run in unfinished if is_gone(instance, run)]
    for run in dead:
        what = (
            f"Dagster run {run.run_id} ({run.job_name} {run.tags.get('dagster/partition', '')}) says {run.status.value}"
        )
        remedy = f"{'`sumi run` or ' if PROCESS_TAG in run.tags else ''}`sumi doctor --fix` ends it"
        yield Finding("warn", "runs", f"{what}, but its process is gone", remedy, _ender(instance, run.run_id))
    if not dead:
        yield Finding("ok", "runs", f"{len(unfinished)} Dagster runs in progress, none left behind")


def end_abandoned(instance: DagsterInstance) -> None:
    """End the runs that dead processes left running and free their pool slots, so that nothing waits for them."""
    for finding in (*check_runs_of(instance), *check_slots(instance)):
        if finding.fix is not None:
            finding.fix()


def check_slots(instance: DagsterInstance) -> Iterator[Finding]:
    """Report pool slots that ended runs hold or wait for: later runs would wait for them for ever."""
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    leaked: dict[str, list[str]] = {}
    keys = sorted(storage.get_concurrency_keys())
    for key in keys:
        info = storage.get_concurrency_info(key)
        for run_id in {*info.active_run_ids, *info.pending_run_ids, *info.assigned_run_ids}:
            run = instance.get_run_by_id(run_id)
            if run is None or run.is_finished or is_gone(instance, run):
                leaked.setdefault(run_id, []).append(key)
    for run_id, pools in leaked.items():
        what = f"run {run_id} has ended but holds a slot of pool {', '.join(pools)}"
        remedy = "`sumi doctor --fix` frees it"
        yield Finding("warn", "pools", what, remedy, _freer(instance, run_id))
    if not leaked:
        told = (
            f"no run that has ended holds a slot of the pool {', '.join(keys)}"
            if keys
            else "no limits on runs at once yet"
        )
        yield Finding("ok", "pools", told)


def is_gone(instance: DagsterInstance, run: DagsterRun) -> bool:
    """Whether the processes that executed an unfinished run, as far as they are known, are all gone."""
    tag = run.tags.get(PROCESS_TAG)
    if tag is not None:
        return is_dead(tag)
    if not isinstance(instance.run_storage, SqliteRunStorage):
        return False  # an instance that machines share: a process id means nothing on another machine
    seen = _processes_of(instance, run.run_id)
    return bool(seen) and not any(still_runs(pid, moment) for pid, moment in seen)


def is_run_alive(instance: DagsterInstance, run_id: str) -> bool:
    """Whether a run is unfinished and not abandoned."""
    run = instance.get_run_by_id(run_id) if run_id else None
    return run is not None and not run.is_finished and not is_gone(instance, run)


def _processes_of(instance: DagsterInstance, run_id: str) -> list[tuple[int, float]]:
    """Process ids in a run's events, each with the time of the event."""
    found = []
    for entry in instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT):
        data = entry.dagster_event.event_specific_data if entry.dagster_event else None
        pid = getattr(data, "metadata", {}).get("pid")
        if pid is not None and str(pid.value).isdigit():
            found.append((int(str(pid.value)), entry.timestamp))
    return found


def _ender(instance: DagsterInstance, run_id: str) -> Callable[[], str]:
    def end() -> str:
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return f"run {run_id} has ended meanwhile"
        if run.status == DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, _GONE)
        else:
            instance.report_run_failed(run, _GONE)
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)
        return f"ended run {run_id}"

    return end


def _freer(instance: DagsterInstance, run_id: str) -> Callable[[], str]:
    def free() -> str:
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)
        return f"freed the pool slots of run {run_id}"

    return free
