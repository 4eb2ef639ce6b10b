"""The acceptance test of every process: the exact denoiser's bound is the entropy (docs/mathematics.md 2 and 3)."""

import math

import numpy as np
import pytest
import torch

from tests.corruption.enumerable import CASES, NAMES, World, end_gaps, expected_bound

EPSILON = 1e-3


@pytest.mark.parametrize("epsilon", [1e-3, 0.05])
@pytest.mark.parametrize(("process", "schedule"), CASES)
def test_exact_leave_one_out_denoiser_meets_the_entropy(process, schedule, epsilon):
    """diffusion + reconstruction + prior = H(p) + what the cut at ε costs by definition, to quadrature accuracy.

    The excess is computed from p alone: the start from independent guesses at 1 − ε, and the factorised last step at
    ε. So the tolerance is that of float64 and the quadrature (1e-10), not of the cut.
    """
    world = World(process, schedule)
    terms = expected_bound(world, world.denoiser, epsilon)
    gaps = end_gaps(world, epsilon)
    assert sum(terms.values()) == pytest.approx(world.entropy + sum(gaps.values()), abs=1e-10)
    # And the cut costs little: at most the α of the last sliver times log V, at each of the positions, and as much
    # again for what is read off position by position at ε.
    assert 0 <= sum(gaps.values()) < 2 * world.length * epsilon * math.log(world.tokens)


@pytest.mark.parametrize(("process", "schedule"), CASES)
@pytest.mark.parametrize("term", ["diffusion", "reconstruction", "prior"])
def test_no_term_can_be_dropped(process, schedule, term):
    """At a coarse cut each of the three is worth more than 1e-5 nats: 10⁵ times the tolerance of the identity."""
    assert expected_bound(World(process, schedule), World(process, schedule).denoiser, 0.05)[term] > 1e-5


@pytest.mark.parametrize(("process", "schedule"), CASES)
def test_the_cut_vanishes_with_epsilon(process, schedule):
    world = World(process, schedule, seed=1)
    totals = [sum(expected_bound(world, world.denoiser, epsilon, 128).values()) for epsilon in (1e-2, 1e-4, 1e-6)]
    excess = [total - world.entropy for total in totals]
    assert excess[0] > excess[1] > excess[2] > -1e-9
    assert excess[2] < 1e-5


@pytest.mark.parametrize("process", ["uniform", "hybrid", "clustered"])
def test_three_positions(process):
    world = World(process, "cosine", tokens=3, length=3, seed=2)
    total = sum(expected_bound(world, world.denoiser, EPSILON).values())
    assert total == pytest.approx(world.entropy + sum(end_gaps(world, EPSILON).values()), abs=1e-10)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_full_posterior_is_the_wrong_denoiser_for_uniform_noise(schedule):
    """A denoiser that looks at its own token is far from the entropy: the bound wants the leave-one-out posterior."""
    world = World("uniform", schedule)
    total = sum(expected_bound(world, world.full_posterior_denoiser, EPSILON).values())
    assert total > world.entropy + 0.3


@pytest.mark.parametrize("process", NAMES)
def test_any_other_denoiser_is_worse(process):
    """Blurring the exact denoiser can only raise the bound."""
    world = World(process)

    def blurred(z, t):
        return world.denoiser(z, t) * 0.8

    exact, worse = (sum(expected_bound(world, d, EPSILON).values()) for d in (world.denoiser, blurred))
    assert worse > exact + 1e-3


@pytest.mark.parametrize("process", NAMES)
def test_the_bound_does_not_depend_on_the_schedule(process):
    """Between the same two values of α the diffusion term is the same integral, whatever the schedule.

    The denoiser here is wrong on purpose and depends on α alone, so equality is no accident of exactness.
    """
    epsilon = 1e-2
    linear, cosine = World(process, "linear"), World(process, "cosine")
    ends = cosine.process.schedule.time_of_alpha(torch.tensor([1 - epsilon, epsilon], dtype=torch.float64))

    def integral(world: World, low: float, high: float) -> float:
        nodes, weights = np.polynomial.legendre.leggauss(80)
        odds_low, odds_high = math.log(low / (1 - low)), math.log(high / (1 - high))
        total = 0.0
        for node, weight in zip(nodes, weights, strict=True):
            odds = (odds_low + odds_high) / 2 + (odds_high - odds_low) / 2 * node
            t = 1 / (1 + math.exp(-odds))
            total += weight * (odds_high - odds_low) / 2 * t * (1 - t) * _integrand_at(world, t)
        return total

    assert integral(linear, epsilon, 1 - epsilon) == pytest.approx(integral(cosine, *ends.tolist()), rel=1e-9)


def _integrand_at(world: World, t: float) -> float:
    levels = torch.full((len(world.z),), t, dtype=torch.float64)
    q = world.q(levels[:1])[0]
    logits = 0.5 * world.denoiser(world.z, levels)
    total = 0.0
    for p, x in zip(world.p, world.x, strict=True):
        weight = q[x, world.z].prod(-1)
        seen = weight > 0
        xs = x.expand(int(seen.sum()), -1)
        value = world.process.bound_integrand(logits[seen], xs, world.z[seen], levels[seen, None])
        total += float(p * (weight[seen] * value.sum(-1)).sum())
    return total
