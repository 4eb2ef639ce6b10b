"""A training's events for a person: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

from sumi_core.training.events import Report

_MINUTE = 60.0


@contextlib.contextmanager
def console_report() -> Iterator[Report]:
    """A report function that prints, as long as the body runs."""
    if not sys.stdout.isatty():
        yield _plain_report()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    console = Console()
    # Half of 80 columns would be a bar: it is shortened instead of the text, and no number is broken.
    column = Column(no_wrap=True, overflow="ellipsis")
    bar = Progress(
        BarColumn(bar_width=14), TextColumn("{task.description}", markup=False, table_column=column), console=console
    )
    task = bar.add_task("starting")

    def report(event: dict[str, Any]) -> None:
        if event["kind"] == "progress":
            bar.update(task, total=event["steps"], completed=event["step"], description=event["text"])
        elif event["kind"] != "result":
            console.print(
                event["text"],
                markup=False,
                highlight=False,
                soft_wrap=True,
                style="red" if event["kind"] == "error" else None,
            )

    with bar:
        yield report


class Milestones:
    """Which progress a log file shows: every twentieth of the way, and once a minute on long ways."""

    def __init__(self) -> None:
        self._part, self._when = -1, -math.inf

    def passed(self, event: dict[str, Any]) -> bool:
        """Whether this event of progress is one."""
        part, now = 20 * event["step"] // event["steps"], time.monotonic()
        if part == self._part and now - self._when < _MINUTE:
            return False
        self._part, self._when = part, now
        return True


def _plain_report() -> Report:
    milestones = Milestones()

    def report(event: dict[str, Any]) -> None:
        if event["kind"] == "error":
            print(event["text"], file=sys.stderr, flush=True)
        elif event["kind"] == "log" or (event["kind"] == "progress" and milestones.passed(event)):
            print(event["text"], flush=True)

    return report
