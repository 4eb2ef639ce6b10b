"""What every cell of a sweep may spend on training, in tokens or in FLOPs; the number of steps follows from it.

A step sees batch_size · sequence_length tokens. A token costs what ``size.flops_per_token`` says: the model's matrices
and its attention, forward and backward. Steps are whole, so a cell comes within ``TOLERANCE`` of the budget or
is refused: cells that spend different amounts answer no question about methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from sumi_core.base.options import ConfigError
from sumi_core.experiments.schema import Experiment
from sumi_core.experiments.size import expected_vocabulary
from sumi_core.models.size import flops_per_token

TOLERANCE = 0.01
MAX_STEPS = 10**9


@dataclass
class Budget:
    """One of the two, equal for every cell; neither: each cell has its own ``training.steps``."""

    tokens: Annotated[float | None, Field(gt=0.0, description="tokens seen in training, repetitions included")] = None
    flops: Annotated[
        float | None, Field(gt=0.0, description="floating-point operations of the training, forward and backward")
    ] = None

    def steps(self, experiment: Experiment, where: str) -> int:
        """Optimizer steps that spend the budget. Raises ConfigError when no whole number of them comes close."""
        tokens = experiment.training.batch_size * experiment.shards.sequence_length
        if self.tokens is not None:
            key, budget, per_step = "budget.tokens", self.tokens, float(tokens)
        else:
            assert self.flops is not None
            key, budget, per_step = "budget.flops", self.flops, tokens * training_flops_per_token(experiment, where)
        steps = max(1, round(budget / per_step))
        if steps > MAX_STEPS:
            raise ConfigError(where, key, f"makes {steps:.3g} steps, more than {MAX_STEPS:,}; spend less")
        if abs(steps * per_step - budget) > TOLERANCE * budget:
            raise ConfigError(
                where,
                key,
                f"{budget:.6g} are {budget / per_step:.4g} steps of {per_step:.6g}, and whole steps miss it by more "
                f"than {TOLERANCE:.0%}; write {max(1, int(budget / per_step)) * per_step:.6g}, or a larger budget",
            )
        return steps


def training_flops_per_token(experiment: Experiment, where: str) -> float:
    """``size.flops_per_token`` before there is a tokenizer; a mask's row of the head is left out.

    Raises ConfigError where only the tokenizer itself can tell how large the head is."""
    vocabulary = expected_vocabulary(experiment.tokenizer)
    if vocabulary is None:
        name = experiment.tokenizer["name"]
        problem = f"how many tokens tokenizer '{name}' has is not known beforehand; write budget: {{tokens: …}}"
        raise ConfigError(where, "budget.flops", problem)
    return flops_per_token(experiment.model, vocabulary, experiment.shards.sequence_length)
