"""The ``sumi`` command line: one command per file of ``pipelines.commands``."""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import NoReturn

import typer

from sumi_core.errors import SumiError

# In the order a newcomer meets them.
COMMANDS = ("init", "list", "plan", "run", "compare", "sample", "lineage", "reproduce", "dev", "doctor")

app = typer.Typer(
    name="sumi",
    help="Uniform diffusion language models: ask which corruption, which schedule, which objective, at what cost.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

for _name in COMMANDS:
    _function = getattr(importlib.import_module(f"pipelines.commands.{_name}"), f"{_name}_command")
    app.command(_name)(_function)


def main() -> None:
    """Run the command line; a user's mistake ends in one sentence and exit status 2."""
    # Dagster marks half of its interface as beta or preview, on every import.
    warnings.filterwarnings("ignore", module=r"dagster(\.|$)")
    try:
        app()
    except SumiError as error:
        _end(str(error))
    except OSError as error:
        _end(
            f"{error.filename or 'a file'}: {error.strerror or error}; free space, or mend the path or its permissions"
        )
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("mlflow", "sqlalchemy", "sqlite3"):
            raise
        _end(
            f"{str(error).splitlines()[0]}; `sumi doctor` looks over the databases, and MLFLOW_TRACKING_URI must answer"
        )


def _end(sentence: str) -> NoReturn:
    print(f"sumi: {sentence}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
