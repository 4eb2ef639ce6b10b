"""Batches in noise: what training and the bound corrupt, each position at its level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.batch import Batch
from sumi_core.models.interface import DenoiserInput

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NoisyBatch:
    """A batch in noise. x, z: ``[B, L]`` int64. level: t of every position, in [ε, 1 − ε]; weight: the speed of its
    clock over the density that the time was drawn with, so that (1 − 2ε) E[weight · f(level)] = ∫_ε^{1−ε} f dt; both
    float64, ``[B, 1]`` or ``[B, L]``. conditioning_level: what the denoiser is given, ``[B]`` or ``[B, L]``. clocked:
    whether a sequence's levels are those of the process's own clock, ``[B, 1]`` bool. pure: positions that hold pure
    noise, by which nothing of the text is told, ``[B, 1]`` or ``[B, L]`` bool, and which weigh nothing; None: none."""

    x: Tensor
    z: Tensor
    level: Tensor
    weight: Tensor
    conditioning_level: Tensor
    clocked: Tensor
    pure: Tensor | None = None

    @property
    def given(self) -> DenoiserInput:
        """What the denoiser is given."""
        return DenoiserInput(self.z, self.conditioning_level)


def corrupt(
    process: ForwardProcess,
    batch: Batch,
    level: Tensor,
    weight: Tensor,
    conditioning_level: Tensor,
    clocked: Tensor,
    epsilon: float,
) -> NoisyBatch:
    """The batch in noise. level, conditioning_level: in [0, 1], brought into [ε, 1 − ε] here; otherwise as in
    ``NoisyBatch``."""
    level, conditioning_level = (epsilon + (1 - 2 * epsilon) * part for part in (level, conditioning_level))
    z = process.corrupt(batch.tokens, level, batch.noise("corrupt"))
    return NoisyBatch(batch.tokens, z, level, weight, conditioning_level, clocked)


def noise_of_bound(process: ForwardProcess, batch: Batch, epsilon: float) -> NoisyBatch:
    """The noise of the bound: a stratified time for each sequence, by its clocks a level for each position."""
    clocks = process.clock.draw(batch.noise("clock"), batch.tokens.shape[-1])
    time = batch.times(0.0, 1.0)
    reading = clocks.at(time)
    clocked = torch.ones_like(time, dtype=torch.bool).unsqueeze(-1)
    return corrupt(process, batch, reading.level, reading.speed, reading.conditioning_level, clocked, epsilon)
