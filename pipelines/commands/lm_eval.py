"""``sumi lm-eval``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands.arguments import Changes
from sumi_core.base.options import MAX_SEED, ConfigError

if TYPE_CHECKING:
    from sumi_core.api import Model
    from sumi_core.serving.harness_run import HarnessResults
    from sumi_core.serving.lm_eval import HarnessModel


def lm_eval_command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A cell, an MLflow run id, or the folder of an exported model.")
    ],
    changes: Changes = None,
    tasks: Annotated[str, typer.Option(metavar="TASK,…", help="Tasks of the harness, by their names or globs.")] = "",
    include_path: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A folder with the YAML files of further tasks.")
    ] = None,
    write_tasks: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Make tasks of the model's validation text instead, in this folder."),
    ] = None,
    questions: Annotated[int, typer.Option(min=2, help="With --write-tasks: how many of each task.")] = 100,
    num_fewshot: Annotated[
        int | None, typer.Option(min=0, help="Examples before each question; default: as the task says.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many documents of each task.")] = None,
    levels: Annotated[
        int, typer.Option(min=1, max=10**4, help="Noise levels drawn for a bound; more make its error smaller.")
    ] = 64,
    overlap: Annotated[
        int | None,
        typer.Option(min=0, help="Tokens that windows of a long text repeat; default: half the trained length."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Network calls of a diffusion sampler; default: the most it was evaluated at."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="The same seed gives the same figures.")] = 1,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write everything that the harness returns as JSON.")
    ] = None,
) -> None:
    """Run tasks of lm-evaluation-harness on a finished model.

    Log-likelihoods of an autoregressive model are exact. Those of a diffusion model are lower bounds, with an error
    over noise levels and noise; options of one question share their noise. Needs the extra `harness`."""
    from sumi_core.api import open_model

    if (write_tasks is None) == (not tasks):
        raise ConfigError("command line", "--tasks", "name tasks to run, or --write-tasks FOLDER, and not both")
    if include_path is not None and not include_path.is_dir():
        raise ConfigError("command line", "--include-path", f"{include_path} is not a folder; name one")
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise ConfigError("command line", "--output", f"{output} is not a file in an existing folder; name one")
    model = open_model(name, changes or ())
    if write_tasks is not None:
        _write(model, write_tasks, questions, seed)
        return
    harness = model.harness(levels=levels, overlap=overlap, steps=steps, seed=seed)
    from sumi_core.base.numerics import deterministic
    from sumi_core.serving.harness_run import run_tasks

    with deterministic(model.experiment.runtime.threads):
        found = run_tasks(
            harness,
            [task.strip() for task in tasks.split(",") if task.strip()],
            include_path=include_path,
            num_fewshot=num_fewshot,
            limit=limit,
        )
    _print(harness, found)
    if output is not None:
        _save(output, model, found)


def _write(model: Model, folder: Path, questions: int, seed: int) -> None:
    from sumi_core.data.corpus import read_texts
    from sumi_core.serving.harness_tasks import TaskError
    from sumi_core.serving.harness_tasks import write_tasks as write

    corpus = model.outputs.get("corpus")
    if corpus is None:
        problem = f"the corpus of {model.name} is not in this project; run `sumi run {model.name}` first"
        raise ConfigError("command line", "NAME", problem)
    try:
        names = write(
            (document.text for document in read_texts(corpus, "validation")), folder, questions=questions, seed=seed
        )
    except TaskError as error:
        raise ConfigError("command line", "--write-tasks", str(error)) from None
    except OSError as error:
        raise ConfigError("command line", "--write-tasks", f"cannot write into {folder}: {error.strerror}") from None
    print(f"{folder}: {', '.join(names)}")


def _print(harness: HarnessModel, found: HarnessResults) -> None:
    from sumi_core.base.text import render_text_table, text_width, with_error

    rows = []
    for row in found.table.to_dict("records"):
        sign = "≤" if row["kind"] == "upper bound" else ""
        noise = row["mc_stderr"]
        rows.append(
            {
                "task": row["task"],
                "metric": row["metric"] if row["filter"] == "none" else f"{row['metric']} ({row['filter']})",
                "documents": f"{row['documents']:,}" if row["documents"] else "",
                "value": with_error(row["value"], row["stderr"], sign),
                "Monte-Carlo error": "" if noise != noise or harness.exact else f"{noise:.3g}",
            }
        )
    print(render_text_table(rows, text_width(sys.stdout)))
    if harness.exact:
        print("\nLog-likelihoods are exact.")
        return
    told = (
        "" if harness.trusts_context else " It trusts what is given too little: no noise level says that it is clean."
    )
    print(
        f"\nLog-likelihoods are lower bounds, from {harness.levels} noise levels each; options of one question share "
        f"their noise. Given a context, they are those of the model's reverse process beside it.{told}"
    )


def _save(file: Path, model: Model, found: HarnessResults) -> None:
    from sumi_core.base.files import json_text, write_atomically

    data = {"model": model.name, "table": found.table.to_dict("records"), **found.raw}
    try:
        write_atomically(file, json_text(_plain(data)) + "\n")
    except OSError as error:
        raise ConfigError("command line", "--output", f"cannot write {file}: {error.strerror}") from None


def _plain(value: Any) -> Any:
    """What the harness returns as plain data: numbers of other libraries, and names of what is none."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return value if value is None or isinstance(value, str | int | float) else str(value)
