"""``sumi list``."""

from sumi_core.errors import SumiError
from sumi_core.planning import plan
from sumi_core.project import Project


def list_command() -> None:
    """List experiments and their cells: done, running, failed, interrupted, stale or missing, and why."""
    project = Project.find()
    sweeps = project.sweeps()
    for sweep in sweeps.values():
        try:
            plans = plan(sweep.cells, project.store)
        except SumiError as error:  # one experiment's missing data or damaged output must not hide the others
            print(f"{sweep.name}  cannot be looked at: {error}")
            continue
        done = sum(p.state == "done" for p in plans)
        print(f"{sweep.name}  {done}/{len(plans)} done  {sweep.description}")
        for planned in plans:
            why = "" if planned.state == "done" else planned.why
            print(f"  {planned.cell.key:<40} {planned.state:<11} {why}".rstrip())
    for file, error in sweeps.broken.items():
        print(f"{file.stem}  cannot be read: {error}")
