"""Which tokens of a block a step accepts: rules on distributions alone, without a network or a layout.

A rule sees the logits of p(x_i | z) at every place of a block. It takes a token for each, accepts some of them, and
turns the others back to noise; nothing that is accepted stays so for good. What it emits in the end are the most
probable tokens, so a rule draws from no model and has no likelihood (docs/mathematics.md 12).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from torch import Tensor


class Draws(Protocol):
    """Where a rule's random numbers come from: for each step once tokens, then noise."""

    def tokens(self, probs: Tensor) -> Tensor:
        """One token from each distribution ``[B, n, V]``: ``[B, n]`` int64."""
        ...

    def noise(self) -> Tensor:
        """Pure noise, ``[B, n]`` int64."""
        ...


@dataclass(frozen=True)
class Belief:
    """What a rule remembers of a block. z: ``[B, n]``, on its way. best: ``[B, n]``, the most probable tokens. history:
    ``[stability, B, n]``, those of earlier steps, −1 where there were none. logits: ``[B, n, V]`` of the last step, as
    the rule sharpened them; None before the first. accepted: ``[B, n]`` bool. done: ``[B]`` bool, rows that are to
    change no more."""

    z: Tensor
    best: Tensor
    history: Tensor
    logits: Tensor | None
    accepted: Tensor
    done: Tensor

    @classmethod
    def of(cls, z: Tensor, stability: int = 0) -> Belief:
        """Before the first step."""
        history = torch.full((stability, *z.shape), -1, dtype=torch.int64, device=z.device)
        none = torch.zeros_like(z, dtype=torch.bool)
        return cls(z, z, history, None, none, none[:, 0])


class Rule(ABC):
    """A rule that decides which tokens are accepted."""

    @abstractmethod
    def first(self, z: Tensor) -> Belief:
        """What is remembered before the first step of a block that begins as ``z`` ``[B, n]``."""

    @abstractmethod
    def step(self, belief: Belief, logits: Tensor, number: int, steps: int, draws: Draws) -> Belief:
        """One step, its number counted from 0, of at most ``steps``. logits: of p(x_i | z), ``[B, n, V]``."""


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

    def first(self, z: Tensor) -> Belief:
        return Belief.of(z, self.stability)

    def step(self, belief: Belief, logits: Tensor, number: int, steps: int, draws: Draws) -> Belief:
        left = torch.tensor(steps - number, dtype=logits.dtype, device=logits.device)
        logits = logits / (self.t_min + (self.t_max - self.t_min) * (left / steps))
        probs = logits.softmax(-1)
        drawn, best, entropy = draws.tokens(probs), logits.argmax(-1), torch.special.entr(probs).sum(-1)
        rising, order = entropy.sort(-1)
        within = rising.cumsum(-1) - rising <= self.entropy_bound
        accepted = torch.zeros_like(within).scatter(-1, order, within)
        z = torch.where(accepted, drawn, draws.noise())
        after = _kept_where_done(belief, Belief(z, best, belief.history, logits, accepted, belief.done))
        assert after.logits is not None
        stable = (belief.history == after.best).all(-1).all(0)
        sure = torch.special.entr(after.logits.softmax(-1)).sum(-1).mean(-1) < self.confidence
        history = torch.cat([belief.history, after.best[None]])[1:] if self.stability else belief.history
        return replace(after, history=history, done=belief.done | (stable & sure))


@dataclass(frozen=True)
class ThresholdRule(Rule):
    """Accept the most probable token wherever its probability is at least ``threshold`` (Fast-dLLM, 2505.22618), and in
    step j of N at least the ⌈n·j/N⌉ surest, so that no more than N steps are needed. A row is done when all are."""

    threshold: float

    def first(self, z: Tensor) -> Belief:
        return Belief.of(z)

    def step(self, belief: Belief, logits: Tensor, number: int, steps: int, draws: Draws) -> Belief:
        chance, best = logits.softmax(-1).max(-1)
        n = best.shape[-1]
        place = chance.argsort(dim=-1, descending=True, stable=True).argsort(-1)
        accepted = (chance >= self.threshold) | (place < -(-n * (number + 1) // steps))
        z = torch.where(accepted, best, draws.noise())
        after = _kept_where_done(belief, Belief(z, best, belief.history, logits, accepted, belief.done))
        return replace(after, done=after.accepted.all(-1))


def _kept_where_done(belief: Belief, after: Belief) -> Belief:
    """``after`` a step, but in rows that were done what they had."""
    if belief.logits is None or after.logits is None:
        return after
    done = belief.done[:, None]
    return replace(
        after,
        z=torch.where(done, belief.z, after.z),
        best=torch.where(done, belief.best, after.best),
        accepted=torch.where(done, belief.accepted, after.accepted),
        logits=torch.where(done[..., None], belief.logits, after.logits),
    )
