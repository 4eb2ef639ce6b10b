"""A training's events for a person: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from sumi_core.training.request import Report


@contextlib.contextmanager
def console_report() -> Iterator[Report]:
    """A report function that prints, as long as the body runs."""
    if not sys.stdout.isatty():
        yield _plain
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console()
    bar = Progress(BarColumn(), TextColumn("{task.description}"), console=console)
    task = bar.add_task("starting")

    def report(event: dict[str, Any]) -> None:
        if event["kind"] == "progress":
            bar.update(task, total=event["steps"], completed=event["step"], description=event["text"])
        elif event["kind"] != "result":
            console.print(
                event["text"], markup=False, highlight=False, style="red" if event["kind"] == "error" else None
            )

    with bar:
        yield report


def _plain(event: dict[str, Any]) -> None:
    if event["kind"] == "error":
        print(event["text"], file=sys.stderr, flush=True)
    elif event["kind"] != "result":
        print(event["text"], flush=True)
