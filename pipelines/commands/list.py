"""``sumi list``."""

from collections.abc import Sequence
from typing import Annotated

import typer

from pipelines.terminal import shown_state
from sumi_core.base.text import visible
from sumi_core.experiments.sweeps import select_cells, split_arguments
from sumi_core.lineage.plan import CellPlan, plan
from sumi_core.lineage.project import Project

_WHY = 160  # characters: a line is enough here, `sumi plan` has the rest
_CHANGED = 5  # of what was computed with changes, the newest


def list_command(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME… [key=value …]]", help="Experiments, cells or globs (default: all); then changes."
        ),
    ] = None,
) -> None:
    """List experiments and their cells: done, running, failed, interrupted, stale or missing, and why.

    Blocked: the source of the corpus cannot be read. Damaged: `sumi doctor --fix` sets the output aside."""
    project = Project.find()
    names, overrides = split_arguments(arguments) if arguments else ([], ())
    sweeps = project.sweeps(overrides, names or None)
    asked = select_cells(sweeps, names) if names else [cell for sweep in sweeps.values() for cell in sweep.cells]
    every = plan(asked, project.store)
    by_sweep: dict[str, list[CellPlan]] = {}
    for planned in every:
        by_sweep.setdefault(planned.cell.sweep_key, []).append(planned)
    changed = [known.name for known in project.changed_cells.read()]
    for key, plans in by_sweep.items():
        sweep = sweeps.of(plans[0].cell)
        done = sum(p.state == "done" for p in plans)
        print(f"{key}  {done}/{len(plans)} done  {visible(sweep.description)}")
        for state, why, same in _folded(plans, whole=bool(names)):
            name = same[0].cell.key if len(same) == 1 else f"{same[0].cell.key} … {same[-1].cell.key}"
            count = "" if len(same) == 1 else f"{len(same)} cells; "
            print(f"  {name:<40} {shown_state(state, 11)} {count}{why}".rstrip())
        also = [name for name in changed if name.startswith(tuple(f"{p.cell.key}[" for p in plans))]
        if also:
            print(visible(f"  computed with changes: {', '.join(also[-_CHANGED:])}{', …' if also[_CHANGED:] else ''}"))
    for file, error in sweeps.broken.items():
        print(visible(f"{file.stem}  cannot be read: {error}"))


def _folded(plans: Sequence[CellPlan], *, whole: bool) -> list[tuple[str, str, list[CellPlan]]]:
    """State, reason and cells, in order. Neighbours that were never computed, for one reason, are one line, since a
    fresh clone has nothing else, unless ``whole``."""
    told: list[tuple[str, str, list[CellPlan]]] = []
    for planned in plans:
        state, why = planned.state, "" if planned.state == "done" else _one_line(planned.why)
        if not whole and state == "missing" and told and told[-1][:2] == (state, why):
            told[-1][2].append(planned)
        else:
            told.append((state, why, [planned]))
    return told


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WHY else f"{line[: _WHY - 1]}…"
