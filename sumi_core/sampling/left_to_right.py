"""Left-to-right sampling of an autoregressive model, one token a network call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from sumi_core.base.registry import Part
from sumi_core.corruption.categorical import draw_categorical
from sumi_core.data.noise import Noise
from sumi_core.models.interface import DenoiserFunction
from sumi_core.sampling.sampler import Sampler


class LeftToRight(Sampler):
    """Draw x_i ~ p(x_i | x_{<i}) in order, after an end-of-text token. ``steps`` is ignored: a token takes a call.

    temperature: logits are divided by it; 0 takes the most probable token.
    """

    needs_process: ClassVar[bool] = False
    causal: ClassVar[bool | None] = True
    uses_steps: ClassVar[bool] = False

    @dataclass
    class Options(Part.Options):
        temperature: Annotated[
            float, Field(ge=0.0, description="divides the logits; 0: always the most probable token")
        ] = 1.0

    options: Options

    def _draw(
        self, denoiser: DenoiserFunction, rows: range, fixed: Tensor, frozen: Tensor, steps: int, seed: int
    ) -> tuple[Tensor, int]:
        start = torch.full((len(rows), 1), self.eos_id, dtype=torch.int64, device=fixed.device)
        tokens, calls = start, 0
        for position in range(len(fixed)):
            if frozen[position]:
                next_token = fixed[position].expand(len(rows))
            else:
                logits = denoiser(tokens, None)[:, -1, : self.num_tokens]
                uniform = Noise(seed, "sample", position, rows, fixed.device).uniform(1, dtype=torch.float64)
                next_token = self._choose(logits, uniform.squeeze(-1))
                calls += 1
            tokens = torch.cat([tokens, next_token.unsqueeze(-1)], dim=1)
        return tokens[:, 1:], calls

    def _choose(self, logits: Tensor, uniform: Tensor) -> Tensor:
        if self.options.temperature == 0:
            return logits.argmax(-1)
        probs = (logits.double() / self.options.temperature).softmax(-1)
        return draw_categorical(probs, uniform)
