"""What a training or evaluation step consumes: tokens, and the addresses of their noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sumi_core.data.noise import Noise, stratified_times

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Batch:
    """``B`` sequences of ``L`` tokens, a slice of the global batch of one step.

    tokens: ``[B, L]`` int64. examples: ``[B]`` global example numbers (address of the corruption noise).
    positions: ``[B]`` places in the global batch of ``global_size`` sequences (address of the noise level).
    lengths, width: as of ``Noise``, for sequences that are padded or share their noise.
    """

    tokens: Tensor
    examples: Tensor
    positions: Tensor
    global_size: int
    step: int
    seed: int
    lengths: Sequence[int] | None = None
    width: int | None = None

    def noise(self, stream: str) -> Noise:
        """Per-example random numbers on the tokens' device."""
        where = (self.step, self.examples, self.tokens.device)
        return Noise(self.seed, stream, *where, lengths=self.lengths, width=self.width)

    def times(self, low: float, high: float, *, stratified: bool = True) -> Tensor:
        """One noise level per sequence in [low, high), ``[B]`` float64 on the tokens' device: spread evenly over the
        global batch, or each drawn by itself."""
        if not stratified:
            return low + (high - low) * self.noise("time_alone").uniform(dtype=torch.float64)
        drawn = stratified_times(self.seed, "time", self.step, self.positions.cpu(), self.global_size, low, high)
        return drawn.to(self.tokens.device)
