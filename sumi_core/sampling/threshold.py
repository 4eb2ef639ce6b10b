"""The threshold sampler: every token that is sure enough (Fast-dLLM, 2505.22618)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.sampling.adaptive import Adaptive
from sumi_core.sampling.rules import Belief, Reading, Rule

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ThresholdRule(Rule):
    """Accept the most probable token wherever its probability is at least ``threshold`` (Fast-dLLM, 2505.22618), and in
    step j of N at least the ⌈n·j/N⌉ surest of n, so that no more than N steps are needed. A row is done when all
    are."""

    threshold: float

    def read(self, logits: Tensor, z: Tensor, number: int, steps: int, draw: Callable[[Tensor], Tensor]) -> Reading:
        chance, best = logits.softmax(-1).max(-1)
        return Reading(best, best, chance)

    def decided(self, belief: Belief, reading: Reading, number: int, steps: int, noise: Callable[[], Tensor]) -> Belief:
        chance, best = reading.sure, reading.best
        falling = torch.where(belief.open, chance, -1.0).argsort(dim=-1, descending=True, stable=True)
        least = -(-belief.count * (number + 1) // steps)
        accepted = (chance >= self.threshold) | (falling.argsort(-1) < least) | ~belief.open
        after = belief.after(torch.where(accepted, best, noise()), best, accepted)
        return replace(after, done=after.accepted.all(-1))


class Threshold(Adaptive):
    """Accepts every token whose probability reaches a threshold, at least so many that the steps suffice, and turns the
    others back to noise (``ThresholdRule``). It emits the most probable tokens: no draw from the model."""

    @dataclass
    class Options(Part.Options):
        threshold: Annotated[
            float, Field(gt=0.0, le=1.0, description="the least probability with which a token is accepted")
        ] = 0.9

    def _rule(self) -> Rule:
        return ThresholdRule(self.options.threshold)
