"""How large an experiment is, from its config alone, before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sumi_core.data import TOKENIZERS
from sumi_core.experiments.references import StageRef, ancestors, stage_refs
from sumi_core.experiments.schema import Experiment
from sumi_core.layouts import LAYOUTS
from sumi_core.models import ATTENTION_PATTERNS, feedback_source
from sumi_core.models.config import ModelConfig
from sumi_core.models.size import flops_per_token, mean_embedding_flops, num_parameters
from sumi_core.objectives import OBJECTIVES

if TYPE_CHECKING:
    from sumi_core.layouts.layout import Layout

_TRAINING = "pretrained_denoiser"  # the stage whose output holds weights
_PREDICTOR = ".feedback.of"  # how the key of the option ends that names another cell whose model gives feedback


@dataclass(frozen=True)
class Size:
    """parameters: of the denoiser. tokens_per_step: over all devices. tokens: seen in the whole training, repetitions
    included. training_bytes: float32 weights, gradients and optimizer state; activations come on top. flops: of the
    training, forward and backward. total_flops: with those of the trainings that its weights come from."""

    parameters: int
    tokens_per_step: int
    tokens: int
    training_bytes: int
    flops: float
    total_flops: float


def experiment_size(experiment: Experiment, vocabulary: int) -> Size:
    """The size of an experiment over ``vocabulary`` tokens. Whole numbers of any length: nothing is allocated."""
    training = experiment.training
    parameters = num_parameters(experiment.model, vocabulary)
    copies = 4 + (training.ema_decay > 0)  # weights, gradients, Adam's two moments, their average
    per_step = training.batch_size * experiment.shards.sequence_length
    flops = training_flops(experiment, vocabulary)
    total = flops + earlier_flops(experiment, vocabulary)
    return Size(parameters, per_step, per_step * training.steps, 4 * copies * parameters, flops, total)


def training_flops(experiment: Experiment, vocabulary: int) -> float:
    """Training FLOPs of an experiment over ``vocabulary`` tokens, those of what it starts from left out; infinite
    beyond what a float holds."""
    training, length = experiment.training, experiment.shards.sequence_length
    try:
        return flops_of_token(experiment, vocabulary) * (training.steps * training.batch_size * length)
    except OverflowError:
        return math.inf


def flops_of_token(experiment: Experiment, vocabulary: int) -> float:
    """Training FLOPs of one token over ``vocabulary`` tokens, those of an earlier pass that gives feedback among
    them."""
    fed = feedback_source(experiment.objective) is not None
    logits = OBJECTIVES.get(experiment.objective["name"]).logits_per_token
    own = _flops_of_pass(experiment, experiment.model, vocabulary, logits=logits, training=True, fed=fed)
    if not fed:
        return own
    asked = [ref.experiment.model for ref in stage_refs(experiment) if ref.key.endswith(_PREDICTOR)]
    predictor = asked[0] if asked else experiment.model
    earlier = _flops_of_pass(experiment, predictor, vocabulary, logits=1, training=False, fed=False)
    return own + earlier + mean_embedding_flops(experiment.model, vocabulary)


def _flops_of_pass(
    experiment: Experiment, model: ModelConfig, vocabulary: int, *, logits: int, training: bool, fed: bool
) -> float:
    """FLOPs for one token of a pass of ``model`` over what the experiment shows it. logits: rows for each."""
    length = experiment.shards.sequence_length
    layout: Layout = LAYOUTS.from_config(experiment.layout)
    slots, pattern = layout.slots(length), ATTENTION_PATTERNS.from_config(model.attention)
    told_each = model.time_conditioning != "none" and (layout.level_per_slot or level_per_token(experiment))
    levels = slots if told_each else 1.0
    return flops_per_token(
        model,
        vocabulary,
        length,
        levels,
        slots=slots,
        keys=layout.keys(length, pattern),
        logits=logits,
        training=training,
        fed=fed,
    )


def level_per_token(experiment: Experiment) -> bool:
    """Whether training gives the denoiser a noise level for each token, rather than one for each text."""
    objective = OBJECTIVES.get(experiment.objective["name"])
    return bool(objective.level_per_token(experiment.objective, experiment.to_dict()))


def reads_token_levels(experiment: Experiment) -> bool:
    """Whether the denoiser has learnt to read a noise level for each token: what is given can be told to be clean."""
    return experiment.model.time_conditioning != "none" and level_per_token(experiment)


def earlier_flops(experiment: Experiment, vocabulary: int) -> float:
    """Training FLOPs of all cells that the weights of this one come from, each training once. Weights go from cell to
    cell with their tokenizer, so the vocabulary is the same."""
    return float(sum(training_flops(ref.experiment, vocabulary) for ref in earlier_trainings(experiment)))


def earlier_trainings(experiment: Experiment) -> list[StageRef]:
    """The trainings that the weights of an experiment come from, each once, the first one first."""
    return [ref for ref in ancestors(experiment, of_model=True) if ref.stage == _TRAINING]


def expected_vocabulary(tokenizer: Mapping[str, Any]) -> int | None:
    """How many tokens a tokenizer will have at most, None where only the tokenizer itself can tell."""
    size: int | None = TOKENIZERS.get(tokenizer["name"]).expected_size(tokenizer)
    return size
