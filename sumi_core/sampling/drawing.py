"""Texts in one call: the canvas is made, written block by block of rows, and read off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sumi_core.models.interface import DenoiserFunction
from sumi_core.sampling.canvas import Canvas, Constraint, Writer
from sumi_core.sampling.generate import Stop, generate

if TYPE_CHECKING:
    from torch import Tensor

# Rows are drawn in blocks whose logits [rows, L, S] have at most this many entries.
_BLOCK_ENTRIES = 2**24


@dataclass(frozen=True)
class Samples:
    """tokens: ``[num, L]`` int64, every one a token below V up to its row's length, end-of-text after it. lengths,
    nfe, slots: ``[num]``: tokens of each text, network calls that it took, tokens that those calls computed for it."""

    tokens: Tensor
    lengths: Tensor
    nfe: Tensor
    slots: Tensor


def draw_texts(
    sampler: Writer,
    denoiser: DenoiserFunction,
    *,
    num: int,
    length: int | Sequence[int],
    steps: int,
    seed: int,
    prompt: Tensor | Sequence[Tensor] | None = None,
    given: Sequence[tuple[Tensor, Tensor]] | None = None,
    told: bool = False,
    constraints: Sequence[Constraint] = (),
    end_of_text: bool = False,
    text: Tensor | Sequence[Tensor] | None = None,
    watch: Callable[[Canvas], None] | None = None,
    stop: Stop | None = None,
    rows: Sequence[int] | None = None,
) -> Samples:
    """Draw ``num`` texts on the denoiser's device, in its current train/eval mode.

    length: tokens of every text, or of each. steps: network calls, where the sampler can choose. prompt: ``[P]`` tokens
    kept at the left of every text, or a prompt for each text. given: in its place, the tokens ``[length]`` of each text
    and which of them stand, ``[length]`` bool. told: the network has learnt to read a level for each token, and is
    given 0 where tokens stand. Any other takes them for tokens at the level of all others, which is exact for masks
    alone: under uniform noise it trusts what is given too little. text: a finished text of that length, or one for
    each, that the sampler revises; a prompt then says how much of it stands. watch: is given every canvas as it comes:
    those of some rows, then those of the next ones. stop: as of ``generate``; what follows the place where a row
    stopped is not defined. rows: the number of each text, which addresses its noise; without it, 0 to num − 1.

    Raises ValueError for a prompt that leaves no room or holds ids that are not tokens, for a text of another length or
    a sampler that revises none, and for fewer than 1 step.
    """
    if steps < 1 or num < 1:
        raise ValueError(f"sampling needs at least 1 step and 1 text, got {steps} steps and {num} texts")
    lengths = [length] * num if isinstance(length, int) else list(length)
    if given is None:
        given = _prompts(prompt, lengths, num)
    addresses = range(num) if rows is None else rows
    if not len(lengths) == len(given) == len(addresses) == num:
        raise ValueError(f"{num} texts need as many lengths and tokens, got {len(lengths)} and {len(given)}")
    revised = [text] * num if isinstance(text, torch.Tensor) else list(text or [])
    if revised and [len(own) for own in revised] != lengths:
        raise ValueError(f"texts to revise have {[len(own) for own in revised]} tokens, not the lengths {lengths}")
    device, longest = device_of(denoiser), max(lengths)
    block = rows_at_once(sampler, longest)
    written = []
    for start in range(0, num, block):
        some = range(start, min(start + block, num))
        own = [lengths[row] for row in some]
        tokens, frozen = (
            torch.stack([torch.nn.functional.pad(given[row][part], (0, max(own) - lengths[row])) for row in some])
            for part in (0, 1)
        )
        canvas = Canvas.of(
            tokens,
            frozen,
            torch.tensor(own),
            seed=seed,
            steps=steps,
            rows=[addresses[row] for row in some],
            device=device,
            constraints=constraints,
            told=told,
        )
        if revised:
            canvas = canvas.revising([revised[row] for row in some])
        for canvas in generate(sampler, denoiser, canvas, end_of_text=end_of_text, stop=stop):  # noqa: B020 — the last one stays
            if watch is not None:
                watch(canvas)
        written.append(canvas)
    tokens = torch.full((num, longest), sampler.eos_id, dtype=torch.int64, device=device)
    for start, canvas in zip(range(0, num, block), written, strict=True):
        place = torch.arange(canvas.length, device=device)
        text = torch.where(place < canvas.lengths[:, None], canvas.tokens, sampler.eos_id)
        tokens[start : start + len(text), : canvas.length] = text
    joined = {name: torch.cat([getattr(canvas, name) for canvas in written]) for name in ("lengths", "nfe", "slots")}
    return Samples(tokens, **joined)


def rows_at_once(sampler: Writer, length: int) -> int:
    """How many texts of ``length`` tokens are drawn at a time."""
    return max(1, _BLOCK_ENTRIES // (length * sampler.num_states))


def _prompts(prompt: Tensor | Sequence[Tensor] | None, lengths: Sequence[int], num: int) -> list[tuple[Tensor, Tensor]]:
    """Tokens and what of them stands, of texts with a prompt each."""
    prompts = (
        [prompt] * num
        if isinstance(prompt, torch.Tensor)
        else list(prompt or [torch.empty(0, dtype=torch.int64)] * num)
    )
    if not len(lengths) == len(prompts) == num:
        raise ValueError(f"{num} texts need as many lengths and prompts, got {len(lengths)} and {len(prompts)}")
    found = []
    for own, room in zip(prompts, lengths, strict=True):
        if own.ndim != 1 or len(own) >= room:
            raise ValueError(f"a prompt of shape {list(own.shape)} leaves nothing to write in {room} tokens")
        place = torch.arange(room, device=own.device)
        found.append((torch.nn.functional.pad(own, (0, room - len(own))), place < len(own)))
    return found


def device_of(denoiser: DenoiserFunction) -> torch.device:
    """Where a denoiser computes: its parameters' device, else the CPU."""
    parameter = next(denoiser.parameters(), None) if isinstance(denoiser, torch.nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device
