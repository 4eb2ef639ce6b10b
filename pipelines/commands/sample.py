"""``sumi sample``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pipelines.commands.arguments import Changes
from sumi_core.base.options import MAX_SEED, ConfigError
from sumi_core.lineage.models import (
    LONGEST,
    corrector_of,
    exported_folder,
    prompt_ids,
    sample_length,
    sampled_experiment,
    sampler_of,
    text_ids,
)
from sumi_core.lineage.project import Project
from sumi_core.lineage.targets import find_target


def sample_command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A cell, an MLflow run id, or the folder of an exported model.")
    ],
    changes: Changes = None,
    prompt: Annotated[str, typer.Option(help="Text that every sample begins with.")] = "",
    correct: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="A finished text to correct, instead of writing new ones: each sample is a correction."
        ),
    ] = None,
    num: Annotated[int, typer.Option(min=1, help="How many texts.")] = 4,
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
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="The same seed gives the same texts.")] = 0,
    mode: Annotated[
        str | None,
        typer.Option(
            metavar="ar|canvas|speculative",
            help="How a model with two modes writes: token by token, block by block, or token by token with drafts. "
            "The same seed gives the same texts in the first and the last.",
        ),
    ] = None,
) -> None:
    """Write texts with a trained model.

    The `evaluation` section of a cell decides which sampler and how many steps; for a folder, its record does.
    Characters that would act on the terminal are shown escaped."""
    from sumi_core.base.numerics import choose_device, deterministic
    from sumi_core.base.text import counted, visible
    from sumi_core.evaluation.samples import shown_text
    from sumi_core.experiments.build import build_parts
    from sumi_core.export.loading import load_exported

    project = Project.find()
    target = find_target(project, name, changes or ())
    exported = load_exported(exported_folder(project, target))
    experiment, tokenizer = sampled_experiment(project, target) or exported.experiment, exported.tokenizer
    parts = build_parts(experiment, exported.parts.vocabulary)
    if correct is not None and (mode or prompt or length):
        other = "mode" if mode else "prompt" if prompt else "length"
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
    text = None if correct is None else text_ids(correct, tokenizer, LONGEST * trained)
    length = sample_length(length, trained) if text is None else len(text)
    if length > trained:
        note(f"{length} tokens is longer than the {trained} it was trained on; expect the text to decay beyond them")
    ids = prompt_ids(prompt, tokenizer, length)
    if steps is not None and not sampler.uses_steps:
        note(f"--steps has no effect on {name}, which writes token by token")
    with deterministic(experiment.runtime.threads):
        denoiser = exported.denoiser.to(choose_device(experiment.runtime.device)).eval()
        samples = sampler.sample(
            denoiser,
            num=num,
            length=length,
            steps=steps or max(experiment.evaluation.sampling_steps),
            seed=seed,
            prompt=ids,
            text=text,
        )
    calls = counted(int(samples.nfe.max()), "network call")
    given = 0 if ids is None else len(ids)
    rate = "" if mode is None else f", {num * (length - given) / int(samples.nfe.sum()):.2f} tokens a call"
    note(f"{counted(num, 'text')} of {length} tokens, seed {seed}, {calls}{' each' if num > 1 else ''}{rate}")
    for number, row in enumerate(samples.tokens.cpu().numpy(), start=1):
        print(f"--- {number}" if num > 1 else "---")
        print(visible(shown_text(row, tokenizer)))


def note(line: str) -> None:
    """Print a remark beside the texts, to standard error."""
    print(f"sumi: {line}", file=sys.stderr, flush=True)
