"""Texts longer than a canvas: one canvas after another, each of which begins with the end of what stands.

A model that was trained on texts of L tokens has nothing to say beyond them. Here every canvas has the length that it
knows: its first ``overlap`` tokens are the last ones that were written, given as a prompt, and the others are written.
What is drawn is the model's conditional given that overlap, not given the whole text before, and only as far as the
model trusts a prompt (docs/mathematics.md 7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from sumi_core.models.interface import DenoiserFunction
from sumi_core.sampling.canvas import Canvas, Writer
from sumi_core.sampling.drawing import Samples, device_of, draw_texts

if TYPE_CHECKING:
    from torch import Tensor

NEXT_CANVAS = 1 << 40  # added to the seed for each canvas: seeds, and what other uses add to them, are below


def draw_growing_texts(
    sampler: Writer,
    denoiser: DenoiserFunction,
    *,
    given: Sequence[tuple[Tensor, Tensor]],
    canvas: int,
    overlap: int,
    steps: int,
    seed: int,
    told: bool = False,
    end_of_text: bool = False,
    watch: Callable[[Canvas], None] | None = None,
) -> Samples:
    """Write texts of any length on canvases of ``canvas`` tokens, of which ``overlap`` stand from the one before.

    given: the tokens of each text and which of them stand, ``[length]`` and ``[length]`` bool, as of ``draw_texts``.
    steps: network calls of each canvas. end_of_text: a text ends at the first end-of-text token that is written, and no
    further canvas is begun for it. A row is the same text in any company, and its first canvas is the text that
    ``draw_texts`` writes there.

    Raises ValueError for an overlap that leaves nothing to write, and as ``draw_texts`` does.
    """
    if not 0 <= overlap < canvas:
        raise ValueError(f"an overlap of {overlap} leaves nothing to write on a canvas of {canvas} tokens")
    device = device_of(denoiser)
    tokens = [own.clone().to(device) for own, _ in given]
    stands = [own.clone().to(device) for _, own in given]
    lengths = torch.tensor([len(own) for own in tokens], device=device)
    nfe, slots = torch.zeros_like(lengths), torch.zeros_like(lengths)
    ended = torch.zeros(len(given), dtype=torch.bool)
    for number, begin in enumerate(_begins(max(len(own) for own in tokens), canvas, overlap)):
        window = slice(begin, begin + canvas)
        rows = [row for row in range(len(given)) if not ended[row] and not bool(stands[row][window].all())]
        if not rows:
            continue
        drawn = draw_texts(
            sampler,
            denoiser,
            num=len(rows),
            length=[len(tokens[row][window]) for row in rows],
            steps=steps,
            seed=seed + number * NEXT_CANVAS,
            given=[(tokens[row][window], stands[row][window]) for row in rows],
            told=told,
            end_of_text=end_of_text,
            watch=watch,
            rows=rows,
        )
        for place, row in enumerate(rows):
            own = int(drawn.lengths[place])
            ended[row] = own < len(tokens[row][window])
            tokens[row][window] = drawn.tokens[place, : len(tokens[row][window])]
            stands[row][window] = True
            if ended[row]:
                lengths[row] = begin + own
            nfe[row] += drawn.nfe[place]
            slots[row] += drawn.slots[place]
    whole = torch.full((len(given), max(len(own) for own in tokens)), sampler.eos_id, device=device)
    for row, length in enumerate(lengths.tolist()):
        whole[row, :length] = tokens[row][:length]
    return Samples(whole, lengths, nfe, slots)


def _begins(longest: int, canvas: int, overlap: int) -> Iterator[int]:
    """Where the canvases of the longest text begin, each ``canvas − overlap`` tokens after the one before."""
    begin = 0
    yield begin
    while begin + canvas < longest:
        begin += canvas - overlap
        yield begin
