"""The ``sumi`` command line: one command per file of ``pipelines.commands``."""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from sumi_core.base.errors import SumiError
from sumi_core.base.lazy import defer
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
    "score": "Print what each token of a text costs a model.",
    "lm-eval": "Run tasks of lm-evaluation-harness on a finished model.",
    "sample": "Write texts with a trained model.",
    "export": "Copy a finished model out of the store, into a folder.",
    "fit-schedule": "Print the noise schedule that suits a finished model best.",
    "lineage": "Walk back from a model or a number to what made it.",
    "reproduce": "Compute something again from its record, and compare.",
    "dev": "Open the Dagster and MLflow web interfaces, until Ctrl-C.",
    "doctor": "Check versions, databases, artifacts, runs and locks.",
}
COMMANDS = tuple(SUMMARIES)

EXAMPLES = {
    "init": ("sumi init",),
    "list": ("sumi list", "sumi list demo 'ablations/*'"),
    "plan": ("sumi plan demo", "sumi plan demo.uniform training.steps=2000"),
    "explain": ("sumi explain training.warmup_steps", "sumi explain process.clustered"),
    "schema": ("sumi schema --output experiments.schema.json",),
    "run": ("sumi run demo --jobs 3", "sumi run smoke training.steps=40"),
    "compare": ("sumi compare demo", "sumi compare 'demo.*' --csv demo.csv"),
    "evaluate": ("sumi evaluate demo.uniform --text notes.txt",),
    "score": ("sumi score demo.uniform 'In the beginning'", "sumi score demo.uniform --file notes.txt --json"),
    "lm-eval": (
        "sumi lm-eval demo.uniform --write-tasks tasks",
        "sumi lm-eval demo.uniform --include-path tasks --tasks 'sumi_*'",
    ),
    "sample": ("sumi sample demo.uniform --num 2 --prompt 'In the beginning'",),
    "export": ("sumi export demo.uniform models/uniform",),
    "fit-schedule": ("sumi fit-schedule demo.uniform",),
    "lineage": ("sumi lineage demo.uniform", "sumi lineage demo.uniform --json > record.json"),
    "reproduce": ("sumi reproduce demo.uniform",),
    "dev": ("sumi dev", "sumi dev --dagster-port 3100"),
    "doctor": ("sumi doctor --fix",),
}
#: These read what is there, and end without a library of tensors unless they find something to compute.
_READERS = ("list", "plan", "explain", "schema", "run", "compare", "lineage", "doctor")


class _Commands(Mapping[str, Any]):
    """The commands by name. Each is imported when it is asked for."""

    def __getitem__(self, name: str) -> Any:
        module = SUMMARIES[name] and name.replace("-", "_")
        function = getattr(importlib.import_module(f"pipelines.commands.{module}"), f"{module}_command")
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        examples = "\n".join(["\b", "Examples:", *(f"  {line}" for line in EXAMPLES[name])])
        alone.command(name, short_help=SUMMARIES[name], epilog=examples)(function)
        return typer.main.get_command(alone)

    def __iter__(self) -> Iterator[str]:
        return iter(SUMMARIES)

    def __len__(self) -> int:
        return len(SUMMARIES)


class _Group(TyperGroup):
    """The ``sumi`` command, which imports no command in order to list them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = _Commands()

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the summaries of the commands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))


app = typer.Typer(
    name="sumi",
    cls=_Group,
    help="Compare uniform diffusion language models: which corruption, which schedule, which objective, at what cost.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"sumi {importlib.metadata.version('sumi')}")
        raise typer.Exit


@app.callback()
def _main_options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. A mistake of the user ends in one sentence and exit status 2."""
    # Dagster marks half of its interface as beta or preview, on every import.
    warnings.filterwarnings("ignore", module=r"dagster(\.|$)")
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show ≤ gets <=, and no traceback
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN)
    if sys.argv[1:] and sys.argv[1] in _READERS:
        defer("torch", "numpy")
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
        from sumi_core.lineage.targets import is_of_mlflow

        if not is_of_mlflow(error):
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
