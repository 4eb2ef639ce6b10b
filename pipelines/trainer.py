"""The training process under Dagster: the same training as ``python -m sumi_core.trainer``, reporting through Pipes.

python -m pipelines.trainer REQUEST.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.base.process import end_quietly
from sumi_core.trainer.console import Milestones, console_report
from sumi_core.training.ranks import Rank

if TYPE_CHECKING:
    from dagster_pipes import PipesContext


def failure_file(request: Path) -> Path:
    """Where the trainer leaves the sentence it failed with, for the launcher to raise."""
    return request.with_suffix(".error")


def report_through(pipes: PipesContext, request: Path, console: Any) -> Any:
    """Events go to the asset's log in Dagster; progress goes to the terminal too, if there is one."""

    milestones = Milestones()

    def report(event: dict[str, Any]) -> None:
        if event["kind"] == "error":
            failure_file(request).write_text(event["text"], encoding="utf-8")
        elif event["kind"] == "log":
            pipes.log.info(event["text"])
        elif event["kind"] == "progress":
            if sys.stdout.isatty():
                console(event)
            elif milestones.passed(event):
                pipes.log.info(event["text"])

    return report


def _main(path: Path) -> int:
    end_quietly()
    from dagster_pipes import open_dagster_pipes

    from sumi_core.trainer.run import main

    if not Rank.from_environment().is_zero:  # one voice for all
        return main(path, lambda event: None)
    with open_dagster_pipes() as pipes, console_report() as console:
        return main(path, report_through(pipes, path, console))


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
