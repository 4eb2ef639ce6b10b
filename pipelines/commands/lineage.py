"""``sumi lineage``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from sumi_core.lineage.trace import trace, trace_lines
from sumi_core.project import Project


def lineage_command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="NAME|RUN|FOLDER",
            help="A cell, an MLflow or Dagster run id, a fingerprint, or an artifact or exported folder.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Everything recorded, as JSON.")] = False,
    verify: Annotated[bool, typer.Option(help="Compare every file with its recorded SHA-256.")] = True,
) -> None:
    """Walk from a model or a number back to its data, config, code and seed. Exit status 1 if a record is damaged."""
    traced = trace(Project.find(), target, verify=verify)
    if as_json:
        print(json.dumps(traced.to_dict(), indent=1, ensure_ascii=False))
    else:
        for line in trace_lines(traced):
            print(line)
    if any(stage.state == "damaged" for stage in traced.stages):
        raise typer.Exit(1)
