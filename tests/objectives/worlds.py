"""Objectives over an enumerable world, and expectations of their token loss by enumeration."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sumi_core.corruption import PARAMETERISATIONS
from sumi_core.data.batch import Batch
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.objectives import OBJECTIVES
from sumi_core.objectives.diffusion import Diffusion
from sumi_core.objectives.noising import NoisyBatch
from tests.corruption.enumerable import World, log_odds_quadrature

#: Every loss of a diffusion model, with the parameterisation that it needs.
LOSSES: dict[str, tuple[str, dict[str, Any], str]] = {
    "elbo": ("nelbo", {}, "leave_one_out"),
    "snr": ("nelbo", {"weighting": "snr"}, "leave_one_out"),
    "elbo_of_posterior": ("nelbo", {}, "posterior"),
    "posterior_cross_entropy": ("posterior_cross_entropy", {}, "posterior"),
    "mixture_path": ("mixture_path", {}, "posterior"),
}


def build(loss: str, world: World, **options: Any) -> Diffusion:
    name, own, parameterisation = LOSSES[loss]
    world.process.parameterisation = PARAMETERISATIONS.build(parameterisation, {})
    vocabulary = Vocabulary(world.tokens, 0)
    made = OBJECTIVES.build(name, {**own, **options}, process=world.process, vocabulary=vocabulary)
    assert isinstance(made, Diffusion)
    return made


def exact(loss: str, world: World) -> Any:
    """What a perfect network gives for this loss."""
    return world.denoiser if LOSSES[loss][2] == "leave_one_out" else world.full_posterior_denoiser


def batch_of(tokens: Tensor, step: int = 0, seed: int = 3, rows: list[int] | None = None) -> Batch:
    """A batch, or some rows of it as another device or micro-batch would get them."""
    places = torch.arange(len(tokens)) if rows is None else torch.tensor(rows)
    return Batch(tokens[places], 1000 + places, places, len(tokens), step, seed)


def texts(world: World, rows: int) -> Tensor:
    """Texts drawn from the world."""
    return world.x[torch.multinomial(world.p, rows, replacement=True, generator=torch.Generator().manual_seed(0))]


def per_sequence(objective: Diffusion, denoiser: Any, batch: Batch) -> Tensor:
    """Each sequence's contribution to the loss, summed over its tokens: ``[B]``."""
    noisy = objective.training_noise(batch)
    return (noisy.weight * objective.token_loss(noisy).of(denoiser(noisy.z, noisy.conditioning_level))).sum(-1)


def expected_loss(objective: Diffusion, world: World, logits: Any, t: Tensor) -> Tensor:
    """E over texts and z of the token loss at one level, summed over positions. logits: (z, t) → those of every z."""
    x = world.x.repeat_interleave(len(world.z), 0)
    z = world.z.repeat(len(world.x), 1)
    levels = t.expand(len(world.z))
    table = logits(world.z, levels).repeat(len(world.x), 1, 1)
    chance = world.p.repeat_interleave(len(world.z)) * world.q(levels[:1])[0][x, z].prod(-1)
    possible = chance > 0
    one, yes = torch.ones(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.bool)
    noisy = NoisyBatch(x[possible], z[possible], t.reshape(1, 1), one, t.reshape(1), yes)
    value: Tensor = (chance[possible, None] * objective.token_loss(noisy).of(table[possible])).sum()
    return value


def integrated_loss(objective: Diffusion, world: World, logits: Any, epsilon: float) -> float:
    """``expected_loss`` averaged over t uniform on [ε, 1 − ε], by quadrature."""
    nodes, weights = log_odds_quadrature(epsilon, 96)
    pairs = zip(nodes, weights, strict=True)
    return float(sum(w * expected_loss(objective, world, logits, t) for t, w in pairs) / (1 - 2 * epsilon))


def told_posterior(world: World, z: Tensor, level: Tensor, *, left_out: bool = True) -> Tensor:
    """The exact denoiser that is given a level for each token: logits of p(x_i | z_{−i}), ``[B, L, S]``, or, not
    ``left_out``, of p(x_i | z)."""
    q = world.q(level.expand(z.shape))  # [B, L, V, S]
    rows, places = torch.arange(len(z))[:, None, None], torch.arange(world.length)
    evidence = q[rows, places, world.x[None], z[:, None, :]]  # [B, M, L]
    logits = torch.zeros(*z.shape, world.states, dtype=torch.float64)
    for i in range(world.length):
        weight = world.p * evidence[:, :, (places != i) | (not left_out)].prod(-1)
        column = torch.zeros(len(z), world.tokens, dtype=torch.float64).index_add_(1, world.x[:, i], weight)
        logits[:, i, : world.tokens] = (column / column.sum(-1, keepdim=True)).log()
    return logits
