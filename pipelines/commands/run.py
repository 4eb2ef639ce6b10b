"""``sumi run``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from sumi_core.base.lazy import load_deferred
from sumi_core.base.numerics import DeviceError, choose_device, has_gpu
from sumi_core.base.text import counted, text_width
from sumi_core.experiments.sweeps import Cell, Sweep, select_cells, split_arguments
from sumi_core.lineage.links import dagster_ui, mlflow_page
from sumi_core.lineage.plan import CellPlan, plan, plan_with_ancestors
from sumi_core.lineage.project import Project

if TYPE_CHECKING:
    from dagster import DagsterInstance


def run_command(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="NAME… [key=value …]", help="Experiments, cells or globs; then changes to them."),
    ],
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Cells computed at the same time.")] = 1,
) -> None:
    """Compute experiments or whole sweeps, and compare them.

    Cells that they start from come first. What is already done is found, not computed again."""
    names, overrides = split_arguments(arguments)
    project = Project.find()
    sweeps = project.sweeps(overrides, names)
    cells = select_cells(sweeps, names)
    from sumi_core.reports.artifact import compare_sweep
    from sumi_core.reports.pages import report_text

    plans = plan_with_ancestors(cells, project.store)
    project.changed_cells.remember(planned.cell for planned in plans)  # before Dagster loads its partitions
    # Where Dagster has no instance yet, it is told of what is done too: the store may have been copied.
    is_new = not (project.dagster_home / "dagster.yaml").is_file()
    todo = [p for p in plans if is_new or p.state != "done" or not project.tracking.is_complete(p.cell)]
    blocked = _blocked(todo)  # what is wrong is known before anything is started
    for key, why in blocked.items():
        print(f"sumi: {key} is blocked: {why}", file=sys.stderr)
    todo = [p for p in todo if p.cell.key not in blocked]
    if overrides:  # names may be shortened
        print(f"changed on the command line: {shlex.join(overrides)}", flush=True)
    if not todo and not blocked:
        print(f"{counted(len(plans), 'cell')}: done already")
    try:
        failed = _executed(project, todo, jobs) if todo else {}
        finished = [p.cell for p in plan(cells, project.store) if "evaluation" in p.artifacts]
        asked = {cell.sweep_key: sweeps.of(cell) for cell in cells}  # what they start from may be of others
        for key in dict.fromkeys(cell.sweep_key for cell in (*(p.cell for p in todo), *finished)):
            failed |= _reported(project, asked[key]) if key in asked else {}
    except KeyboardInterrupt:
        from pipelines.execution import INTERRUPTED

        print("sumi: interrupted; the same command continues where it was", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    for key, error in failed.items():
        print(f"sumi: {key} failed: {error}", file=sys.stderr)
    for key in dict.fromkeys(cell.sweep_key for cell in finished):
        print(report_text(compare_sweep(project.store, asked[key]), text_width(sys.stdout)))
    if finished:
        print(_where(project, finished[0]))
    if blocked or failed:
        raise typer.Exit(1)


def _blocked(plans: Sequence[CellPlan]) -> dict[str, str]:
    """The cells that cannot be computed, and why: what they are made from cannot be read, or a GPU is missing."""
    why = {planned.cell.key: planned.why for planned in plans if planned.state == "blocked"}
    for planned in plans:
        device, key = planned.cell.experiment.runtime.device, planned.cell.key
        if device == "cuda" and planned.pending and key not in why and not has_gpu():
            try:
                choose_device(device)  # has_gpu looks for drivers only; torch has the last word
            except DeviceError as error:
                why[key] = str(error)
    return why


def _opened(project: Project) -> DagsterInstance:
    """Dagster's instance, and all that computing takes. A run that finds everything done does without: its imports
    take longer than all the rest."""
    load_deferred()
    from pipelines.instance import initialise, open_instance

    initialise(project)
    return open_instance(project)


def _executed(project: Project, todo: Sequence[CellPlan], jobs: int) -> dict[str, str]:
    """Compute what is to do; returns what failed, and why."""
    print(f"{counted(len(todo), 'cell')} to compute; Dagster starts", flush=True)
    instance = _opened(project)
    from pipelines.execution import execute
    from pipelines.health import end_abandoned

    end_abandoned(instance)
    return execute(instance, todo, jobs).failed


def _reported(project: Project, sweep: Sweep) -> dict[str, str]:
    """Make a sweep's report where it is not made, or MLflow lacks it: it may have been cut off before."""
    from sumi_core.reports.artifact import find_sweep_report

    report = find_sweep_report(project.store, sweep)
    if report is not None and project.tracking.has_report(sweep, report):
        return {}
    instance = _opened(project)
    from pipelines.execution import run_job

    error = run_job(instance, "report", sweep.key, sweep.overrides)
    return {f"{sweep.key} (report)": error} if error else {}


def _where(project: Project, cell: Cell) -> str:
    """What to do next, with arguments that work: the same overrides name what they made."""
    name = cell.request
    return f"""\
look at it:   sumi dev       Dagster on {dagster_ui()}, MLflow on {mlflow_page(project.tracking.ui, "experiments")}
write text:   sumi sample {name}
trace it:     sumi lineage {name}       data, config, code and seed behind a number
everything is in {project.home}"""
