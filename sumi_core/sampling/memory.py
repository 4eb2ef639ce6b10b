"""What a sampler's network has read or predicted of a text, kept for later calls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch

from sumi_core.corruption.belief import BeliefReader
from sumi_core.corruption.process import ForwardProcess
from sumi_core.models.cache import KeyValues
from sumi_core.models.interface import Belief, DenoiserFunction, DenoiserInput, FromLogits, TakesFeedback

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Memory:
    """What the network has read, shared by the canvases of one run. text: ``[B, n]``, the tokens in the cache."""

    cache: KeyValues
    text: Tensor

    def back_to(self, text: Tensor, kept: int) -> tuple[KeyValues, int]:
        """The cache with the first ``kept`` tokens of ``text`` in it and no others, or with none where another text
        was read since; and how many there are. So a canvas steps alike however often, whatever came of it before."""
        if not torch.equal(self.text[:, :kept], text[:, :kept]):
            kept = 0
        self.cache.crop(kept)
        self.text = self.text[:, :kept]
        return self.cache, kept


@dataclass(frozen=True)
class Reading:
    """What a canvas has of the memory: the first ``kept`` tokens, after the end-of-text token that starts a text."""

    memory: Memory
    kept: int


@dataclass
class RaggedMemory:
    """As ``Memory``, of rows that have read different numbers of tokens. text: ``[B, W]``, of which the cache holds the
    first ``cache.lengths[b]`` of row b."""

    cache: KeyValues
    text: Tensor

    def back_to(self, text: Tensor, kept: Tensor) -> tuple[KeyValues, Tensor]:
        """The cache with the first ``kept[b]`` tokens of each row of ``text`` ``[B, W]``, or with none of a row of
        which another text was read since; and how many there are, ``[B]``."""
        place = torch.arange(text.shape[1], device=text.device)
        other = ((self.text != text) & (place < kept[:, None])).any(-1) | (self.cache.lengths < kept)
        kept = torch.where(other, 0, kept)
        self.cache.crop(kept)
        return self.cache, kept


def fed(
    denoiser: DenoiserFunction,
    process: ForwardProcess,
    given: DenoiserInput,
    level: Tensor,
    predicted: Tensor,
    where: Tensor,
) -> DenoiserInput:
    """What a network that takes feedback is given. level: of the tokens now, broadcastable to ``[B, L]``. predicted:
    leave-one-out logits ``[B, L, S]`` of an earlier step. where: positions that have feedback, ``[B, L]`` bool."""
    output = FromLogits(lambda tokens, told: predicted)(given)
    belief = Belief(output, BeliefReader(process, given.tokens, level), where)
    return replace(given, feedback=cast(TakesFeedback, denoiser).feedback(belief))
