"""Ancestral steps with Gibbs corrections between them (Gourevitch et al., 2605.22765)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from sumi_core.models.interface import DenoiserFunction
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.gibbs import Corrector

if TYPE_CHECKING:
    from torch import Tensor


class PredictorCorrector(Corrector):
    """``steps`` ancestral steps with ``corrections`` redrawn positions after each but the last, a network call each:
    steps · (1 + corrections) − corrections calls in all.

    A sampler of p, as ``ancestral``: its distribution comes to p as the steps get finer, and at a given number of steps
    closer as the corrections get more. They leave p_t at the levels of the steps as it is, and take out what an
    ancestral step, which draws all positions independently, brings in. What is said there of given tokens holds here.
    """

    @dataclass
    class Options(Corrector.Options):
        corrections: Annotated[
            int, Field(ge=0, le=2**16, description="positions redrawn after each step but the last, a call each")
        ] = 4

    options: Options

    def step(self, denoiser: DenoiserFunction, canvas: Canvas) -> Canvas:
        more = self.options.corrections
        number, phase = divmod(canvas.age, 1 + more)
        times = self.levels(canvas.steps)
        if phase:
            return self.correct(denoiser, canvas, times[number + 1], number * more + phase - 1)
        return self._denoised(denoiser, canvas, times, number)

    def finished(self, canvas: Canvas) -> Tensor:
        more = self.options.corrections
        return torch.full_like(canvas.done, canvas.age >= canvas.steps * (1 + more) - more)
