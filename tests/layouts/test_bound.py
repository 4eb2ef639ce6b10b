"""The bound of blocks, against entropies and cross-entropies by enumeration."""

from __future__ import annotations

import math

import pytest
import torch

from sumi_core.corruption import CLOCKS, PARAMETERISATIONS
from sumi_core.data.batch import Batch
from sumi_core.data.noise import Noise
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.layouts import LAYOUTS
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserInput, FromLogits
from sumi_core.objectives import OBJECTIVES
from sumi_core.objectives.likelihood import Bound, ChainRule
from tests.corruption.enumerable import NAMES, World, log_odds_quadrature
from tests.layouts.exact import block_bound, block_gaps, blocks, exact_logits, two_streams
from tests.models.stock import lively, small

read_outs = pytest.mark.parametrize("read_out", ["own", "previous"])


EXACT = [(n, read_out, "leave_one_out", 0.05) for n in (1, 2, 4) for read_out in ("own", "previous")]
EXACT += [(2, "own", "leave_one_out", 1e-3), (2, "own", "posterior", 0.05), (4, "own", "posterior", 0.05)]


@pytest.mark.parametrize(("length", "read_out", "parameterisation", "epsilon"), EXACT)
@pytest.mark.parametrize("process", NAMES)
def test_with_the_exact_denoiser_every_block_length_meets_the_entropy(
    process: str, length: int, read_out: str, parameterisation: str, epsilon: float
) -> None:
    """Above it lies what the cut at ε costs by definition, and nothing else: to the accuracy of the quadrature."""
    world = World(process, "cosine", tokens=2, length=4, seed=1)
    world.process.parameterisation = PARAMETERISATIONS.build(parameterisation, {})
    layout, (points, within) = blocks(length, read_out), {0.05: (26, 1e-9), 1e-3: (40, 2e-7)}[epsilon]
    found = block_bound(world, layout, two_streams(world, layout), epsilon, points)
    assert found == pytest.approx(world.entropy + block_gaps(world, length, epsilon), abs=within)


def test_a_denoiser_that_saw_the_block_goes_below_the_entropy() -> None:
    """What the strict comparison prevents: a clean token of the block itself."""
    world = World("uniform", "cosine", tokens=2, length=4, seed=1)
    layout = blocks(2)
    x = world.x.repeat_interleave(len(world.z), 0)

    def leaking(z: torch.Tensor, t: torch.Tensor | None) -> torch.Tensor:
        assert t is not None
        parts = [exact_logits(world, z[:, :4], x, t[:, 0], first, last) for first, last in ((0, 2), (2, 4))]
        parts[1] = exact_logits(world, z[:, :4], x, t[:, 0], 3, 4).expand(-1, 2, -1)
        parts[1] = torch.cat([exact_logits(world, z[:, :4], x, t[:, 0], 2, 4)[:, :1], parts[1][:, 1:]], 1)
        return torch.cat([*parts, torch.zeros_like(parts[0]), torch.zeros_like(parts[0])], 1)

    assert block_bound(world, layout, FromLogits(leaking), 1e-4) < world.entropy - 1e-3


@pytest.mark.parametrize("process", NAMES)
def test_the_bound_of_blocks_of_one_token_is_the_cross_entropy_of_a_causal_model(process: str) -> None:
    """For any predictor f that ignores z, whatever the noise: here a random transformer, which the read-out `previous`
    makes of a causal one. What is left of it at 1 − ε, KL(q_{1−ε}(·|x) ‖ f q_{1−ε}), is what the
    prior term bounds, and stands here in its place."""
    world = World(process, "cosine", tokens=4, length=3)
    denoiser = lively(Denoiser(small(attention="causal"), world.states)).double()
    layout, text, eos = blocks(1, "previous"), torch.tensor([[2, 0, 3]]), 1
    batch = Batch(text, torch.arange(1), torch.arange(1), 1, 0, 0)
    truth = float(ChainRule(world.tokens, eos)(denoiser, batch, 1e-3).total)
    process_ = world.process
    z = torch.arange(world.states)[:, None].expand(-1, 3)
    x = text.expand(world.states, -1)
    shown, epsilon = layout.of(denoiser, x, eos), 0.05

    def predicted(t: float) -> torch.Tensor:
        with torch.no_grad():
            logits = shown(DenoiserInput(z, torch.full((len(z),), t, dtype=torch.float64))).logits()
        torch.testing.assert_close(logits, logits[:1].expand_as(logits), rtol=0, atol=1e-12)  # no slot holds the noise
        return logits

    def expectation(term: object, t: float) -> float:
        levels, logits = torch.full((len(z),), t, dtype=torch.float64), predicted(t)
        chance = world.q(levels[:1])[0][x, z]
        value = term(logits, x, z, levels[:1, None])  # type: ignore[operator]
        return float(torch.where(chance > 0, chance * value, 0.0).sum())

    nodes, weights = log_odds_quadrature(epsilon, 24)
    pairs = zip(nodes.tolist(), weights.tolist(), strict=True)
    total = sum(weight * expectation(process_.bound_integrand, t) for t, weight in pairs)
    total += expectation(process_.reconstruction, epsilon)
    q = world.q(torch.tensor(1 - epsilon, dtype=torch.float64))  # [V, S]
    mixed = predicted(1 - epsilon)[0, :, : world.tokens].softmax(-1) @ q
    left = float(torch.xlogy(q[text[0]], q[text[0]] / mixed).sum())
    assert total == pytest.approx(truth - left, abs=1e-9)
    assert left > 1e-8, "the cut is seen"


