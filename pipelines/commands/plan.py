"""``sumi plan``."""

from typing import Annotated

import typer

from sumi_core.planning import CellPlan, plan
from sumi_core.project import Project
from sumi_core.sweeps import select_cells, split_arguments


def plan_command(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="NAME… [key=value …]", help="Experiments, cells or globs; then changes to them."),
    ],
) -> None:
    """Show what `sumi run` would do with the same arguments: computed, cached, and which config field changed."""
    names, overrides = split_arguments(arguments)
    project = Project.find()
    print_plans(plan(select_cells(project.sweeps(overrides), names), project.store))


def print_plans(plans: list[CellPlan]) -> None:
    """A line per stage of each cell, then totals."""
    for planned in plans:
        print(planned.cell.key)
        for stage in planned.stages:
            verb = "cached" if stage.state == "done" else "waits" if stage.state == "running" else "compute"
            why = "" if stage.state == "done" else stage.why
            print(f"  {verb:<8} {stage.stage:<20} {stage.fingerprint}  {why}".rstrip())
    shared = {(s.stage, s.fingerprint) for p in plans for s in p.pending}
    print(f"{len(shared)} outputs to compute for {sum(bool(p.pending) for p in plans)} of {len(plans)} cells")
