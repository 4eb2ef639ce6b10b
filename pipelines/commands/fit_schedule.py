"""``sumi fit-schedule``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pipelines.commands.arguments import Changes
from sumi_core.lineage.targets import LineageError, find_target
from sumi_core.project import Project
from sumi_core.tables import read_table


def fit_schedule_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A cell, an MLflow run id, or a stage's folder.")],
    changes: Changes = None,
) -> None:
    """Print the noise schedule under which a finished model's bound has the least variance.

    It is made from the evaluation's loss by noise level, and printed as keys that an experiment file takes as they
    are: as the schedule itself, or only as what training draws its levels by."""
    from sumi_core.corruption.fitted import fit_profile

    project = Project.find()
    target = find_target(project, name, changes or ())
    own = target.fingerprints.get("evaluation")
    evaluation = project.store.find("evaluation", own) if own else None
    if evaluation is None:
        raise LineageError(f"'{name}' has no evaluation here; run `sumi run {target.request}` first")
    clock = evaluation.manifest["experiment"]["clock"]
    if clock is not None and clock["name"] != "shared":
        raise LineageError(
            f"'{name}' has clock '{clock['name']}', under which a text has many levels at once; name one with shared"
        )
    curve = evaluation.folder / "loss_by_level.parquet"
    if not curve.is_file():
        raise LineageError(f"'{name}' has an exact likelihood, which has no noise levels; name a diffusion model")
    table = read_table(curve, columns=["noise", "per_alpha_square"])
    try:
        knots = fit_profile({str(name): values for name, values in table.items()})
    except ValueError as error:
        raise LineageError(f"'{name}': {error}") from None
    print(f"# fitted to {target.request}\nschedule:\n  name: fitted")
    for key, values in knots.items():
        print(f"  {key}: {json.dumps(values)}")
    print(f"""\
# Or keep the schedule, and let training alone draw its levels so:
# objective:
#   time_sampling: importance
#   time_density: {json.dumps({"name": "fitted", **knots})}""")
