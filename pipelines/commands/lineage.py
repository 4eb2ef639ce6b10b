"""``sumi lineage``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pipelines.commands.arguments import Changes
from sumi_core.base.files import json_text
from sumi_core.base.text import text_width, visible
from sumi_core.lineage.project import Project
from sumi_core.lineage.trace import cells_lines, trace, trace_cells, trace_lines


def lineage_command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="NAME|RUN|FOLDER",
            help="A cell or experiment, an MLflow or Dagster run id, a fingerprint, or an artifact or exported folder.",
        ),
    ],
    changes: Changes = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything recorded, as JSON.")] = False,
    verify: Annotated[bool, typer.Option(help="Compare every file with its recorded SHA-256.")] = True,
) -> None:
    """Walk back from a model or a number to what made it.

    That is its data, config, code and seed, stage by stage. Exit status 1 if a record is damaged."""
    if several := trace_cells(project := Project.find(), target, changes or ()):
        if as_json:
            plain = {key: own if isinstance(own, str) else own.to_dict() for key, own in several.items()}
            print(json_text(plain))
        else:
            print(*map(visible, cells_lines(several, text_width(sys.stdout))), sep="\n")
        return
    traced = trace(project, target, changes or (), verify=verify)
    if as_json:
        print(json_text(traced.to_dict()))
    else:
        for line in trace_lines(traced, text_width(sys.stdout)):
            print(visible(line))
    if traced.is_damaged:
        raise typer.Exit(1)
