"""``sumi sample``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.arguments import Changes
from sumi_core.base.options import MAX_SEED, ConfigError
from sumi_core.experiments.resolve import resolve_recorded
from sumi_core.experiments.schema import Experiment
from sumi_core.lineage.project import Project
from sumi_core.lineage.targets import EXPORT_RECORD, LineageError, Target, find_target

if TYPE_CHECKING:
    from torch import Tensor

    from sumi_core.data.tokenizers.tokenizer import Tokenizer


def sample_command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A cell, an MLflow run id, or the folder of an exported model.")
    ],
    changes: Changes = None,
    prompt: Annotated[str, typer.Option(help="Text that every sample begins with.")] = "",
    num: Annotated[int, typer.Option(min=1, help="How many texts.")] = 4,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Network calls of a diffusion sampler; default: the most it was evaluated at."),
    ] = None,
    length: Annotated[
        int | None, typer.Option(min=2, help="Tokens of each text, prompt included; default: the trained length.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="The same seed gives the same texts.")] = 0,
) -> None:
    """Write texts with a trained model.

    A cell's own `evaluation` section says which sampler and how many steps, a folder's own record where a folder is
    named. Characters that would act on the terminal are shown escaped."""
    from sumi_core.base.numerics import choose_device, deterministic
    from sumi_core.base.text import counted, visible
    from sumi_core.evaluation.samples import shown_text
    from sumi_core.experiments.build import build_parts
    from sumi_core.export.loading import load_exported

    project = Project.find()
    target = find_target(project, name, changes or ())
    exported = load_exported(exported_folder(project, target))
    experiment, tokenizer = sampled_experiment(project, target) or exported.experiment, exported.tokenizer
    sampler = build_parts(experiment, exported.parts.vocabulary).sampler
    trained = experiment.shards.sequence_length
    length = length or trained
    if length > trained:
        note(f"{length} tokens is longer than the {trained} it was trained on; expect the text to decay beyond them")
    ids = prompt_ids(prompt, tokenizer, length)
    if steps is not None and not sampler.uses_steps:
        note(f"--steps means nothing to {name}: it writes token by token")
    with deterministic(experiment.runtime.threads):
        denoiser = exported.denoiser.to(choose_device(experiment.runtime.device)).eval()
        samples = sampler.sample(
            denoiser,
            num=num,
            length=length,
            steps=steps or max(experiment.evaluation.sampling_steps),
            seed=seed,
            prompt=ids,
        )
    calls = counted(int(samples.nfe.max()), "network call")
    note(f"{counted(num, 'text')} of {length} tokens, seed {seed}, {calls}{' each' if num > 1 else ''}")
    for number, row in enumerate(samples.tokens.cpu().numpy(), start=1):
        print(f"--- {number}" if num > 1 else "---")
        print(visible(shown_text(row, tokenizer)))


def exported_folder(project: Project, target: Target) -> Path:
    """The exported model of ``target``. Raises LineageError when it is not computed."""
    if target.folder is not None and (target.folder / EXPORT_RECORD).is_file():
        return target.folder
    own = target.fingerprints.get("exported_model")
    artifact = project.store.find("exported_model", own) if own else None
    if artifact is None:
        raise LineageError(f"'{target.given}' has no exported model here; run `sumi run {target.request}` first")
    return artifact.folder


def sampled_experiment(project: Project, target: Target) -> Experiment | None:
    """Whose sampler, steps and threads are meant: the cell's that was named, or the evaluation's that a run or a folder
    stands for. An export records those of the cell it was first made for, which may be another. None: only they are
    known."""
    own = target.fingerprints.get("evaluation")
    if target.experiment is not None or own is None:
        return target.experiment
    evaluation = project.store.find("evaluation", own)
    return resolve_recorded(evaluation.manifest["experiment"], str(evaluation.folder)) if evaluation else None


def prompt_ids(prompt: str, tokenizer: Tokenizer, length: int) -> Tensor | None:
    """The prompt's tokens ``[P]``, P < length. Raises ConfigError for one that leaves no room."""
    import torch

    if not prompt:
        return None
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError("command line", "--prompt", "is not UTF-8 text; set the terminal to UTF-8") from None
    ids = torch.as_tensor(tokenizer.encode_batch([prompt])[0].astype("int64"))
    if len(ids) >= length:
        problem = f"has {len(ids)} tokens, which leaves nothing to write in {length}; shorten it or raise --length"
        raise ConfigError("command line", "--prompt", problem)
    return ids


def note(line: str) -> None:
    """Say something that is no part of the texts."""
    print(f"sumi: {line}", file=sys.stderr, flush=True)
