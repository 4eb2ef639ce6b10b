"""The one loop in which every sampler writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

from sumi_core.models.interface import DenoiserFunction
from sumi_core.sampling.canvas import Canvas, Writer

if TYPE_CHECKING:
    from torch import Tensor


#: From a canvas, and how many tokens at the left of each row will change no more, ``[B]``, to which rows are done.
Stop = Callable[[Canvas, "Tensor"], "Tensor"]


def generate(
    sampler: Writer,
    denoiser: DenoiserFunction,
    canvas: Canvas,
    *,
    end_of_text: bool = False,
    stop: Stop | None = None,
) -> Iterator[Canvas]:
    """Write a canvas, yielding it as it starts and after every step; the last one has every row done.

    The consumer decides what becomes of it: the last canvas is the text, all of them are a film, the difference of two
    is a stream. end_of_text: a row is done as soon as the sampler has settled all up to an end-of-text token, and its
    length becomes the tokens before that one. stop: rows that hold all that is wanted of them, asked after every step.
    A row that is done changes no more and costs no more.

    Raises ValueError for frozen ids that are not tokens, and for fewer than 1 step.
    """
    return torch.no_grad()(_written)(sampler, denoiser, canvas, end_of_text, stop)


def _written(
    sampler: Writer, denoiser: DenoiserFunction, canvas: Canvas, end_of_text: bool, stop: Stop | None
) -> Iterator[Canvas]:
    sampler.check(canvas)
    canvas = _finished(sampler, sampler.start(canvas), end_of_text, stop)
    yield canvas
    while not bool(canvas.done.all()):
        before = canvas
        canvas = sampler.step(denoiser, canvas)
        # A row that was done keeps what it had: samplers need not care.
        canvas = dataclasses.replace(
            canvas,
            tokens=_kept(before, before.tokens, canvas.tokens),
            confidence=_kept(before, before.confidence, canvas.confidence),
            nfe=torch.where(before.done, before.nfe, canvas.nfe),
            slots=torch.where(before.done, before.slots, canvas.slots),
        )
        canvas = _finished(sampler, canvas, end_of_text, stop)
        yield canvas


def _kept(before: Canvas, old: Tensor, new: Tensor) -> Tensor:
    return torch.where(before.done[:, None], old, new)


def _finished(sampler: Writer, canvas: Canvas, end_of_text: bool, stop: Stop | None) -> Canvas:
    done, lengths = canvas.done | sampler.finished(canvas), canvas.lengths
    if end_of_text:
        place = torch.arange(canvas.length, device=canvas.device)
        ends = (canvas.tokens == sampler.eos_id) & ~canvas.frozen & (place < lengths[:, None])
        first = torch.where(ends, place, canvas.length).amin(-1)
        ended = ~canvas.done & (first < sampler.settled(canvas))
        done, lengths = done | ended, torch.where(ended, first, lengths)
    if stop is not None:
        done = done | stop(canvas, sampler.settled(canvas))
    return dataclasses.replace(canvas, done=done, lengths=lengths)
