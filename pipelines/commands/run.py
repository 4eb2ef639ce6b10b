"""``sumi run``."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from sumi_core.planning import plan
from sumi_core.project import Project
from sumi_core.sweeps import Cell, select_cells, split_arguments


def run_command(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="NAME… [key=value …]", help="Experiments, cells or globs; then changes to them."),
    ],
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Cells computed at the same time.")] = 1,
) -> None:
    """Compute experiments or whole sweeps, and compare them.

    What is already done is found, not computed again."""
    names, overrides = split_arguments(arguments)
    project = Project.find()
    sweeps = project.sweeps(overrides)
    cells = select_cells(sweeps, names)
    from pipelines.health import end_abandoned
    from pipelines.instance import initialise, open_instance
    from sumi_core.evaluation.comparison_pages import report_text
    from sumi_core.evaluation.rendering import counted, text_width
    from sumi_core.reporting import build_sweep_report, compare_sweep

    initialise(project)
    plans = plan(cells, project.store)
    todo = [p for p in plans if p.state != "done" or not project.tracking.is_complete(p.cell)]
    blocked = [p for p in todo if p.state == "blocked"]  # what is wrong is known before anything is started
    for planned in blocked:
        print(f"sumi: {planned.cell.key} is blocked: {planned.why}", file=sys.stderr)
    todo = [p for p in todo if p.state != "blocked"]
    if overrides:  # tokens, cells and reports are called by the names of their files, which do not tell of these
        print(f"changed on the command line: {shlex.join(overrides)}", flush=True)
    failed: dict[str, str] = {}
    if todo:
        from pipelines.execution import INTERRUPTED, execute

        instance = open_instance(project)
        end_abandoned(instance)
        try:
            failed = execute(instance, todo, overrides, jobs).failed
        except KeyboardInterrupt:
            print("sumi: interrupted; the same command continues where it was", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        for key, error in failed.items():
            print(f"sumi: {key} failed: {error}", file=sys.stderr)
    elif not blocked:
        print(f"{counted(len(plans), 'cell')}: done already")
    finished = [p.cell for p in plan(cells, project.store) if "evaluation" in p.artifacts]
    for sweep in dict.fromkeys(cell.sweep for cell in finished):
        asked = sweeps[sweep]
        build_sweep_report(project.store, asked)
        print(report_text(compare_sweep(project.store, asked), text_width(sys.stdout)))
    if finished:
        print(_where(project, finished[0]))
    if blocked or failed:
        raise typer.Exit(1)


def _where(project: Project, cell: Cell) -> str:
    """What to do next, with arguments that work: the same overrides name what they made."""
    name = shlex.join([cell.key, *cell.overrides])
    return f"""\
look at it:   sumi dev       Dagster on http://127.0.0.1:3000, MLflow on http://127.0.0.1:5000
write text:   sumi sample {name}
trace it:     sumi lineage {name}       data, config, code and seed behind a number
everything is in {project.home}"""
