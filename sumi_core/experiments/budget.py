"""What every cell of a sweep may spend on training, in tokens or in FLOPs; the number of steps follows from it.

A step sees batch_size · sequence_length tokens. ``supervised_tokens`` counts those that have a loss, by the share that
the objective expects: all under uniform noise, about half under absorbing noise or span clocks. A token costs what
``models.size`` says: the model's matrices and its attention, forward and backward. ``total_flops`` also counts the
trainings that a cell's weights come from, so that a cell that starts from another one is compared with one that starts
from nothing. That other cell is in a file of its own: in the same file it would spend the whole budget itself. Steps
are whole, so a cell comes within ``TOLERANCE`` of the budget or is refused: cells that spend different amounts answer
no question about methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from sumi_core.base.options import ConfigError
from sumi_core.experiments.schema import Experiment
from sumi_core.experiments.size import earlier_flops, earlier_trainings, expected_vocabulary, flops_of_token
from sumi_core.objectives import OBJECTIVES

TOLERANCE = 0.01
MAX_STEPS = 10**9


@dataclass
class Budget:
    """One of the four, equal for every cell; none: each cell has its own ``training.steps``."""

    tokens: Annotated[float | None, Field(gt=0.0, description="tokens seen in training, repetitions included")] = None
    supervised_tokens: Annotated[
        float | None,
        Field(gt=0.0, description="tokens seen in training that have a loss, as the noise leads to expect"),
    ] = None
    flops: Annotated[
        float | None, Field(gt=0.0, description="floating-point operations of the training, forward and backward")
    ] = None
    total_flops: Annotated[
        float | None,
        Field(gt=0.0, description="FLOPs of the training, with those of the cells it starts from"),
    ] = None

    def steps(self, experiment: Experiment, where: str) -> int:
        """Optimizer steps that spend the budget. ``where``: the file whose cells have it. Raises ConfigError when no
        whole number of them comes close, or when nothing is left of it."""
        tokens, spent = experiment.training.batch_size * experiment.shards.sequence_length, 0.0
        if self.tokens is not None:
            key, budget, per_step = "budget.tokens", self.tokens, float(tokens)
        elif self.supervised_tokens is not None:
            key, budget = "budget.supervised_tokens", self.supervised_tokens
            per_step = tokens * expected_supervision(experiment)
        elif self.flops is not None:
            key, budget = "budget.flops", self.flops
            per_step = tokens * training_flops_per_token(experiment, where, key)
        else:
            assert self.total_flops is not None
            key, budget = "budget.total_flops", self.total_flops
            per_step = tokens * training_flops_per_token(experiment, where, key)
            _refuse_siblings(experiment, where, key)
            spent = earlier_flops(experiment, expected_vocabulary(experiment.tokenizer) or 0)
            if spent and budget - spent < per_step:
                problem = f"the cells that this one starts from spend {spent:.6g} of {budget:.6g}"
                problem += ", so no step is left for it; write more"
                raise ConfigError(where, key, problem)
        left = budget - spent
        steps = max(1, round(left / per_step))
        if steps > MAX_STEPS:
            raise ConfigError(where, key, f"makes {steps:.3g} steps, more than {MAX_STEPS:,}; spend less")
        if abs(steps * per_step - left) > TOLERANCE * budget:
            raise ConfigError(
                where,
                key,
                f"{left:.6g} are {left / per_step:.4g} steps of {per_step:.6g}, and whole steps miss it by more "
                f"than {TOLERANCE:.0%}; write {spent + max(1, int(left / per_step)) * per_step:.6g}, or a larger "
                "budget",
            )
        return steps


def _refuse_siblings(experiment: Experiment, where: str, key: str) -> None:
    """Raise ConfigError where the experiment starts from a cell of its own file, as a phase does: that one has the same
    budget and spends it."""
    own = Path(where).stem
    for ref in earlier_trainings(experiment):
        if ref.cell.partition(".")[0] == own:
            problem = f"every cell of this file has the same budget, and '{ref.cell}', which another one starts from, "
            problem += "spends all of it; write budget: {flops: …}, which counts each cell by itself, or move "
            problem += f"'{ref.cell}' to a file of its own"
            raise ConfigError(where, key, problem)


def expected_supervision(experiment: Experiment) -> float:
    """The share of the tokens seen in training that have a loss."""
    objective = OBJECTIVES.get(experiment.objective["name"])
    return float(objective.expected_supervision(experiment.objective, experiment.to_dict()))


def training_flops_per_token(experiment: Experiment, where: str, key: str = "budget.flops") -> float:
    """``size.flops_of_token`` before there is a tokenizer; a mask's row of the head is left out.

    Raises ConfigError, naming ``key``, where only the tokenizer itself can tell how large the head is."""
    vocabulary = expected_vocabulary(experiment.tokenizer)
    if vocabulary is None:
        name = experiment.tokenizer["name"]
        problem = f"how many tokens tokenizer '{name}' has is not known beforehand; write budget: {{tokens: …}}"
        raise ConfigError(where, key, problem)
    return flops_of_token(experiment, vocabulary)
