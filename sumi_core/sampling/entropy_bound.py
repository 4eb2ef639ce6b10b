"""The entropy-bound sampler: the surest tokens together, as far as their entropies allow (Ben-Hamu et al., 2505.24857),
with the re-noising and the stop of DiffusionGemma."""

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
class EntropyBoundRule(Rule):
    """Accept the tokens of least entropy while Σ h − max h ≤ γ (Ben-Hamu et al., 2505.24857), as DiffusionGemma's
    stock sampler does: temperature t_min + (t_max − t_min) · r/N with r of N steps left, this one included.

    γ bounds, at temperature 1 and with exact posteriors, what accepting those tokens independently costs:
    KL(p(x_A | z) ‖ Π p(x_i | z)) ≤ Σ_A h − max_A h nats. A row is done when its most probable tokens are those of the
    last ``stability`` steps and the mean entropy is below ``confidence``.
    """

    entropy_bound: float
    t_min: float
    t_max: float
    stability: int
    confidence: float

    def first(self, z: Tensor, open: Tensor | None = None) -> Belief:
        return Belief.of(z, open, self.stability)

    def sharpened(self, logits: Tensor, number: int, steps: int) -> Tensor:
        """Logits of any shape at the temperature of a step."""
        left = torch.tensor(steps - number, dtype=logits.dtype, device=logits.device)
        return logits / (self.t_min + (self.t_max - self.t_min) * (left / steps))

    def read(self, logits: Tensor, z: Tensor, number: int, steps: int, draw: Callable[[Tensor], Tensor]) -> Reading:
        logits = self.sharpened(logits, number, steps)
        probs = logits.softmax(-1)
        return Reading(logits.argmax(-1), draw(probs), torch.special.entr(probs).sum(-1))

    def decided(self, belief: Belief, reading: Reading, number: int, steps: int, noise: Callable[[], Tensor]) -> Belief:
        entropy = reading.sure
        rising, order = entropy.sort(-1)  # what is certain comes first and costs nothing
        within = rising.cumsum(-1) - rising <= self.entropy_bound
        accepted = torch.zeros_like(within).scatter(-1, order, within)
        after = belief.after(torch.where(accepted, reading.drawn, noise()), reading.best, accepted)
        stable = (belief.history == after.best).all(-1).all(0)
        mean = entropy.sum(-1) / belief.count[:, 0]
        history = torch.cat([belief.history, after.best[None]])[1:] if self.stability else belief.history
        return replace(after, history=history, done=belief.done | (stable & (mean < self.confidence)))


class EntropyBound(Adaptive):
    """Accepts the surest tokens while their entropies add up to little, turns the others back to noise, and stops a
    block, or a text, that is stable and sure (``EntropyBoundRule``): the sampler of DiffusionGemma, with its defaults.
    Its ``steps`` are 48 there. It emits the most probable tokens and sharpens the distributions: no draw from the
    model."""

    version = "2"  # goes on with a block whose tokens are all accepted

    @dataclass
    class Options(Part.Options):
        entropy_bound: Annotated[
            float, Field(gt=0.0, description="γ: accept tokens while Σ entropies − the largest is at most this (nats)")
        ] = 0.1
        t_min: Annotated[float, Field(gt=0.0, description="the temperature to which it falls over the steps")] = 0.4
        t_max: Annotated[float, Field(gt=0.0, description="the temperature of the first step")] = 0.8
        stability: Annotated[
            int, Field(ge=0, le=1024, description="earlier steps whose most probable tokens must be the same to stop")
        ] = 1
        confidence: Annotated[
            float, Field(gt=0.0, description="mean entropy (nats) below which a stable block is done")
        ] = 0.005

    def _rule(self) -> Rule:
        own = self.options
        return EntropyBoundRule(own.entropy_bound, own.t_min, own.t_max, own.stability, own.confidence)
