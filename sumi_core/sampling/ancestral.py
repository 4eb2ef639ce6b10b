"""Ancestral sampling: walk the reverse process from pure noise to text (design: math.md 7; D3PM, 2107.03006)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sumi_core.corruption.categorical import draw_categorical
from sumi_core.corruption.process import DenoiserFunction, ForwardProcess
from sumi_core.data.noise import Noise
from sumi_core.sampling.sampler import Sampler
from sumi_core.typed import choice

_LOG_SNR_END = 9.0  # α from 1.2e-4 to 1 − 1.2e-4, Sumi's range


class Ancestral(Sampler):
    """``steps`` network calls at falling levels t; the last one draws clean tokens from the posterior.

    spacing ``time``: levels 1, 1 − 1/steps, …, 1/steps. spacing ``log_snr``: levels evenly spaced in log-SNR (Sumi,
    2606.19005), dense at both ends. The first level is pure noise, t = 1, in either.
    """

    @dataclass
    class Options(Sampler.Options):
        spacing: str = choice("time", "time", "log_snr")

    def __init__(self, options: Options, *, process: ForwardProcess | None, num_tokens: int, eos_id: int) -> None:
        super().__init__(options, process=process, num_tokens=num_tokens, eos_id=eos_id)
        self.options = options

    def levels(self, steps: int) -> Tensor:
        """The levels the network is asked at and, last, 0: ``[steps + 1]`` float64, falling from 1."""
        assert self.process is not None
        if self.options.spacing == "log_snr":
            log_snr = torch.linspace(-_LOG_SNR_END, _LOG_SNR_END, steps, dtype=torch.float64)
            levels = self.process.schedule.time_of_alpha(torch.sigmoid(log_snr))
            levels[0] = 1.0
            return torch.cat([levels, levels.new_zeros(1)])
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64)

    def _draw(
        self, denoiser: DenoiserFunction, rows: range, fixed: Tensor, frozen: Tensor, steps: int, seed: int
    ) -> tuple[Tensor, int]:
        process, length = self.process, len(fixed)
        assert process is not None

        def noise(step: int) -> Noise:
            return Noise(seed, "sample", step, rows, fixed.device)

        z = torch.where(frozen, fixed, process.sample_prior(noise(0), length))
        levels = self.levels(steps).to(fixed.device)
        for step in range(steps):
            t, s = levels[step].expand(len(rows)), levels[step + 1].expand(len(rows))
            probs = process.reverse(denoiser(z, t), z, t.unsqueeze(-1), s.unsqueeze(-1))
            drawn = draw_categorical(probs, noise(step + 1).uniform(length, dtype=torch.float64))
            z = torch.where(frozen, fixed, drawn)
        return z, steps
