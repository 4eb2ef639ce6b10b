"""``sumi evaluate``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.arguments import check_changes
from pipelines.commands.sample import exported_folder, note, sampled_experiment
from sumi_core.base.options import ConfigError
from sumi_core.experiments.changed_names import is_override
from sumi_core.experiments.resolve import resolve_for
from sumi_core.experiments.schema import Experiment
from sumi_core.experiments.sweeps import Cell, select_cells
from sumi_core.lineage.project import Project
from sumi_core.lineage.targets import Target, find_target, mlflow_exists
from sumi_core.stages.identity import stage_fingerprint, stages_of
from sumi_core.stages.store import Artifact


def evaluate_command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A cell, an MLflow run id, or the folder of an exported model.")
    ],
    more: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[key=value …] [FILE …]", help="Changes to the cell's evaluation; with --text, further files."
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="Files or globs (.txt, .jsonl, packed or not, or .parquet) to measure the model on instead."),
    ] = None,
    column: Annotated[str, typer.Option(help="The key or column that holds the text of a row.")] = "text",
    overlap: Annotated[
        int,
        typer.Option(min=0, help="With --text: how many of the tokens before it each sequence is given, clean."),
    ] = 0,
) -> None:
    """Measure a finished model, on its validation text or on other text.

    What is measured already is found, not measured again. Figures go into the model's MLflow run. Other text is cut
    into tokens by the model's tokenizer, packed at its sequence length, and measured with the same bound and errors."""
    files, changes = _sorted(more or [], text or [])
    if overlap and not files:
        raise ConfigError("command line", "--overlap", "goes with other text; name files with --text")
    project = Project.find()
    target = find_target(project, name, check_changes(changes) or ())
    exported = exported_folder(project, target)
    wanted = "exported_model" if files else "evaluation"  # other text is measured whatever the model's evaluation holds
    experiment = sampled_experiment(project, target, wanted) or _recorded(exported, wanted)
    measured: list[tuple[str, Artifact]] = []
    if files:
        measured.append(_other_text(project, target, exported, experiment, files, column, overlap))
        known = project.store.find("evaluation", stage_fingerprint(experiment, "evaluation"))
        measured += [("validation text", known)] if known is not None else []
    else:
        measured.append(("validation text", _evaluation(project, target, experiment)))
    _print(target, measured)


def _sorted(more: Sequence[str], text: Sequence[str]) -> tuple[list[str], list[str]]:
    """Files and changes. A shell that expands ``--text *.txt`` gives the first file to the option, the others apart."""
    if not text:
        return [], list(more)
    changes = [item for item in more if is_override(item) and not Path(item).exists()]
    return [*text, *(item for item in more if item not in changes)], changes


def _recorded(exported: Path, stage: str) -> Experiment:
    """The experiment that an exported folder records, for the sake of one of its stages."""
    from sumi_core.export.loading import read_record
    from sumi_core.export.record import RECORD

    return resolve_for(stage, read_record(exported / RECORD)["experiment"], str(exported / RECORD))


def _cell(project: Project, target: Target) -> Cell | None:
    """The cell that was named, or None where a run, a fingerprint or a folder was."""
    if target.experiment is None:
        return None
    return select_cells(project.sweeps(target.overrides, [target.key]), [target.key])[0]


def _evaluation(project: Project, target: Target, experiment: Experiment) -> Artifact:
    """The evaluation of a model, in the run of its cell."""
    from sumi_core.lineage.tracking import tracked_failure
    from sumi_core.stages.computation import Computation

    cell, tracking = _cell(project, target), project.tracking
    computation = Computation(project.store, log=note, progress=_progress)
    run_id = None
    if cell is not None:
        project.changed_cells.remember([cell])
        run_id = tracking.open_cell(cell)
        computation.provenance["mlflow_run_id"] = run_id
    with tracked_failure(tracking, run_id):
        artifact, _ = computation.ensure(experiment, target.key, "evaluation")
        if run_id is not None:
            _record_stages(project, experiment, run_id)
    return artifact


