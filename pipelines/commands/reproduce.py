"""``sumi reproduce``."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from pipelines.commands.arguments import Changes
from sumi_core.base.files import json_text
from sumi_core.lineage.project import Project
from sumi_core.lineage.reproduction import Figure, Reproduction, reproduce
from sumi_core.lineage.trace import trace


def reproduce_command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="NAME|RUN|FOLDER",
            help="A cell, an MLflow or Dagster run id, a fingerprint, or an artifact or exported folder.",
        ),
    ],
    changes: Changes = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="Start from nothing, and remove what was recomputed afterwards.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The comparison as JSON.")] = False,
) -> None:
    """Compute something again from its record, and compare.

    In a clean store; every figure old, new and their difference. Exit status 0 when all figures and weights are equal,
    1 otherwise. After an interruption, the same command continues."""
    from sumi_core.trainer.launcher import SubprocessLauncher

    project = Project.find()
    traced = trace(project, target, changes or (), verify=False)
    name = f"{re.sub(r'[^A-Za-z0-9._+-]', '_', traced.target.key)}-{traced.target.fingerprints[traced.target.last]}"

    erase = "\r\x1b[K" if sys.stderr.isatty() else ""

    def log(line: str) -> None:
        print(f"{erase}{line}", file=sys.stderr, flush=True)

    def progress(done: float, total: float, unit: str, text: str) -> None:
        if erase:  # a line that overwrites itself has no place in a log
            print(f"{erase}{text}", end="", file=sys.stderr, flush=True)

    folder, launcher = project.home / "reproduce" / name, SubprocessLauncher(log, progress)
    try:
        result = reproduce(traced, folder, launcher, clean=clean, log=log, progress=progress)
    except KeyboardInterrupt:
        log("sumi: interrupted; the same command continues where it was")
        raise typer.Exit(130) from None
    if as_json:
        print(json_text(result.to_dict()))
    else:
        print_reproduction(result)
    if not result.equal:
        raise typer.Exit(1)


def print_reproduction(result: Reproduction) -> None:
    """Print the comparison as tables, stage by stage, then the verdict."""
    from sumi_core.base.text import filled, render_text_table, text_width

    width = text_width(sys.stdout)
    for stage in dict.fromkeys(figure.stage for figure in [*result.figures, *result.files]):
        figures = [_row(figure) for figure in result.figures if figure.stage == stage and figure.compared]
        files = [_file_row(figure) for figure in result.files if figure.stage == stage]
        print("\n\n".join(filter(None, [stage, *(render_text_table(rows, width) for rows in (figures, files))])) + "\n")
    clocks = [f"{f.stage}/{f.name} {_text(f.old)} / {_text(f.new)}" for f in result.figures if not f.compared]
    if clocks:
        print(filled(f"not compared, since they are times (old / new): {'; '.join(clocks)}", width, further="  "))
    for title, lines in (
        ("the recipe gives another fingerprint now", result.recipe),
        ("the environment differs from the recorded one", result.environment),
        ("computed again without a record to compare with", result.unrecorded),
    ):
        if lines:
            print(f"\n{title}:")
            for line in lines:
                print(f"  {line}")
    compared = sum(f.compared for f in [*result.figures, *result.files])
    if result.equal:
        print(f"\n{result.key}: reproduced; all {compared} figures and files are equal")
    elif not compared:
        print(f"\n{result.key}: nothing of it is recorded, so nothing was compared")
    else:
        names = ", ".join(f"{f.stage}/{f.name}" for f in result.different)
        verdict = f"{result.key}: NOT reproduced; {len(result.different)} of {compared} differ: {names}"
        print(f"\n{filled(verdict, width, further='  ')}")


def _row(figure: Figure) -> dict[str, str]:
    difference = figure.difference
    if difference is None:
        shown = "0" if figure.equal else "differs"
    else:
        shown = "0" if figure.equal else f"{difference:+.3g}"
    return {
        "figure": figure.name,
        "old": _text(figure.old),
        "new": _text(figure.new),
        "difference": shown,
    }


def _file_row(figure: Figure) -> dict[str, str]:
    def short(digest: str | None) -> str:
        return digest[:16] if digest else "absent"

    return {
        "SHA-256 of": figure.name,
        "old": short(figure.old),
        "new": short(figure.new),
        "equal": "yes" if figure.equal else "NO",
    }


def _text(value: object) -> str:
    text = "–" if value is None else f"{value:.9g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _SHOWN_VALUE else f"{text[: _SHOWN_VALUE - 1]}…"


_SHOWN_VALUE = 16  # characters of a figure that is a text; all of it: --json
