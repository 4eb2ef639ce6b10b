"""``sumi sample``."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.arguments import Changes
from sumi_core.base.options import MAX_SEED, ConfigError
from sumi_core.lineage.models import (
    LONGEST,
    corrector_of,
    exported_folder,
    sample_length,
    sampled_experiment,
    sampler_of,
    text_ids,
)
from sumi_core.lineage.project import Project
from sumi_core.lineage.targets import find_target

if TYPE_CHECKING:
    from sumi_core.data.tokenizers.tokenizer import Tokenizer
    from sumi_core.sampling.canvas import Canvas
    from sumi_core.sampling.conditions import Condition, Place
    from sumi_core.sampling.film import Camera
    from sumi_core.sampling.sampler import Sampler


def sample_command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A cell, an MLflow run id, or the folder of an exported model.")
    ],
    changes: Changes = None,
    prompt: Annotated[str, typer.Option(help="Text that every sample begins with.")] = "",
    suffix: Annotated[str, typer.Option(help="Text that every sample ends with.")] = "",
    template: Annotated[
        str,
        typer.Option(help="The whole text with gaps to fill in: [[12]] of 12 tokens, [[]] of a free length."),
    ] = "",
    regex: Annotated[str | None, typer.Option(help="A regular expression that what is written matches.")] = None,
    schema: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A JSON schema of what is written, as JSON or YAML.")
    ] = None,
    forbid: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="What is written holds this nowhere. Repeatable.")
    ] = None,
    require: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="What is written holds this somewhere. Repeatable.")
    ] = None,
    conditions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A YAML list with a mapping for each text: prompt, suffix, template, regex, schema, forbid, require, "
            "length.",
        ),
    ] = None,
    correct: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="A finished text to correct, instead of writing new ones: each sample is a correction."
        ),
    ] = None,
    num: Annotated[
        int | None, typer.Option(min=1, help="How many texts; default: 4, or 1 of each condition of a file.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Network calls of a diffusion sampler; default: the most it was evaluated at."),
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Tokens of each text, prompt included; default: the trained length, of which 16 times is the most.",
        ),
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Write a longer text on canvases of the trained length, each given the last N tokens before it.",
        ),
    ] = None,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="End each text at its first end-of-text token.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="The same seed gives the same texts.")] = 0,
    mode: Annotated[
        str | None,
        typer.Option(
            metavar="ar|canvas|speculative|whole",
            help="How a model with two modes writes: token by token, block by block, or token by token with drafts. "
            "The same seed gives the same texts in the first and the last.",
        ),
    ] = None,
    film: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Save a film of the writing: a page with a scrub bar (.html) or a GIF."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show the first text being written, in the terminal.")] = False,
) -> None:
    """Write texts with a trained model.

    The `evaluation` section of a cell decides which sampler and how many steps; for a folder, its record does.
    Characters that would act on the terminal are shown escaped."""
    from sumi_core.base.numerics import choose_device, deterministic
    from sumi_core.base.text import counted, visible
    from sumi_core.experiments.build import build_parts
    from sumi_core.export.loading import load_exported
    from sumi_core.lineage.writing import Writing
    from sumi_core.sampling.film import Camera

    _check_looking(film, watch)
    asked = _conditions(conditions, prompt, suffix, template, regex, schema, forbid, require)
    num = num or (4 if conditions is None else 1)
    project = Project.find()
    target = find_target(project, name, changes or ())
    exported = load_exported(exported_folder(project, target))
    experiment, tokenizer = sampled_experiment(project, target) or exported.experiment, exported.tokenizer
    parts = build_parts(experiment, exported.parts.vocabulary)
    others = {"mode": mode, "conditions": conditions, **dataclasses.asdict(asked[0][0]), "length": length}
    others |= {"overlap": overlap is not None, "until-end": until_end}
    if correct is not None and (other := next((key for key, value in others.items() if value), None)):
        raise ConfigError("command line", "--correct", f"corrects a whole text as it is; leave out --{other}")
    sampler = sampler_of(experiment, parts, mode, name) if correct is None else corrector_of(experiment, parts, name)
    recorded = exported.sumi.get("sampler")
    used = experiment.evaluation.sampler["name"]
    if (
        mode is None
        and correct is None
        and experiment is exported.experiment
        and isinstance(recorded, dict)
        and recorded.get("name") != used
    ):
        note(f"sampler '{recorded.get('name')}' of the record is not at hand; sampling with '{used}'")
    trained = experiment.shards.sequence_length
    if correct is None:
        most = sample_length(length, trained)
        writing = Writing.of(
            experiment, sampler, tokenizer, asked, num=num, length=most, overlap=overlap, until_end=until_end
        )
    else:
        writing = Writing.correcting(sampler, text_ids(correct, tokenizer, LONGEST * trained), num)
    length = writing.longest
    if writing.canvases and (film is not None or watch):
        key = "--film" if film is not None else "--watch"
        raise ConfigError("command line", key, "shows one canvas, and these texts take several; leave out --overlap")
    if length > trained and not writing.canvases:
        note(
            f"{length} tokens is longer than the {trained} it was trained on; expect the text to decay beyond them; "
            "--overlap N writes it on several canvases"
        )
    steps_used = steps or max(experiment.evaluation.sampling_steps)
    for line in writing.notes(steps_used):
        note(line)
    if steps is not None and not sampler.uses_steps:
        note(f"--steps has no effect on {name}, which writes token by token")
    with deterministic(experiment.runtime.threads):
        denoiser = exported.denoiser.to(choose_device(experiment.runtime.device)).eval()
        camera = None if film is None else Camera()
        with _looking(camera, watch, sampler, tokenizer) as look:
            samples = writing.sample(denoiser, steps_used, seed, look)
    texts, calls = writing.texts(samples, tokenizer), counted(int(samples.nfe.max()), "network call")
    made = sum(len(row.tokens) for row in writing.rows) - writing.given
    rate = "" if mode is None else f", {made / int(samples.nfe.sum()):.2f} tokens a call"
    many = len(texts) > 1
    size = f"{'' if len({len(row.tokens) for row in writing.rows}) == 1 else 'up to '}{length} tokens"
    note(f"{counted(len(texts), 'text')} of {size}, seed {seed}, {calls}{' each' if many else ''}{rate}")
    for number, text in enumerate(texts, start=1):
        print(f"--- {number}" if many else "---")
        print(visible(text))
    if film is not None and camera is not None:  # last, so that the texts are there whatever becomes of the file
        _write_film(camera, sampler, tokenizer, film)


def _conditions(
    file: Path | None,
    prompt: str,
    suffix: str,
    template: str,
    regex: str | None,
    schema: Path | None,
    forbid: list[str] | None,
    require: list[str] | None,
) -> list[tuple[Condition, Place]]:
    """What the options say that texts are to hold. Raises ConfigError."""
    from sumi_core.lineage.writing import read_conditions, read_schema
    from sumi_core.sampling.conditions import Condition, Place

    if file is None:
        read = None if schema is None else read_schema(schema)
        own = Condition(prompt, suffix, template, regex, read, forbid or [], require or [])
        return [(own, Place("command line", "--", None if schema is None else str(schema)))]
    others = {
        "prompt": prompt,
        "suffix": suffix,
        "template": template,
        "regex": regex,
        "schema": schema,
        "forbid": forbid,
        "require": require,
    }
    for name, value in others.items():
        if value:
            raise ConfigError(
                "command line", f"--{name}", "the file of --conditions says it for each text; leave it out"
            )
    return read_conditions(file)


def _check_looking(film: Path | None, watch: bool) -> None:
    """Raise ConfigError for a film that could not be written, and for a terminal that is none."""
    if film is not None and film.suffix.lower() not in (".html", ".gif"):
        raise ConfigError("command line", "--film", f"{film} is neither .html nor .gif; name a file of that kind")
    if film is not None and film.is_dir():
        raise ConfigError("command line", "--film", f"{film} is a folder; name a file")
    if film is not None and not film.resolve().parent.is_dir():
        raise ConfigError("command line", "--film", f"there is no folder {film.resolve().parent}; create it")
    if watch and not sys.stderr.isatty():
        raise ConfigError("command line", "--watch", "needs a terminal; write --film FILE to look later")


@contextlib.contextmanager
def _looking(
    camera: Camera | None, watch: bool, sampler: Sampler, tokenizer: Tokenizer
) -> Iterator[Callable[[Canvas], None] | None]:
    """What looks on while texts are written: for a film, for the terminal, for both."""
    looks: list[Callable[[Canvas], None]] = [] if camera is None else [camera]
    with contextlib.ExitStack() as stack:
        if watch:
            from rich.console import Console

            from pipelines.watching import LiveCanvas

            looks.append(stack.enter_context(LiveCanvas(Console(stderr=True), sampler, tokenizer)))

        def look(canvas: Canvas) -> None:
            for each in looks:
                each(canvas)

        yield look if looks else None


def _write_film(camera: Camera, sampler: Sampler, tokenizer: Tokenizer, file: Path) -> None:
    from sumi_core.evaluation.film import write_film

    mask_id = sampler.process.mask_id if sampler.needs_process else None
    write_film(camera.film(sampler), tokenizer, mask_id, file)
    note(f"film: {file}")


def note(line: str) -> None:
    """Print a remark beside the texts, to standard error."""
    print(f"sumi: {line}", file=sys.stderr, flush=True)
