"""Drawing texts from a model, and cutting token sequences into texts, bytes and sample sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sumi_core.base.progress import Progress, unwatched
from sumi_core.data.sequences import spread_indices
from sumi_core.evaluation.metrics import SampleSet
from sumi_core.evaluation.yardsticks import END_OF_TEXT

if TYPE_CHECKING:
    from sumi_core.data.tokenizers.tokenizer import Tokenizer
    from sumi_core.evaluation.config import EvaluationConfig
    from sumi_core.models.interface import DenoiserFunction
    from sumi_core.sampling.sampler import Sampler

END_MARK = "⟨end of text⟩"  # how people see an end-of-text token


@dataclass(frozen=True)
class Drawn:
    """Samples at one number of steps."""

    steps: int  # as asked for; L, for a sampler that writes token by token
    nfe: NDArray[np.int64]  # network calls that each sample took, [num]
    tokens: NDArray[np.int64]  # [num, L]


def draw_samples(
    sampler: Sampler,
    denoiser: DenoiserFunction,
    config: EvaluationConfig,
    length: int,
    progress: Progress = unwatched,
) -> list[Drawn]:
    """Texts at each number of ``config.sampling_steps``, rising.

    A sampler that takes the network calls it needs draws once.
    """
    drawn: list[Drawn] = []
    steps_list = sorted(set(config.sampling_steps)) if sampler.uses_steps else [length]
    for done, steps in enumerate(steps_list):
        progress(done, len(steps_list), "sampling runs", f"sampling, {steps} steps")
        samples = sampler.sample(denoiser, num=config.samples, length=length, steps=steps, seed=config.seed)
        drawn.append(Drawn(steps, samples.nfe.cpu().numpy(), samples.tokens.cpu().numpy()))
    return drawn


def split_texts(ids: NDArray[np.integer[Any]], eos_id: int) -> list[NDArray[np.integer[Any]]]:
    """Token ids of every text in a sequence, cut at end-of-text tokens, which belong to no text."""
    ends = np.flatnonzero(ids == eos_id)
    pieces = np.split(ids, ends)
    return [pieces[0], *(piece[1:] for piece in pieces[1:])]


def sequence_bytes(ids: NDArray[np.integer[Any]], tokenizer: Tokenizer) -> bytes:
    """A sequence's UTF-8 bytes with ``END_OF_TEXT`` for each end-of-text token."""
    return END_OF_TEXT.join(tokenizer.decode_bytes(part) for part in split_texts(ids, tokenizer.eos_id))


def sample_set(sequences: Sequence[NDArray[np.integer[Any]]], tokenizer: Tokenizer) -> SampleSet:
    """What metrics see of sequences."""
    return SampleSet(
        sequences, [[tokenizer.decode(p) for p in split_texts(ids, tokenizer.eos_id)] for ids in sequences]
    )


def shown_text(ids: NDArray[np.integer[Any]], tokenizer: Tokenizer) -> str:
    """A sequence as people read it, with a mark where a text ends."""
    return f"\n{END_MARK}\n".join(tokenizer.decode(part) for part in split_texts(ids, tokenizer.eos_id))


def evenly(items: Sequence[Any], count: int) -> list[Any]:
    """``count`` items spread evenly over all of them (all, if there are fewer)."""
    return [items[i] for i in spread_indices(min(count, len(items)), len(items))]
