"""What tests of samplers share: an exact denoiser that is fast, and noise that costs no generator for every row."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sumi_core.corruption.categorical import draw_categorical
from sumi_core.models.interface import DenoiserFunction, FromLogits
from sumi_core.sampling.canvas import Canvas
from tests.corruption.enumerable import World

ROWS = 8_000


def index_of(world: World, z: Tensor) -> Tensor:
    """``[B, L]`` → ``[B]``: the place of each text among ``world.z``."""
    return (z * world.states ** torch.arange(world.length - 1, -1, -1)).sum(-1)


def tabled(world: World, predict: Callable[[Tensor, Tensor], Tensor]) -> DenoiserFunction:
    """An exact denoiser whose logits are computed once for each text and level."""
    tables: dict[float, Tensor] = {}

    def logits(z: Tensor, t: Tensor | None) -> Tensor:
        assert t is not None
        (level,) = t.unique().tolist()
        if level not in tables:
            tables[level] = predict(world.z, torch.full((len(world.z),), level, dtype=torch.float64)).nan_to_num(0.0)
        return tables[level][index_of(world, z)]

    return FromLogits(logits)


def clean(world: World) -> Tensor:
    """p over ``world.z``."""
    return torch.zeros(len(world.z), dtype=torch.float64).index_add_(0, index_of(world, world.x), world.p)


def total_variation(drawn: Tensor, p: Tensor) -> float:
    """Of drawn states ``[N]`` from a distribution ``[Z]``."""
    counts = torch.bincount(drawn, minlength=len(p)).double()
    return float((counts / counts.sum() - p).abs().sum() / 2)


def drawn_from(p: Tensor, rows: int = ROWS, seed: int = 5) -> Tensor:
    """Independent draws, ``[rows]``."""
    uniform = torch.rand(rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return draw_categorical(p.expand(rows, -1), uniform)


def noise_floor(p: Tensor) -> float:
    """The total variation that as many independent draws have."""
    return total_variation(drawn_from(p, seed=6), p)


class FastNoise:
    """In place of addressed noise: numbers of one generator."""

    generator = torch.Generator()

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def integers(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, (self.rows, *shape), generator=self.generator)

    def uniform(self, *shape: int, dtype: torch.dtype) -> Tensor:
        assert dtype == torch.float64, "draws are made in float64"
        return torch.rand(self.rows, *shape, generator=self.generator, dtype=dtype)


def empty(world: World, steps: int, rows: int = ROWS) -> Canvas:
    """A canvas of empty texts."""
    tokens = torch.zeros(rows, world.length, dtype=torch.int64)
    return Canvas.of(tokens, tokens.bool(), seed=0, steps=steps, rows=[0] * rows)
