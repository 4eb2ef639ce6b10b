"""``sumi fit-schedule``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pipelines.commands.arguments import Changes
from sumi_core.lineage.project import Project
from sumi_core.lineage.targets import LineageError, find_target


def fit_schedule_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A cell, an MLflow run id, or a stage's folder.")],
    changes: Changes = None,
) -> None:
    """Print the noise schedule under which a finished model's bound has the least variance.

    It is made from the evaluation's loss by noise level, and printed as keys that an experiment file takes as they
    are: as the schedule itself, or only as what training draws its levels by."""
    from sumi_core.evaluation.fitting import fitted_schedule

    project = Project.find()
    target = find_target(project, name, changes or ())
    own = target.fingerprints.get("evaluation")
    evaluation = project.store.find("evaluation", own) if own else None
    if evaluation is None:
        raise LineageError(f"'{name}' has no evaluation here; run `sumi run {target.request}` first")
    knots = fitted_schedule(evaluation.folder, evaluation.manifest["experiment"]["clock"], name)
    print(f"# fitted to {target.request}\nschedule:\n  name: fitted")
    for key, values in knots.items():
        print(f"  {key}: {json.dumps(values)}")
    print(f"""\
# Or keep the schedule, and let training alone draw its levels so:
# objective:
#   time_sampling: importance
#   time_density: {json.dumps({"name": "fitted", **knots})}""")
