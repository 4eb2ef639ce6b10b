"""``sumi sample``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sumi_core.config import ConfigError
from sumi_core.lineage.targets import EXPORT_RECORD, LineageError, find_target
from sumi_core.project import Project

if TYPE_CHECKING:
    from torch import Tensor

    from sumi_core.data.tokenizers import Tokenizer


def sample_command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A cell, an MLflow run id, or the folder of an exported model.")
    ],
    prompt: Annotated[str, typer.Option(help="Text that every sample begins with.")] = "",
    num: Annotated[int, typer.Option(min=1, help="How many texts.")] = 4,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Network calls of a diffusion sampler; default: the most it was evaluated at."),
    ] = None,
    length: Annotated[
        int | None, typer.Option(min=2, help="Tokens of each text, prompt included; default: the trained length.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same texts.")] = 0,
) -> None:
    """Write texts with a trained model. Characters that would act on the terminal are shown escaped."""
    from sumi_core.evaluation.rendering import visible
    from sumi_core.evaluation.samples import shown_text
    from sumi_core.export import load_exported
    from sumi_core.training.process import exact_numerics

    exported = load_exported(exported_folder(Project.find(), name))
    experiment, tokenizer, sampler = exported.experiment, exported.tokenizer, exported.parts.sampler
    trained = experiment.shards.sequence_length
    length = length or trained
    if length > trained:
        note(f"{length} tokens is longer than the {trained} it was trained on; expect the text to decay beyond them")
    ids = prompt_ids(prompt, tokenizer, length)
    if steps is not None and not sampler.needs_process:
        note(f"--steps means nothing to {name}: it writes token by token")
    with exact_numerics(experiment.runtime):
        denoiser = exported.denoiser.to(_device(experiment.runtime.device)).eval()
        samples = sampler.sample(
            denoiser,
            num=num,
            length=length,
            steps=steps or max(experiment.evaluation.sampling_steps),
            seed=seed,
            prompt=ids,
        )
    note(f"{num} texts of {length} tokens, seed {seed}, {samples.evaluations} network calls each")
    for number, row in enumerate(samples.tokens.cpu().numpy(), start=1):
        print(f"--- {number}" if num > 1 else "---")
        print(visible(shown_text(row, tokenizer)))


def exported_folder(project: Project, name: str) -> Path:
    """The exported model that ``name`` means. Raises LineageError when it is not computed."""
    target = find_target(project, name)
    if target.folder is not None and (target.folder / EXPORT_RECORD).is_file():
        return target.folder
    own = target.fingerprints.get("exported_model")
    artifact = project.store.find("exported_model", own) if own else None
    if artifact is None:
        raise LineageError(f"'{name}' has no exported model here; run `sumi run {target.key}` first")
    return artifact.folder


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


def _device(wanted: str) -> str:
    import torch

    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def note(line: str) -> None:
    """Say something that is no part of the texts."""
    print(f"sumi: {line}", file=sys.stderr, flush=True)
