"""Left-to-right sampling of an autoregressive model, one token a network call."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from sumi_core.base.registry import Part
from sumi_core.corruption.categorical import draw_categorical
from sumi_core.kernels.row_loss import pick
from sumi_core.models.cache import KeyValues
from sumi_core.models.interface import DenoiserFunction, DenoiserInput, caches
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.sampler import Sampler


class LeftToRight(Sampler):
    """Draw x_i ~ p(x_i | x_{<i}) in order, after an end-of-text token. ``steps`` is ignored: a token takes a call.

    temperature: logits are divided by it; 0 takes the most probable token. Constraints come first: the temperature acts
    on what they allow. The keys and values of what stands are kept
    where the network can keep them, so that a call computes the new token alone; a network that cannot reads the whole
    text again. The canvas's age is the position that is written next, in all rows.
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

    def start(self, canvas: Canvas) -> Canvas:
        return dataclasses.replace(canvas, age=self._next(canvas, 0))

    def step(self, denoiser: DenoiserFunction, canvas: Canvas) -> Canvas:
        position = canvas.age
        logits, state, computed = self._read(denoiser, canvas)
        logits = logits[:, None, : self.num_tokens]
        if canvas.constraints:
            place = torch.tensor([position], device=canvas.device)
            logits = canvas.allowed(logits.double().softmax(-1), place).log()
        probs = self._probabilities(logits)
        uniform = canvas.noise("sample", position).uniform(1, dtype=torch.float64)
        chosen = draw_categorical(probs, uniform)
        writes = ~canvas.frozen[:, position] & (position < canvas.lengths)
        tokens, confidence = canvas.tokens.clone(), canvas.confidence.clone()
        tokens[:, position] = chosen[:, 0]
        confidence[writes, position] = (pick(probs, chosen)[:, 0] / probs.sum(-1)[:, 0])[writes]
        written = canvas.written(tokens)
        return dataclasses.replace(
            written,
            age=self._next(written, position + 1),
            nfe=canvas.nfe + writes,
            slots=canvas.slots + writes * computed,
            confidence=confidence,
            state=state,
        )

    def finished(self, canvas: Canvas) -> Tensor:
        return canvas.age >= canvas.lengths

    def settled(self, canvas: Canvas) -> Tensor:
        return canvas.lengths.clamp(max=canvas.age)

    def _next(self, canvas: Canvas, position: int) -> int:
        """The first position from here on that some row has to write."""
        place = torch.arange(canvas.length, device=canvas.device)
        open_ = (~canvas.frozen & (place < canvas.lengths[:, None])).any(0) & (place >= position)
        return int(torch.where(open_, place, canvas.length).min())

    def _read(self, denoiser: DenoiserFunction, canvas: Canvas) -> tuple[Tensor, KeyValues | None, int]:
        """Logits of the next token ``[B, S]``, the cache, and how many tokens were computed for each row."""
        text = torch.cat([torch.full_like(canvas.tokens[:, :1], self.eos_id), canvas.tokens[:, : canvas.age]], 1)
        cache = canvas.state
        if cache is None and caches(denoiser):
            cache = KeyValues(len(text), canvas.length + 1, canvas.device)
        if cache is not None:
            text = text[:, int(cache.lengths[0]) :]  # all rows stand at one position
        given = DenoiserInput(text, cache=cache, keep=text.shape[1])
        return denoiser(given).last().logits()[:, -1], cache, text.shape[1]

    def _probabilities(self, logits: Tensor) -> Tensor:
        """Of the next token ``[..., V]`` float64; all 0 or NaN where no token has a finite logit."""
        if self.options.temperature == 0:
            best = logits.argmax(-1, keepdim=True)
            possible = (logits.gather(-1, best) > -torch.inf).double()
            return torch.zeros_like(logits, dtype=torch.float64).scatter_(-1, best, possible)
        return (logits.double() / self.options.temperature).softmax(-1)
