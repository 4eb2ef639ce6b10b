"""Ancestral sampling: walk the reverse process from pure noise to text (design: math.md 7; D3PM, 2107.03006)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from sumi_core.base.registry import Part
from sumi_core.corruption.categorical import draw_categorical
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.noise import Noise
from sumi_core.models.interface import DenoiserFunction
from sumi_core.sampling.sampler import Sampler

_LOG_SNR_END = 9.0  # α from 1.2e-4 to 1 − 1.2e-4, Sumi's range


class Ancestral(Sampler):
    """``steps`` network calls at falling times t; the last one draws clean tokens from the posterior.

    spacing ``time``: times 1, 1 − 1/steps, …, 1/steps. spacing ``log_snr``: times evenly spaced in the log-SNR of a
    position whose clock shows t itself (Sumi, 2606.19005), dense at both ends. The first is pure noise, t = 1, in
    either. Positions step from and to the levels that their clocks show; one whose clock stands keeps its state.
    """

    @dataclass
    class Options(Part.Options):
        spacing: Annotated[
            Literal["time", "log_snr"],
            Field(description="where the steps lie: evenly in time, or evenly in the log-SNR"),
        ] = "time"

    process: ForwardProcess
    options: Options

    def levels(self, steps: int) -> Tensor:
        """The times the network is asked at and, last, 0: ``[steps + 1]`` float64, falling from 1."""
        if self.options.spacing == "log_snr":
            log_snr = torch.linspace(-_LOG_SNR_END, _LOG_SNR_END, steps, dtype=torch.float64)
            levels = self.process.time_of_alpha(torch.sigmoid(log_snr))
            levels[0] = 1.0
            return torch.cat([levels, levels.new_zeros(1)])
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64)

    def _draw(
        self, denoiser: DenoiserFunction, rows: range, fixed: Tensor, frozen: Tensor, steps: int, seed: int
    ) -> tuple[Tensor, int]:
        process, length = self.process, len(fixed)

        def noise(step: int) -> Noise:
            return Noise(seed, "sample", step, rows, fixed.device)

        clocks = process.clock.draw(Noise(seed, "sample_clock", 0, rows, fixed.device), length)
        z = torch.where(frozen, fixed, process.sample_prior(noise(0), length))
        times = self.levels(steps).to(fixed.device)
        for step in range(steps):
            now, then = (clocks.at(time.expand(len(rows))) for time in (times[step], times[step + 1]))
            stands = now.level == then.level
            aim = torch.where(stands, 0.0, then.level)  # where nothing is to happen, any step that is defined will do
            conditioning_level = (
                now.conditioning_level
                if now.conditioning_level.ndim == 1
                else torch.where(frozen, 0.0, now.conditioning_level)
            )  # what is given is clean
            logits = process.predict(denoiser, z, now.level, conditioning_level)
            probs = process.reverse(logits, z, now.level, aim)
            drawn = draw_categorical(probs, noise(step + 1).uniform(length, dtype=torch.float64))
            z = torch.where(frozen, fixed, torch.where(stands, z, drawn))
        return z, steps
