"""The training process under Dagster: the same training as ``python -m sumi_core.training``, reporting through Pipes.

python -m pipelines.trainer REQUEST.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from dagster_pipes import PipesContext, open_dagster_pipes
from sumi_core.training.run import main


def report_to(pipes: PipesContext) -> Any:
    """Send the trainer's events to the asset that started it."""

    def report(event: dict[str, Any]) -> None:
        if event["kind"] in ("log", "progress"):
            pipes.log.info(event["text"])

    return report


if __name__ == "__main__":
    with open_dagster_pipes() as pipes:
        status = main(Path(sys.argv[1]), report_to(pipes))
    sys.exit(status)
