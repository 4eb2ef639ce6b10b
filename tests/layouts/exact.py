"""The exact denoiser of blocks in an enumerable world: p(x_i | z^k without z_i, x^{<k}), or with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sumi_core.layouts import LAYOUTS
from sumi_core.layouts.blocks import Blocks
from sumi_core.models.interface import DenoiserFunction, DenoiserInput, DenoiserOutput, FromLogits
from tests.corruption.enumerable import World, all_sequences, end_gaps, log_odds_quadrature


def blocks(length: int, read_out: str = "own") -> Blocks:
    layout: Blocks = LAYOUTS.build("blocks", {"length": length, "read_out": read_out})
    return layout


def exact_logits(
    world: World, z: Tensor, x: Tensor, t: Tensor, first: int, last: int, *, left_out: bool = True
) -> Tensor:
    """``[B, last − first, S]``: of the tokens of one block. x: what is known before it. t: ``[B]``.
    left_out: the token's own z_i."""
    evidence = world.evidence(z, t)  # [B, M, L]
    known = (world.x[None, :, :first] == x[:, None, :first]).all(-1)
    columns = []
    for i in range(first, last):
        used = [j for j in range(first, last) if not (left_out and j == i)]
        weight = world.p * known * evidence[:, :, used].prod(-1)
        column = torch.zeros(len(z), world.tokens, dtype=torch.float64).index_add_(1, world.x[:, i], weight)
        columns.append(column / column.sum(-1, keepdim=True))
    logits: Tensor = world._logits(torch.stack(columns, 1))
    return logits


def two_streams(world: World, layout: Blocks) -> DenoiserFunction:
    """Reads the slots ``[noisy; clean]`` as a network would, of the process's parameterisation."""
    length, n = world.length, layout.options.length
    streams = layout.streams(length)
    noisy = len(streams.source)
    left_out = world.process.parameterisation.reading == "leave_one_out"

    def denoiser(given: DenoiserInput) -> DenoiserOutput:
        tokens, level = given.tokens, given.level
        assert level is not None
        assert tokens.shape[1] == noisy + length == layout.slots(length)
        assert (level[:, noisy:] == 0).all(), "clean slots are told level 0"
        z = torch.zeros(len(tokens), length, dtype=torch.int64)
        for slot, source in enumerate(streams.source.tolist()):
            if source < length:
                z[:, source] = tokens[:, slot]
        x = torch.cat([tokens[:, noisy + 1 :], tokens[:, :1] * 0], 1)
        t = level.amax(-1) if bool((level > 0).any()) else torch.full((len(z),), 0.5, dtype=torch.float64)
        hidden = torch.zeros(len(z), noisy + length, world.states, dtype=torch.float64)
        for first in range(0, length, n):
            last = min(first + n, length)
            hidden[:, streams.reads[first:last]] = exact_logits(world, z, x, t, first, last, left_out=left_out)
        return FromLogits(lambda tokens, level: hidden)(given)

    return denoiser


def one_block(world: World, layout: Blocks) -> DenoiserFunction:
    """Reads the slots ``[clean; canvas]`` of a sampler's call, of the process's parameterisation."""
    n, own = layout.options.length, layout.options.read_out == "own"
    left_out = world.process.parameterisation.reading == "leave_one_out"

    def denoiser(given: DenoiserInput) -> DenoiserOutput:
        tokens, level = given.tokens, given.level
        assert level is not None
        seen = tokens.shape[1] - layout.canvas_slots
        before = seen - own
        known = tokens[:, 1 : before + 1] if before else tokens[:, :0]
        held = tokens[:, seen:] if own else tokens[:, seen + 1 :]
        z = torch.zeros(len(tokens), world.length, dtype=torch.int64)
        z[:, before : before + held.shape[1]] = held
        t = level.amax(-1) if n > 1 or own else torch.full((len(z),), 0.5, dtype=torch.float64)
        logits = exact_logits(world, z, known, t, before, before + n, left_out=left_out)
        hidden = torch.zeros(*tokens.shape, world.states, dtype=torch.float64)
        hidden[:, seen : seen + n] = logits
        return FromLogits(lambda tokens, level: hidden)(given)

    return denoiser


def block_bound(world: World, layout: Any, denoiser: DenoiserFunction, epsilon: float, points: int = 64) -> float:
    """The bound averaged over texts and every z, integrated over t: nats of a text. ``layout.of`` shows the texts."""
    process = world.process
    x = world.x.repeat_interleave(len(world.z), 0)
    z = world.z.repeat(len(world.x), 1)
    shown = layout.of(denoiser, x, 0)

    def expectation(term: Any, t: float) -> float:
        levels = torch.full((len(x),), t, dtype=torch.float64)
        logits = process.predict(shown, DenoiserInput(z, levels), levels[:, None])
        weight = world.p.repeat_interleave(len(world.z)) * world.q(levels[:1])[0][x, z].prod(-1)
        possible = weight > 0
        value = term(logits[possible], x[possible], z[possible], levels[:1, None])
        return float((weight[possible] * value.sum(-1)).sum())

    nodes, weights = log_odds_quadrature(epsilon, points)
    pairs = zip(nodes.tolist(), weights.tolist(), strict=True)
    diffusion = sum(weight * expectation(process.bound_integrand, t) for t, weight in pairs)
    prior = world.p @ process.prior(world.x, torch.full((1, 1), 1 - epsilon, dtype=torch.float64)).sum(-1)
    return diffusion + expectation(process.reconstruction, epsilon) + float(prior)


def block_gaps(world: World, length: int, epsilon: float) -> float:
    """``end_gaps`` of every block given what precedes it, averaged over that: what the cut at ε adds to the entropy."""
    total, powers = 0.0, world.tokens ** torch.arange(length - 1, -1, -1)
    for first in range(0, world.length, length):
        number = (world.x[:, first : first + length] * powers).sum(-1)
        for before in all_sequences(world.tokens, first):
            weight = world.p * (world.x[:, :first] == before).all(-1)
            block = World(world.name, tokens=world.tokens, length=length)
            block.process = world.process
            block.p = torch.zeros(len(block.x), dtype=torch.float64).index_add_(0, number, weight / weight.sum())
            total += float(weight.sum()) * sum(end_gaps(block, epsilon).values())
    return total
