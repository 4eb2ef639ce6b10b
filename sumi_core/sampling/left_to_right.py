"""Left-to-right sampling of an autoregressive model, one token a network call."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field

from sumi_core.corruption.categorical import draw_categorical
from sumi_core.kernels.row_loss import pick
from sumi_core.models.cache import KeyValues
from sumi_core.models.interface import DenoiserFunction, DenoiserInput, caches
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.memory import Memory, Reading
from sumi_core.sampling.sampler import Sampler
from sumi_core.sampling.truncation import Truncation, sharpened

if TYPE_CHECKING:
    from torch import Tensor


class LeftToRight(Sampler):
    """Draw x_i ~ p(x_i | x_{<i}) in order, after an end-of-text token. ``steps`` is ignored: a token takes a call.

    A sampler of p, exactly, at temperature 1 and without truncation; else none.

    temperature: logits are divided by it; 0 takes the most probable token. Constraints come first: the temperature acts
    on what they allow. The keys and values of what stands are kept where the network can keep them, so that a call
    computes the new token alone and only reads what is kept of the others; a network that cannot keep them reads the
    whole text again. The canvas's age is the position that is written next, in all rows.

    A row counts as computed what it needs, the same in any company: with kept keys and values every token once, up to
    the last that it writes; without them the whole text before each token that it writes.
    """

    needs_process: ClassVar[bool] = False
    causal: ClassVar[bool | None] = True
    mode = "ar"
    grows = True
    uses_steps: ClassVar[bool] = False
    holds_languages: ClassVar[bool] = True

    @dataclass
    class Options(Truncation):
        temperature: Annotated[
            float, Field(ge=0.0, description="divides the logits; 0: always the most probable token")
        ] = 1.0

    options: Options

    def start(self, canvas: Canvas) -> Canvas:
        return dataclasses.replace(canvas, age=self._next(canvas, 0))

    def step(self, denoiser: DenoiserFunction, canvas: Canvas) -> Canvas:
        position = canvas.age
        logits, reading, computed = self._read(denoiser, canvas)
        logits = logits[:, None, : self.num_tokens]
        if canvas.constraints:
            place = torch.tensor([position], device=canvas.device)
            logits = canvas.allowed(logits.double().softmax(-1), place).log()
        probs = sharpened(logits, self.options)
        chosen = self._drawn(canvas, probs, position)
        writes = ~canvas.frozen[:, position] & (position < canvas.lengths)
        tokens, confidence = canvas.tokens.clone(), canvas.confidence.clone()
        tokens[:, position] = chosen[:, 0]
        confidence[writes, position] = (pick(probs, chosen)[:, 0] / probs.sum(-1)[:, 0])[writes]
        written = canvas.written(tokens)
        return dataclasses.replace(
            written,
            age=self._next(written, position + 1),
            nfe=canvas.nfe + writes,
            slots=canvas.slots + (writes if reading is None else ~canvas.done) * computed,
            confidence=confidence,
            state=reading,
        )

    def finished(self, canvas: Canvas) -> Tensor:
        place = torch.arange(canvas.length, device=canvas.device)
        return ~(self._open(canvas) & (place >= canvas.age)).any(-1)

    def settled(self, canvas: Canvas) -> Tensor:
        return canvas.lengths.clamp(max=canvas.age)

    def _next(self, canvas: Canvas, position: int) -> int:
        """The first position from here on that some row has to write."""
        place = torch.arange(canvas.length, device=canvas.device)
        open_ = self._open(canvas).any(0) & (place >= position)
        return int(torch.where(open_, place, canvas.length).min())

    def _open(self, canvas: Canvas) -> Tensor:
        """Positions that have to be written, or had to be, ``[B, L]`` bool."""
        place = torch.arange(canvas.length, device=canvas.device)
        return ~canvas.frozen & (place < canvas.lengths[:, None])

    def _read(self, denoiser: DenoiserFunction, canvas: Canvas) -> tuple[Tensor, Reading | None, int]:
        """Logits of the next token ``[B, S]``, what has been read then, and how many tokens were computed of a row."""
        text = torch.cat([torch.full_like(canvas.tokens[:, :1], self.eos_id), canvas.tokens[:, : canvas.age]], 1)
        reading = canvas.state
        if reading is None and caches(denoiser):
            reading = Reading(Memory(KeyValues(len(text), canvas.length + 1, canvas.device), text[:, :0]), 0)
        if reading is None:
            return denoiser(DenoiserInput(text)).last().logits()[:, -1], None, text.shape[1]
        assert isinstance(reading, Reading)
        cache, kept = reading.memory.back_to(text, reading.kept)
        new = text[:, kept:]
        logits = denoiser(DenoiserInput(new, cache=cache, keep=new.shape[1])).last().logits()[:, -1]
        reading.memory.text = text
        return logits, Reading(reading.memory, text.shape[1]), new.shape[1]

    def _drawn(self, canvas: Canvas, probs: Tensor, position: int) -> Tensor:
        """A token of each row, ``[B, 1]``, from probabilities ``[B, 1, V]`` float64."""
        return draw_categorical(probs, canvas.noise("sample", position).uniform(1, dtype=torch.float64))
