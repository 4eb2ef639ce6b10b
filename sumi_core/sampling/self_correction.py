"""Gibbs corrections of a finished text."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field

from sumi_core.corruption.clocks import Clocks
from sumi_core.models.interface import DenoiserFunction
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.gibbs import Corrector

if TYPE_CHECKING:
    from torch import Tensor


class SelfCorrection(Corrector):
    """A finished text taken back to a low level, corrected there, and denoised again.

    The text is one that is given (``Canvas.revises``), or one that this sampler writes first, with ``steps`` ancestral
    steps. Then noise hits a share of its tokens, ``corrections`` positions are redrawn one by one, and the remaining
    times of the same ``steps`` lead back to a text. With the exact denoiser a text drawn from p leaves as one
    drawn from p, up to the width of the last steps, so this is a sampler of p; any other text comes closer to p.
    """

    revises: ClassVar[bool] = True

    @dataclass
    class Options(Corrector.Options):
        noise: Annotated[
            float,
            Field(gt=0.0, lt=1.0, description="share of a finished text's tokens that noise hits before correction"),
        ] = 0.1
        corrections: Annotated[
            int, Field(ge=0, le=2**16, description="positions redrawn at that level, a network call each")
        ] = 32

    options: Options

    def start(self, canvas: Canvas) -> Canvas:
        started = super().start(canvas)
        if not canvas.revises:
            return started
        return dataclasses.replace(started, tokens=canvas.tokens, age=canvas.steps)

    def step(self, denoiser: DenoiserFunction, canvas: Canvas) -> Canvas:
        if canvas.age < canvas.steps:
            return super().step(denoiser, canvas)
        times, number = self._back(canvas.steps), canvas.age - canvas.steps
        if number == 0:
            canvas = self._noised(canvas, times[0])
        if number < self.options.corrections:
            return self.correct(denoiser, canvas, times[0], number)
        return self._denoised(denoiser, canvas, times, number - self.options.corrections)

    def finished(self, canvas: Canvas) -> Tensor:
        calls = canvas.steps + self.options.corrections + len(self._back(canvas.steps)) - 1
        return torch.full_like(canvas.done, canvas.age >= calls)

    def _back(self, steps: int) -> Tensor:
        """The time that a finished text is taken back to, and from there down to 0: float64, falling."""
        share = torch.tensor([1 - self.options.noise], dtype=torch.float64)
        back, times = self.process.time_of_alpha(share), self.levels(steps)
        return torch.cat([back, times[times < back]])

    def _noised(self, canvas: Canvas, time: Tensor) -> Canvas:
        assert isinstance(canvas.state, Clocks)
        level = canvas.state.at(time.to(canvas.device).expand(len(canvas.tokens))).level
        z = self.process.corrupt(canvas.tokens, level, canvas.noise("sample_back", 0))
        return canvas.written(z, predicted=None)  # what was predicted of the finished text is no feedback for this one