@read_outs
@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_the_reading_is_an_unbiased_estimate_of_it(process: str, read_out: str) -> None:
    world = World(process, "cosine", tokens=2, length=4, seed=1)
    layout = blocks(2, read_out)
    rows = torch.multinomial(world.p, 6000, replacement=True, generator=torch.Generator().manual_seed(0))
    batch = Batch(world.x[rows], torch.arange(6000), torch.arange(6000), 6000, 0, 1)
    found = Bound(world.process, layout)(two_streams(world, layout), batch, 1e-3)
    truth = block_bound(world, layout, two_streams(world, layout), 1e-3)
    error = float(found.total.std()) / math.sqrt(6000)
    assert abs(float(found.total.mean()) - truth) < 4 * error
    assert found.level.unique().numel() == 6000, "a row has one level"


def test_whole_texts_are_shown_as_they_are() -> None:
    denoiser = FromLogits(lambda z, t: z)
    whole = LAYOUTS.build("whole", {})
    assert whole.of(denoiser, torch.zeros(1, 2, dtype=torch.int64), 0) is denoiser
    uniform = torch.rand(3, 1)
    assert whole.times(uniform, 7) is uniform


# --- training -------------------------------------------------------------------------------------------------------


def test_training_spreads_the_levels_of_a_text_s_blocks() -> None:
    world = World("uniform", "linear", tokens=2, length=4)
    context = {"process": world.process, "vocabulary": Vocabulary(2, 0), "layout": blocks(2)}
    objective = OBJECTIVES.build("nelbo", {"time_epsilon": 1e-3}, **context)
    batch = Batch(world.x[:8], torch.arange(8), torch.arange(8), 8, 0, 1)
    noisy = objective.training_noise(batch)
    level = (noisy.level - 1e-3) / (1 - 2e-3)
    assert noisy.level.shape == (8, 4)
    assert torch.equal(level[:, 0], level[:, 1])
    torch.testing.assert_close((level[:, 2] - level[:, 0]) % 1.0, torch.full((8,), 0.5, dtype=torch.float64))
    assert torch.equal(noisy.level, noisy.conditioning_level)
    uniform = (torch.arange(60, dtype=torch.float64)[:, None] + 0.5) / 60
    drawn = blocks(2).times(uniform, 6)
    assert all(torch.allclose(column.sort().values, uniform[:, 0], atol=1e-9) for column in drawn.T), "each is uniform"


@pytest.mark.parametrize("sampling", ["stratified", "iid", "importance"])
@read_outs
def test_the_training_loss_is_the_bound_s_diffusion_term(read_out: str, sampling: str) -> None:
    """A mean over tokens of what the reading estimates a text at a time, on the same texts."""
    world = World("uniform", "cosine", tokens=2, length=4, seed=1)
    layout = blocks(2, read_out)
    context = {"process": world.process, "vocabulary": Vocabulary(2, 0), "layout": layout}
    density = {"time_density": {"name": "linear"}} if sampling == "importance" else {}
    objective = OBJECTIVES.build("nelbo", {"time_epsilon": 1e-3, "time_sampling": sampling, **density}, **context)
    rows = torch.multinomial(world.p, 8000, replacement=True, generator=torch.Generator().manual_seed(0))
    batch = Batch(world.x[rows], torch.arange(8000), torch.arange(8000), 8000, 0, 1)

    def blind(given: DenoiserInput):  # type: ignore[no-untyped-def]
        return FromLogits(lambda z, t: torch.zeros(*z.shape, 2, dtype=torch.float64))(given)

    loss = objective.loss(blind, batch).value
    assert list(objective.readings) == ["blocks"]
    found = objective.likelihood(blind, batch, 1e-3).diffusion
    error = float(found.std()) / math.sqrt(8000)
    assert abs(4 * float(loss) - float(found.mean())) < 6 * error


