"""What a rule is: it decides which tokens of a block, or of a whole text, a step accepts. Rules see distributions
alone, no network and no layout; each stands beside its sampler.

A rule reads the logits of p(x_i | z) at every place by itself: a token or two, and a figure of how sure it is. From
these figures together it decides which tokens it accepts, and nothing that is accepted stays so for good, unless the
noise is masks. So a table over the vocabulary is only ever of the places that fit a chunk. Which places a rule accepts
depends on the text, so it draws from no model and has no likelihood (docs/mathematics.md 12).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Reading:
    """What a rule reads at each place by itself, ``[B, n]``. best: the token that it would emit. drawn: the one that
    it would go on with. sure: the figure by which it decides."""

    best: Tensor
    drawn: Tensor
    sure: Tensor


@dataclass(frozen=True)
class Belief:
    """What a rule remembers of a block. z: ``[B, n]``, on its way. open: ``[B, n]`` bool, places that are written; at
    all others z is certain, and counts for nothing. best: ``[B, n]``, the text as it would be if this were the last
    step. history: ``[stability, B, n]``, those of earlier steps, −1 where there were none. accepted: ``[B, n]`` bool.
    done: ``[B]`` bool, rows that are to change no more."""

    z: Tensor
    open: Tensor
    best: Tensor
    history: Tensor
    accepted: Tensor
    done: Tensor

    @classmethod
    def of(cls, z: Tensor, open: Tensor | None = None, stability: int = 0) -> Belief:
        """Before the first step. open: None: everywhere."""
        history = torch.full((stability, *z.shape), -1, dtype=torch.int64, device=z.device)
        none = torch.zeros_like(z, dtype=torch.bool)
        return cls(z, ~none if open is None else open, z, history, none, none[:, 0])

    @property
    def count(self) -> Tensor:
        """Places that are written, ``[B, 1]`` int64, at least 1."""
        return self.open.sum(-1, keepdim=True).clamp(min=1)

    def after(self, z: Tensor, best: Tensor, accepted: Tensor) -> Belief:
        """What a step makes of it; rows that were done keep what they had."""
        done = self.done[:, None]
        return replace(
            self,
            z=torch.where(done, self.z, z),
            best=torch.where(done, self.best, best),
            accepted=torch.where(done, self.accepted, accepted),
        )


class Rule(ABC):
    """A rule that decides which tokens are accepted."""

    def first(self, z: Tensor, open: Tensor | None = None) -> Belief:
        """What is remembered before the first step of a block that begins as ``z`` ``[B, n]``. open: as in a belief;
        None: everywhere."""
        return Belief.of(z, open)

    def settled(self, belief: Belief, number: int, steps: int) -> Tensor:
        """The share of the open places that a step reads as clean, ``[B, 1]`` float64: those that the one before has
        accepted. Where all are, half a token counts as noise: at level 0 nothing could be revised, and what is accepted
        last need not be sure. number, steps: as of ``read``."""
        return share_of((belief.accepted & belief.open).sum(-1, keepdim=True), belief.count)

    @abstractmethod
    def read(self, logits: Tensor, z: Tensor, number: int, steps: int, draw: Callable[[Tensor], Tensor]) -> Reading:
        """What a step, its number counted from 0, of at most ``steps`` reads at some places. logits: of p(x_i | z),
        ``[b, q, V]``, certain where nothing is written. z: ``[b, q]``, what stands there. draw: one token from each
        distribution ``[b, q, V]``."""

    @abstractmethod
    def decided(self, belief: Belief, reading: Reading, number: int, steps: int, noise: Callable[[], Tensor]) -> Belief:
        """What the step makes of what was read everywhere. At every place of a row that was not done it emits ``best``
        of the reading, or what stood there. noise: pure noise, ``[B, n]`` int64, for at most one call."""


def share_of(settled: Tensor, count: Tensor) -> Tensor:
    """``settled`` of ``count`` tokens as a share, float64; of all and more, half a token less."""
    return (settled.double() / count).minimum(1 - 0.5 / count)
