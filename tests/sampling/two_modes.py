"""A model with two modes in a world small enough to know everything, and every text that a sampler can draw from it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor

from sumi_core.data.noise import Noise
from sumi_core.models.attention import Slots
from sumi_core.models.interface import DenoiserFunction, DenoiserInput, FromLogits
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.drafting import Standing
from sumi_core.sampling.sampler import Sampler
from tests.corruption.enumerable import World

DRAWS = [f"sumi_core.{module}.draw_categorical" for module in ("corruption.process", "sampling.drafting")]
DRAWS += ["sumi_core.sampling.verification.draw_categorical"]


def two_modes(causal: World, drafts: World, own: bool, trusts: float = 0.4) -> DenoiserFunction:
    """Predicts each slot's token from the slots that its mask lets it see, and from nothing else.

    causal: the joint distribution that clean slots know. drafts: that of noisy ones. They take pure
    noise for a text of which the share ``trusts`` survives, so that what they predict depends on it; of their own token
    as the parameterisation of ``causal`` says."""
    left_out = causal.process.parameterisation.reading == "leave_one_out"

    def predicted(given: DenoiserInput) -> Tensor:
        tokens, positions, level = given.tokens, given.positions, given.level
        assert positions is not None
        assert level is not None
        assert given.pattern is not None
        positions = positions.expand_as(tokens)
        slots = Slots(positions)
        sees = given.pattern.mask(slots, slots).expand(*tokens.shape, tokens.shape[1])
        noisy, length = level > 0, causal.length
        holds = positions - 1  # the token of the text that stands in a slot; −1: end of text
        place = torch.arange(length)
        at = holds[..., None] == place  # [B, Q, L]
        logits = torch.zeros(*tokens.shape, drafts.states, dtype=torch.float64)
        for slot in range(tokens.shape[1]):
            beside = (sees[:, slot] & noisy).any(-1)
            target = holds[:, slot] + ~(noisy[:, slot] & own)
            for row, world in itertools.product((False, True), (causal, drafts)):
                rows = beside == row
                if row != (world is drafts) or not bool(rows.any()):
                    continue
                visible = sees[rows, slot]
                weight = world.p.expand(int(rows.sum()), -1).clone()
                for j in range(tokens.shape[1]):
                    held = at[rows, j] & visible[:, j, None]  # [R, L], at most one
                    clean = (world.x == tokens[rows, j, None, None]).double()
                    noise = world.evidence(tokens[rows, j, None].expand(-1, length), (1 - trusts) * level[rows, j])
                    told = torch.where(noisy[rows, j, None, None], noise, clean)
                    own_noise = noisy[rows, j, None] & (place == target[rows, None])
                    weight *= torch.where((held & ~(own_noise & left_out))[:, None], told, 1.0).prod(-1)
                wanted = target[rows].clamp(max=length - 1)
                found = torch.zeros(len(weight), world.tokens, dtype=torch.float64)
                found.scatter_add_(1, world.x.T[wanted], weight)
                logits[rows, slot, : world.tokens] = (found / found.sum(-1, keepdim=True)).log()
        return logits

    return lambda given: FromLogits(lambda tokens, level: predicted(given))(given)


def chain_rule(world: World, text: Tensor, i: int) -> Tensor:
    """p(x_i | x_{<i}) for texts ``[B, L]``: ``[B, V]``."""
    known = (world.x[None, :, :i] == text[:, None, :i]).all(-1)
    weight = torch.zeros(len(text), world.tokens, dtype=torch.float64).index_add_(1, world.x[:, i], world.p * known)
    return weight / weight.sum(-1, keepdim=True)


@contextmanager
def drawn_by(draw: Callable[[Tensor, Tensor], Tensor]) -> Iterator[None]:
    """In place of every draw of a pass."""

    def integers(noise: Noise, high: int, *shape: int) -> Tensor:
        return draw(torch.full((len(noise._rows), *shape, high), 1 / high, dtype=torch.float64), torch.zeros(()))

    with (
        patch(DRAWS[0], draw),
        patch(DRAWS[1], draw),
        patch(DRAWS[2], draw),
        patch.object(Noise, "integers", integers),
    ):
        yield


@dataclasses.dataclass
class Outcome:
    """Everything that a sampler can come to, with its probability. canvas: after some pass; weight: ``[B]``."""

    canvas: Canvas
    weight: Tensor


@torch.no_grad()
def branched(sampler: Sampler, denoiser: DenoiserFunction, before: Outcome) -> Outcome:
    """One pass in which every draw comes out in every way."""
    shapes: list[tuple[int, ...]] = []

    def any_way(probs: Tensor, uniform: Tensor) -> Tensor:
        shapes.append(tuple(probs.shape[1:]))
        return probs.argmax(-1)

    with drawn_by(any_way):
        sampler.step(denoiser, before.canvas)
    ways = [range(shape[-1]) for shape in shapes for _ in range(shape[0] if len(shape) == 2 else 1)]
    every = torch.tensor(list(itertools.product(*ways)))
    canvas = rows_of(before.canvas, torch.arange(len(before.weight)).repeat_interleave(len(every)))
    every = every.repeat(len(before.weight), 1)
    weight, used = before.weight.repeat_interleave(len(every) // len(before.weight)).clone(), 0

    def this_way(probs: Tensor, uniform: Tensor) -> Tensor:
        nonlocal used
        width = probs.shape[1] if probs.ndim == 3 else 1
        chosen = every[:, used : used + width].reshape(probs.shape[:-1])
        used += width
        share = (probs / probs.sum(-1, keepdim=True)).gather(-1, chosen[..., None])[..., 0]
        weight.mul_(share.reshape(len(weight), width).prod(-1))
        return chosen

    with drawn_by(this_way):
        after = sampler.step(denoiser, canvas)
    possible = weight > 0
    return Outcome(rows_of(after, possible.nonzero()[:, 0]), weight[possible])


def rows_of(canvas: Canvas, index: Tensor) -> Canvas:
    """Some rows, each as often as it is named."""
    state = canvas.state
    assert isinstance(state, Standing)
    assert state.memory is None
    found = {
        name: getattr(canvas, name)[index]
        for name in ("tokens", "frozen", "lengths", "nfe", "slots", "done", "confidence")
    }
    held = {name: value[index] for name, value in vars(state).items() if isinstance(value, Tensor)}
    return dataclasses.replace(
        canvas, **found, rows=[0] * len(index), state=dataclasses.replace(state, **held), seed=canvas.seed
    )


def started(sampler: Sampler, length: int, given: dict[int, int] | None = None) -> Outcome:
    """An empty text, or one in which the tokens ``given`` stand at their positions."""
    canvas = Canvas.blank([torch.tensor([], dtype=torch.int64)], [length], seed=0, steps=1)
    for place, token in (given or {}).items():
        canvas.tokens[:, place], canvas.frozen[:, place] = token, True
    return Outcome(sampler.start(canvas), torch.ones(1, dtype=torch.float64))


def distribution(
    sampler: Sampler,
    denoiser: DenoiserFunction,
    world: World,
    changed: Callable[[Canvas], Canvas] = lambda canvas: canvas,
    given: dict[int, int] | None = None,
) -> Tensor:
    """Of the texts that the sampler writes, ``[M]``, exactly. changed: applied to what every pass leaves. given: tokens
    that stand at some positions."""
    found = torch.zeros(len(world.x), dtype=torch.float64)
    powers = world.tokens ** torch.arange(world.length - 1, -1, -1)
    now = started(sampler, world.length, given)
    while len(now.weight):
        now = branched(sampler, denoiser, now)
        done = sampler.finished(now.canvas)
        found.index_add_(0, (now.canvas.tokens[done] * powers).sum(-1), now.weight[done])
        goes_on = (~done).nonzero()[:, 0]
        now = Outcome(changed(rows_of(now.canvas, goes_on)), now.weight[goes_on])
    return found
