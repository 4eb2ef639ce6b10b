"""The training process.

    python -m sumi_core.trainer REQUEST.json              a bar in a terminal, plain lines elsewhere
    python -m sumi_core.trainer REQUEST.json --events     one JSON object a line, for a launcher

With ``runtime.devices`` above 1 it becomes torchrun, which starts one process per device. Exit status: 0 finished,
1 failed, 130 and 143 stopped by SIGINT and SIGTERM after saving.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from sumi_core.base.files import json_text
from sumi_core.base.process import end_quietly
from sumi_core.trainer.console import console_report
from sumi_core.trainer.launcher import trainer_command
from sumi_core.trainer.request import Request
from sumi_core.training.errors import TrainingError
from sumi_core.training.ranks import Rank


def _print_event(event: dict[str, Any]) -> None:
    print(json_text(event, None), flush=True)


def _main() -> int:
    end_quietly()
    parser = argparse.ArgumentParser(prog="python -m sumi_core.trainer", description="Train for a request file.")
    parser.add_argument("request", type=Path, help="request.json, as `sumi run` writes it")
    parser.add_argument("--events", action="store_true", help="print one JSON event a line")
    arguments = parser.parse_args()
    try:
        if Request.read(arguments.request).devices > 1 and "RANK" not in os.environ:
            command = trainer_command(arguments.request, *(["--events"] if arguments.events else []))
            os.execv(command[0], command)
    except TrainingError as error:
        print(error, file=sys.stderr)
        return 1
    from sumi_core.trainer.run import main

    if arguments.events or not Rank.from_environment().is_zero:
        return main(arguments.request, _print_event)
    with console_report() as report:
        return main(arguments.request, report)


if __name__ == "__main__":
    sys.exit(_main())