# --- the staircase --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 4])
@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_a_staircase_of_clocks_has_the_same_bound_on_one_stream(process: str, length: int) -> None:
    """The bound along the clocks, by a rule over the steps of the staircase, with the exact denoiser under them."""
    world = World(process, "cosine", tokens=2, length=4, seed=1)
    clock, epsilon, count = CLOCKS.build("staircase", {"length": length}), 1e-5, 4 // length
    clocks = clock.draw(Noise(0, "clock", 0, [0]), 4)
    x, z = world.x.repeat_interleave(len(world.z), 0), world.z.repeat(len(world.x), 1)

    def chances(level: torch.Tensor) -> torch.Tensor:
        """q_t(z | x) at a level for each position: ``[M Z, L]``."""
        q = torch.stack([world.q(part[None])[0] for part in level])  # [L, V, S]
        return q[torch.arange(4), x, z]

    def denoised(level: torch.Tensor) -> torch.Tensor:
        evidence = torch.stack([world.q(part[None])[0] for part in level])[
            torch.arange(4), world.x[None], world.z[:, None]
        ]
        columns = []
        for i in range(4):
            weight = world.p * evidence[:, :, [j for j in range(4) if j != i]].prod(-1)
            column = torch.zeros(len(world.z), 2, dtype=torch.float64).index_add_(1, world.x[:, i], weight)
            columns.append(column / column.sum(-1, keepdim=True))
        return world._logits(torch.stack(columns, 1)).repeat(len(world.x), 1, 1)

    def expectation(term: object, level: torch.Tensor, speed: torch.Tensor) -> float:
        weight = world.p.repeat_interleave(len(world.z)) * chances(level).prod(-1)
        seen = weight > 0
        value = term(denoised(level)[seen], x[seen], z[seen], level[None])  # type: ignore[operator]
        return float((weight[seen, None] * torch.where(speed > 0, speed * value, 0.0)).sum())

    def scaled(level: torch.Tensor) -> torch.Tensor:
        return epsilon + (1 - 2 * epsilon) * level

    nodes, weights = log_odds_quadrature(epsilon, 48)
    total = 0.0
    for step in range(count):  # one block is on its way at a time
        for node, weight in zip(nodes, weights, strict=True):
            level = (node - epsilon) / (1 - 2 * epsilon)
            reading = clocks.at(((step + level) / count)[None])
            assert int((reading.speed > 0).sum()) == length
            total += (
                float(weight)
                / count
                * expectation(world.process.bound_integrand, scaled(reading.level[0]), reading.speed[0])
            )
    ends = torch.full((4,), epsilon, dtype=torch.float64)
    total += expectation(world.process.reconstruction, ends, torch.ones(4))
    prior = world.p @ world.process.prior(world.x, torch.full((1, 1), 1 - epsilon, dtype=torch.float64)).sum(-1)
    layout = blocks(length)
    assert total + float(prior) == pytest.approx(block_bound(world, layout, two_streams(world, layout), 1e-5), abs=2e-6)
    assert total + float(prior) == pytest.approx(world.entropy + block_gaps(world, length, epsilon), abs=2e-6)


def test_a_staircase_ends_with_the_first_block() -> None:
    clocks = CLOCKS.build("staircase", {"length": 2}).draw(Noise(0, "clock", 0, [0]), 6)
    reading = clocks.at(torch.tensor([0.5], dtype=torch.float64))
    torch.testing.assert_close(reading.level, torch.tensor([[0, 0, 0.5, 0.5, 1, 1]], dtype=torch.float64))
    torch.testing.assert_close(reading.speed, torch.tensor([[0, 0, 3.0, 3, 0, 0]], dtype=torch.float64))
    assert torch.equal(reading.level, reading.conditioning_level)
