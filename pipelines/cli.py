"""The ``sumi`` command line: one command per file of ``pipelines.commands``."""

from __future__ import annotations

import importlib
import io
import sys
import warnings
from typing import NoReturn

import typer

from sumi_core.base.errors import SumiError
from sumi_core.base.text import PLAIN, reason_of, visible

# In the order a newcomer meets them; a line of `sumi --help` each, which 80 columns must hold.
SUMMARIES = {
    "init": "Create .sumi/, where everything computed is kept.",
    "list": "List experiments and their cells: done, failed, stale …",
    "plan": "Show what `sumi run` would do, and why.",
    "explain": "Print what a key of an experiment file means, and its limits.",
    "schema": "Print the JSON schema of experiment files, for editors.",
    "run": "Compute experiments or whole sweeps, and compare them.",
    "compare": "Print the comparison of cells, from what MLflow has of them.",
    "evaluate": "Measure a finished model, on other text if you like.",
    "sample": "Write texts with a trained model.",
    "fit-schedule": "Print the noise schedule that suits a finished model best.",
    "lineage": "Walk back from a model or a number to what made it.",
    "reproduce": "Compute something again from its record, and compare.",
    "dev": "Open the Dagster and MLflow web interfaces, until Ctrl-C.",
    "doctor": "Check versions, databases, artifacts, runs and locks.",
}
COMMANDS = tuple(SUMMARIES)

app = typer.Typer(
    name="sumi",
    help="Compare uniform diffusion language models: which corruption, which schedule, which objective, at what cost.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

for _name, _summary in SUMMARIES.items():
    _module = _name.replace("-", "_")
    _function = getattr(importlib.import_module(f"pipelines.commands.{_module}"), f"{_module}_command")
    app.command(_name, short_help=_summary)(_function)


def main() -> None:
    """Run the command line. A mistake of the user ends in one sentence and exit status 2."""
    # Dagster marks half of its interface as beta or preview, on every import.
    warnings.filterwarnings("ignore", module=r"dagster(\.|$)")
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show ≤ gets <=, and no traceback
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN)
    try:
        app()
    except SumiError as error:
        _end(str(error))
    except OSError as error:
        _end(
            f"{error.filename or 'a file'}: {error.strerror or error}; "
            "free some space, or correct the path or its permissions"
        )
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("mlflow", "sqlalchemy", "sqlite3"):
            raise
        _end(
            f"{reason_of(error)}; `sumi doctor` checks the databases; "
            "a server that MLFLOW_TRACKING_URI names must answer"
        )


def _end(sentence: str) -> NoReturn:
    print(f"sumi: {visible(sentence)}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
