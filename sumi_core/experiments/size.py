"""How large an experiment is, from its config alone: told before anything is computed, whatever the numbers are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sumi_core.data import TOKENIZERS
from sumi_core.experiments.schema import Experiment
from sumi_core.models.size import num_parameters


@dataclass(frozen=True)
class Size:
    """parameters: of the denoiser. tokens_per_step: over all devices. tokens: seen in the whole training, repetitions
    included. training_bytes: float32 weights, gradients and optimizer state; activations come on top."""

    parameters: int
    tokens_per_step: int
    tokens: int
    training_bytes: int


def experiment_size(experiment: Experiment, vocabulary: int) -> Size:
    """The size of an experiment over ``vocabulary`` tokens. Whole numbers of any length: nothing is allocated."""
    training = experiment.training
    parameters = num_parameters(experiment.model, vocabulary)
    copies = 4 + (training.ema_decay > 0)  # weights, gradients, Adam's two moments, their average
    per_step = training.batch_size * experiment.shards.sequence_length
    return Size(parameters, per_step, per_step * training.steps, 4 * copies * parameters)


def expected_vocabulary(tokenizer: Mapping[str, Any]) -> int | None:
    """How many tokens a tokenizer will have at most, None where only the tokenizer itself can tell."""
    size: int | None = TOKENIZERS.get(tokenizer["name"]).expected_size(tokenizer)
    return size
