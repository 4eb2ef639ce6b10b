"""Noise clocks (docs/mathematics.md 5): levels along a sequence, their bound, and sampling with them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from sumi_core.corruption import CLOCKS
from sumi_core.corruption.clocks import Clocks
from sumi_core.data.batch import Batch
from sumi_core.data.noise import Noise
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.models.interface import FromLogits
from sumi_core.objectives import OBJECTIVES
from sumi_core.sampling import SAMPLERS
from tests.corruption.enumerable import World

SPANS = {"name": "spans", "mean_length": 3.0, "window": 0.4, "conditioned": True}


def draw(clock: dict[str, Any], rows: int = 2000, length: int = 24) -> Clocks:
    return CLOCKS.from_config(clock).draw(Noise(0, "clock", 0, range(rows)), length)


def times(value: float, rows: int) -> Tensor:
    return torch.full((rows,), value, dtype=torch.float64)


@pytest.mark.parametrize(
    "clock", [{"name": "shared"}, SPANS, {**SPANS, "window": 1.0}, {**SPANS, "conditioned": False}]
)
def test_clocks_run_from_clean_to_noise_at_their_speed(clock: dict[str, Any]) -> None:
    clocks, rows = draw(clock, rows=50), 50
    assert clocks.at(times(0.0, rows)).level.abs().max() == 0
    assert (clocks.at(times(1.0, rows)).level - 1).abs().max() == 0
    grid = torch.linspace(0, 1, 4001, dtype=torch.float64)
    levels = torch.stack([clocks.at(t.expand(rows)).level.expand(rows, 24) for t in grid])
    speeds = torch.stack([clocks.at(t.expand(rows)).speed.expand(rows, 24) for t in (grid[1:] + grid[:-1]) / 2])
    assert (levels.diff(dim=0) >= 0).all()
    run = (speeds / 4000).cumsum(0)
    assert float((levels[1:] - run).abs().max()) < 2e-3  # a grid cell at either edge of the window


def test_a_window_of_one_is_the_shared_clock() -> None:
    t = torch.rand(2000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spans, shared = draw({**SPANS, "window": 1.0}).at(t), draw({"name": "shared"}).at(t)
    torch.testing.assert_close(spans.level, shared.level.expand(2000, 24))
    torch.testing.assert_close(spans.speed, torch.ones(2000, 24, dtype=torch.float64))


def test_spans_have_the_length_law_and_start_that_they_say() -> None:
    reading = draw(SPANS, rows=4000, length=64).at(times(0.5, 4000))
    cuts = (reading.level.diff(dim=1) != 0).double().mean()
    # A cut shows unless both spans stand at the same end: u ≥ 0.5 (level 0) or u ≤ 0.1 (level 1), u ~ U(0, 0.6).
    seen = 1 - (0.1 / 0.6) ** 2 - (0.1 / 0.6) ** 2
    assert float(cuts) == pytest.approx(seen / 3, rel=0.02)
    moving = (reading.speed > 0).double().mean()
    assert float(moving) == pytest.approx(0.4 / 0.6, rel=0.02)
    assert reading.speed.unique().tolist() == [0.0, 2.5]
    assert reading.conditioning_level.equal(reading.level)
    untold = draw({**SPANS, "conditioned": False}, rows=4000, length=64).at(times(0.5, 4000))
    assert untold.conditioning_level.equal(times(0.5, 4000))
    assert untold.level.equal(reading.level)


class ToldWorld(World):
    """Exact inference when every position has a level of its own."""

    def evidence(self, z: Tensor, t: Tensor) -> Tensor:
        if t.ndim == 1:
            return super().evidence(z, t)
        q = self.q(t)  # [B, L, V, S]
        rows, place = torch.arange(len(z))[:, None, None], torch.arange(self.length)
        return q[rows, place, self.x[None], z[:, None, :]]


@pytest.mark.parametrize("process", ["uniform", "absorbing", "hybrid", "clustered"])
def test_every_pair_of_clocks_gives_the_entropy_when_told(process: str) -> None:
    """The entropy identity with span clocks: Σ over x, z and the quadrature over t of the bound is H(p)."""
    world, epsilon = ToldWorld(process), 1e-3
    gap = _ends_of_exact_bound(world, epsilon)
    for starts in ((0.0, 0.6), (0.3, 0.3), (0.1, 0.25)):
        assert _along(world, starts, epsilon) == pytest.approx(world.entropy + gap, abs=2e-6), starts


def test_a_denoiser_that_is_not_told_its_clocks_pays_for_it() -> None:
    """It knows the time alone, and takes it for the level of all positions: a bound still, above the entropy."""
    world, epsilon, rows = ToldWorld("uniform"), 1e-3, 20_000
    pairs = list(itertools.product((0.1, 0.3, 0.5), repeat=2))  # midpoints of the starts, U(0, 0.6)
    untold = sum(_along(world, starts, epsilon, told=False, count=24) for starts in pairs) / len(pairs)
    assert untold > world.entropy + 0.02

    clock = {**SPANS, "mean_length": 1.0, "conditioned": False}  # every position is a span
    world.process.clock = CLOCKS.from_config(clock)
    objective = OBJECTIVES.build("nelbo", {}, process=world.process, vocabulary=Vocabulary(4, 0))
    drawn = torch.multinomial(world.p, rows, replacement=True, generator=torch.Generator().manual_seed(0))
    batch = Batch(world.x[drawn], torch.arange(rows), torch.arange(rows), rows, 0, 0)
    found = objective.likelihood(FromLogits(world.denoiser), batch, epsilon).total  # type: ignore[arg-type]
    assert float(found.mean()) == pytest.approx(untold, abs=4 * float(found.std() / rows**0.5))


def _along(
    world: ToldWorld, starts: tuple[float, float], epsilon: float, *, told: bool = True, count: int = 60
) -> float:
    """The bound along a pair of clocks. told: the denoiser knows the level of each position; else the time alone."""
    window, total = 0.4, _ends(world, epsilon)
    start = torch.tensor([starts], dtype=torch.float64)
    # Break points where a clock starts or stops; in between the integrand is smooth up to its ends' logarithms.
    for position in range(2):
        low, high = starts[position], starts[position] + window
        others = [p for p in (starts[1 - position], starts[1 - position] + window) if low < p < high]
        for a, b in zip([low, *others], [*others, high], strict=True):
            nodes = _nodes(a, b, count)
            total += _integral(world, start, window, nodes, position, epsilon, told)
    return total


def _nodes(a: float, b: float, count: int) -> tuple[Tensor, Tensor]:
    """Tanh-sinh nodes: the integrand has logarithms at both ends."""
    h = torch.linspace(-3.2, 3.2, count, dtype=torch.float64)
    u = torch.tanh(torch.pi / 2 * torch.sinh(h))
    w = torch.pi / 2 * torch.cosh(h) / torch.cosh(torch.pi / 2 * torch.sinh(h)) ** 2 * (h[1] - h[0])
    return (a + b) / 2 + (b - a) / 2 * u, (b - a) / 2 * w


def _integral(
    world: ToldWorld,
    start: Tensor,
    window: float,
    nodes: tuple[Tensor, Tensor],
    position: int,
    eps: float,
    told: bool,
) -> float:
    x = world.x.repeat_interleave(len(world.z), 0)
    z = world.z.repeat(len(world.x), 1)
    total = 0.0
    for t, weight in zip(*nodes, strict=True):
        level = eps + (1 - 2 * eps) * ((t - start) / window).clamp(0, 1).expand(len(world.z), 2)
        given = level if told else (eps + (1 - 2 * eps) * t).expand(len(world.z))
        logits = world.denoiser(world.z, given).repeat(len(world.x), 1, 1)
        q = world.q(level[:1])[0]
        chance = world.p.repeat_interleave(len(world.z)) * q[0][x[:, 0], z[:, 0]] * q[1][x[:, 1], z[:, 1]]
        possible = chance > 0
        density = world.process.bound_integrand(logits[possible], x[possible], z[possible], level[:1])
        total += float(weight * (1 - 2 * eps) / window * (chance[possible] * density[:, position]).sum())
    return total


def _ends(world: World, epsilon: float) -> float:
    """Reconstruction and prior terms, which no clock changes: all levels start and end together."""
    from tests.corruption.enumerable import expected_bound

    terms = expected_bound(world, world.denoiser, epsilon, points=2)
    return terms["reconstruction"] + terms["prior"]


def _ends_of_exact_bound(world: World, epsilon: float) -> float:
    from tests.corruption.enumerable import end_gaps

    return sum(end_gaps(world, epsilon).values())


def test_the_monte_carlo_bound_with_spans_is_unbiased_for_an_untold_denoiser() -> None:
    """A denoiser that knows nothing of z has a bound that no clock changes: L · H of a uniform guess."""
    world = World("uniform")
    world.process.clock = CLOCKS.from_config(SPANS)
    objective = OBJECTIVES.build("nelbo", {}, process=world.process, vocabulary=Vocabulary(4, 0))

    def flat(tokens: Tensor, t: Tensor | None) -> Tensor:
        return torch.zeros(*tokens.shape, 4, dtype=torch.float64)

    rows = 20_000
    batch = Batch(torch.zeros(rows, 6, dtype=torch.int64), torch.arange(rows), torch.arange(rows), rows, 0, 0)
    found = objective.likelihood(FromLogits(flat), batch, 1e-3)
    error = float(found.total.std() / rows**0.5)
    assert float(found.total.mean()) == pytest.approx(6 * torch.tensor(4.0).log().item(), abs=4 * error)
    assert error < 0.2
    loss = objective.loss(FromLogits(flat), batch)
    assert float(loss.value) == pytest.approx(float(found.diffusion.mean()) / 6, rel=1e-9)


def test_sampling_with_span_clocks_draws_from_the_model() -> None:
    """With the exact denoiser, told its clocks, texts follow p; a position never moves while its clock stands."""
    world = ToldWorld("uniform")
    world.process.clock = CLOCKS.from_config({**SPANS, "mean_length": 1.0})
    sampler = SAMPLERS.build("ancestral", {}, process=world.process, vocabulary=Vocabulary(4, 0))
    seen: list[tuple[Tensor, Tensor]] = []

    def denoiser(tokens: Tensor, t: Tensor | None) -> Tensor:
        assert t is not None
        seen.append((tokens.clone(), t))
        return world.denoiser(tokens, t.clamp(1e-6, 1 - 1e-6))

    drawn = sampler.sample(FromLogits(denoiser), num=8000, length=2, steps=20, seed=1).tokens
    for (before, conditioning_level), (after, then) in itertools.pairwise(seen):
        stood = conditioning_level == then
        assert before[stood].equal(after[stood])
    share = torch.bincount(drawn[:, 0] * 4 + drawn[:, 1], minlength=16).double() / len(drawn)
    assert float((share - world.p).abs().sum() / 2) < 0.03


@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_a_denoiser_that_is_told_its_clocks_meets_the_entropy_and_one_that_is_misled_does_not(process: str) -> None:
    """``likelihood`` with the exact denoiser of the levels that it is given, over all texts by their probability."""
    world = ToldWorld(process)
    world.process.clock = CLOCKS.from_config({**SPANS, "mean_length": 2.0})
    objective = OBJECTIVES.build("nelbo", {}, process=world.process, vocabulary=Vocabulary(4, 0))
    rows = 40_000
    drawn = torch.multinomial(world.p, rows, replacement=True, generator=torch.Generator().manual_seed(0))
    batch = Batch(world.x[drawn], torch.arange(rows), torch.arange(rows), rows, 0, 0)

    def given(z: Tensor, t: Tensor | None) -> Tensor:
        assert t is not None
        return world.denoiser(z, t)

    def misled(z: Tensor, t: Tensor | None) -> Tensor:
        assert t is not None
        return world.denoiser(z, torch.full_like(t, 0.5))

    found = objective.likelihood(FromLogits(given), batch, 1e-3).total
    error = float(found.std() / rows**0.5)
    assert float(found.mean()) == pytest.approx(world.entropy, abs=4 * error + 0.01)
    if process == "uniform":  # a mask tells its level by itself
        worse = objective.likelihood(FromLogits(misled), batch, 1e-3).total
        assert float((worse - found).mean()) > 4 * float((worse - found).std() / rows**0.5)


@pytest.mark.parametrize("token_levels", [0.0, 0.5])
def test_training_tells_every_position_its_level(token_levels: float) -> None:
    world = ToldWorld("uniform")
    world.process.clock = CLOCKS.from_config(SPANS)
    options = {"token_levels": token_levels}
    objective: Any = OBJECTIVES.build("nelbo", options, process=world.process, vocabulary=Vocabulary(4, 0))
    batch = Batch(torch.zeros(64, 12, dtype=torch.int64), torch.arange(64), torch.arange(64), 64, 0, 0)
    noisy = objective.training_noise(batch)
    torch.testing.assert_close(noisy.conditioning_level, noisy.level)


@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_a_prompt_is_told_to_be_clean(process: str) -> None:
    """With the exact denoiser, told its levels, what follows a prompt follows p(x_2 | x_1)."""
    world = ToldWorld(process)
    world.process.clock = CLOCKS.from_config({**SPANS, "mean_length": 1.0})
    sampler = SAMPLERS.build("ancestral", {}, process=world.process, vocabulary=Vocabulary(4, 0))

    def denoiser(tokens: Tensor, t: Tensor | None) -> Tensor:
        assert t is not None
        return world.denoiser(tokens, t.clamp(1e-6, 1 - 1e-6))

    joint = world.p.view(4, 4)
    for first in (0, 2):
        prompt = torch.tensor([first])
        drawn = sampler.sample(FromLogits(denoiser), num=3000, length=2, steps=20, seed=1, prompt=prompt).tokens[:, 1]
        share = torch.bincount(drawn, minlength=4).double() / len(drawn)
        assert float((share - joint[first] / joint[first].sum()).abs().sum() / 2) < 0.04
