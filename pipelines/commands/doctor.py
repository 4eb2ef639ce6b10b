"""``sumi doctor``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from pipelines.terminal import shown_state
from sumi_core.base.errors import SumiError
from sumi_core.base.files import is_writable
from sumi_core.base.paths import sqlite_path
from sumi_core.base.text import reason_of
from sumi_core.lineage.artifact_checks import check_runs, check_store
from sumi_core.lineage.checkup import (
    Finding,
    check_disk,
    check_experiments,
    check_sqlite,
    check_versions,
    check_writable,
)
from sumi_core.lineage.project import Project
from sumi_core.lineage.targets import is_of_mlflow, mlflow_exists


def doctor_command(
    fix: Annotated[bool, typer.Option("--fix", help="Repair what can be repaired without losing work.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Read every file of every output and compare SHA-256.")] = False,
) -> None:
    """Check versions, experiments, databases, artifacts, runs and locks. Exit status 1 if something bad remains."""
    remaining = 0
    for finding in findings(Project.find(), deep=deep):
        _print(finding.level, finding.area, "; ".join(filter(None, (finding.message, finding.remedy))))
        repaired = fix and finding.fix is not None and _repair(finding.fix)
        remaining += finding.level == "bad" and not repaired
    if remaining:
        print(f"{remaining} bad", file=sys.stderr)
        raise typer.Exit(1)


def _repair(fix: Callable[[], str]) -> bool:
    """Repair, and print what was done, or why it was not possible."""
    try:
        _print("ok", "fixed", fix())
    except (SumiError, OSError) as error:
        _print("bad", "not fixed", str(error))
        return False
    return True


def findings(project: Project, *, deep: bool = False) -> Iterator[Finding]:
    """Every finding, in order. Repairs may run while this is iterated."""
    from pipelines.health import check_dagster, check_environment_file

    yield from _guarded("versions", check_versions(project.root))
    yield from _guarded("experiments", check_experiments(project.experiments))
    yield from _guarded("disk", check_disk(project.home))
    yield from _guarded("disk", check_writable(project.home))
    yield from _guarded("dagster", check_environment_file(project))
    yield from _guarded("dagster", check_dagster(project))
    if project.store.root.is_dir():
        yield from _guarded("artifacts", check_store(project.store, deep=deep))
    else:
        yield Finding("info", "artifacts", f"there is no store in {project.store.root} yet", "`sumi run` creates it")
    yield from _guarded("mlflow", _check_mlflow(project))


def _guarded(area: str, looked_at: Iterator[Finding]) -> Iterator[Finding]:
    """The findings of one area; an error that prevents the check is one too, and hides no other area."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield from looked_at
    except (SumiError, OSError, SQLAlchemyError) as error:
        yield Finding("bad", area, reason_of(error), "correct that, then run `sumi doctor` again for the rest")


def _check_mlflow(project: Project) -> Iterator[Finding]:
    uri = project.tracking.uri
    if not mlflow_exists(project):
        yield Finding(
            "info", "mlflow", f"there is no database at {uri} yet", "`sumi init` creates it, and so does a run"
        )
        return
    if (database := sqlite_path(uri)) is not None:
        damage = list(check_sqlite(database, "mlflow"))
        yield from damage or [Finding("ok", "mlflow", f"{uri} is intact")]
        if any(finding.level == "bad" for finding in damage):
            return
    if database is not None and not is_writable(project.home):
        yield Finding("info", "mlflow", f"runs were not checked: MLflow needs to write to {project.home}")
        return
    os.environ.setdefault(
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"
    )  # a server that is down is a finding, no reason to wait
    try:
        yield from check_runs(project, _dagster_says(project))
    except Exception as error:
        if not is_of_mlflow(error):
            raise
        yield Finding("bad", "mlflow", f"{uri} does not answer: {reason_of(error)}", "start or name its server")


def _dagster_says(project: Project) -> Callable[[str], bool]:
    """Whether a Dagster run lives; where the instance is missing or damaged, none does."""
    from pipelines.health import is_run_alive, open_if_intact

    instance = open_if_intact(project)
    return lambda run_id: instance is not None and is_run_alive(instance, run_id)


def _print(level: str, area: str, text: str) -> None:
    print(f"{shown_state(level, 5)} {area:<12} {text}", flush=True)