def _record_stages(project: Project, experiment: Experiment, run_id: str) -> None:
    """Put what is whole of a cell into its run, and end it."""
    for stage in stages_of(experiment):
        artifact = project.store.find(stage, stage_fingerprint(experiment, stage))
        if artifact is not None:
            project.tracking.record_stage(run_id, artifact)
    project.tracking.close(run_id)


def _other_text(
    project: Project,
    target: Target,
    exported: Path,
    experiment: Experiment,
    paths: Sequence[str],
    column: str,
    overlap: int,
) -> tuple[str, Artifact]:
    """The likelihood of other text, in the run of its model; with the name of the text."""
    from sumi_core.data.sources.by_suffix import Files
    from sumi_core.data.sources.source import SourceError
    from sumi_core.data.tokenizers.tokenizer import TokenizerError
    from sumi_core.stages.other_text import TextError, measure_text

    model = target.fingerprints["exported_model"]
    try:
        files = Files([os.path.abspath(os.path.expanduser(path)) for path in paths], column)
        artifact, _ = measure_text(
            project.store,
            exported,
            model,
            experiment,
            target.key,
            files,
            overlap=overlap,
            log=note,
            progress=_progress,
        )
    except SourceError as error:
        key, _, problem = str(error).partition(": ")
        raise ConfigError("command line", "--column" if key.endswith("column") else "--text", problem) from None
    except TokenizerError as error:
        problem = str(error).removeprefix("tokenizer: ").rpartition("; ")[0]
        raise ConfigError("command line", "--text", f"{problem}; leave that text out") from None
    except TextError as error:
        raise ConfigError("command line", "--text", str(error)) from None
    except OSError as error:
        if error.filename is None or Path(error.filename).is_relative_to(project.store.root):
            raise
        problem = f"cannot read {error.filename}: {error.strerror}; name files that can be read"
        raise ConfigError("command line", "--text", problem) from None
    _record(project, target, model, artifact)
    return artifact.summary["name"], artifact


def _record(project: Project, target: Target, model: str, artifact: Artifact) -> None:
    """Put the figures of a text into the run of the model; that of a cell is made if it is missing."""
    cell, tracking = _cell(project, target), project.tracking
    run_id = target.mlflow_run_id
    if run_id is None and mlflow_exists(project):
        run = tracking.find_cell(cell) if cell is not None else tracking.find_model(model)
        run_id = str(run.info.run_id) if run is not None else None
    if run_id is None and cell is not None:
        run_id = tracking.open_cell(cell)
        _record_stages(project, cell.experiment, run_id)
    if run_id is None:
        note("no MLflow run has this model; the figures are in the store alone")
    else:
        tracking.record_text(run_id, artifact)


def _print(target: Target, measured: Iterable[tuple[str, Artifact]]) -> None:
    from sumi_core.base.text import render_text_table, text_width, with_error

    rows: list[dict[str, str]] = []
    folders: list[str] = []
    for name, artifact in measured:
        found = artifact.summary
        sign = "=" if found["exact"] else "≤"
        if "bits_per_byte_stderr" not in found:
            note(f"{name} is one document, and an error over documents takes two")
        noise = "" if found["exact"] else with_error(found.get("bits_per_byte_mc_stderr"), digits=4)
        rows.append(
            {
                "text": name,
                "bits per byte": with_error(found["bits_per_byte"], found.get("bits_per_byte_stderr"), sign),
                "Monte-Carlo error": noise,
                "nats per token": with_error(found["nats_per_token"], found.get("nats_per_token_stderr"), sign),
                **{unit: f"{found[unit]:,}" for unit in ("documents", "sequences", "bytes")},
            }
        )
        folders.append(f"{name}: {artifact.folder}")
    print(target.request, render_text_table(rows, text_width(sys.stdout)), "", *folders, sep="\n")


def _progress(done: float, total: float, unit: str, text: str) -> None:
    """A line that overwrites itself, on a terminal only."""
    if sys.stderr.isatty():
        share = f" {done:,.0f} of {total:,.0f} {unit}" if total else ""
        end = "\r\x1b[K" if total and done >= total else ""
        print(f"\r\x1b[K{text}{share}{end}", end="", file=sys.stderr, flush=True)
