"""A fitted schedule against its derivation, on a world where every text and every z can be summed over."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from sumi_core.corruption import SCHEDULES
from sumi_core.corruption.fitted import fit_profile
from sumi_core.corruption.schedules import NoiseSchedule
from sumi_core.evaluation.likelihood import loss_by_level
from tests.corruption.enumerable import World
from tests.evaluation.fakes import likelihoods

EPSILON = 1e-3
FINE = torch.linspace(EPSILON**0.5, (1 - EPSILON) ** 0.5, 600, dtype=torch.float64) ** 2


def moments(world: World, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """E[G] and E[G²] at each noise 1 − α, G the nats per unit of α that one text with one z shows, by enumeration."""
    x = world.x.repeat_interleave(len(world.z), 0)
    z = world.z.repeat(len(world.x), 1)
    first, second = [], []
    for t in world.process.time_of_alpha(1 - noise):
        levels = t.expand(len(world.z))
        logits = (0.6 * world.denoiser(world.z, levels)).repeat(len(world.x), 1, 1)  # wrong, as real ones are
        chance = world.p.repeat_interleave(len(world.z)) * world.q(levels[:1])[0][x, z].prod(-1)
        value = torch.zeros_like(chance)
        possible = chance > 0
        level = levels[:1, None]
        per_t = world.process.bound_integrand(logits[possible], x[possible], z[possible], level)
        value[possible] = per_t.sum(-1) / -float(world.process.dalpha(level))
        first.append((chance * value).sum())
        second.append((chance * value**2).sum())
    return torch.stack(first), torch.stack(second)


def variance(schedule: NoiseSchedule, noise: torch.Tensor, second: torch.Tensor, mean: float) -> float:
    """Of the diffusion term's estimate from one text, one t uniform over the noise in question, and one z."""
    t = schedule.time_of_alpha(1 - noise)
    density = -1 / schedule.dalpha(t) / (t[-1] - t[0])  # of the noise that is drawn
    return float(torch.trapezoid(second / density, noise)) - mean**2


@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_no_density_has_less_variance_than_the_derived_one(process: str) -> None:
    """(∫ √E[G²])² is reached by the fitted schedule, by none of the others, and by no schedule fitted to something
    else: to the mean alone, or to the derived weight disturbed."""
    world = World(process, seed=5)
    first, second = moments(world, FINE)
    mean = float(torch.trapezoid(first, FINE))
    least = float(torch.trapezoid(second.sqrt(), FINE)) ** 2 - mean**2

    def fitted(weight: torch.Tensor) -> float:
        knots = {"noise": FINE.tolist(), "weight": (FINE.sqrt() * weight).tolist()}
        made = SCHEDULES.build("fitted", knots)
        return variance(made, FINE, second, mean)

    found = {name: variance(SCHEDULES.build(name, {}), FINE, second, mean) for name in ("linear", "cosine", "log_snr")}
    assert fitted(second.sqrt()) == pytest.approx(least, rel=1e-4)
    for other in (*found.values(), fitted(first), fitted(second.sqrt() * (1 + 0.3 * (20 * FINE).sin()))):
        assert other > 1.005 * least
    # What it is worth here: so many texts, measured at levels drawn from linear, tell as much as one from the fit.
    assert found["linear"] / least == pytest.approx({"uniform": 7.46, "absorbing": 1.69}[process], rel=0.01)


def curve_of(world: World, bins: int = 20) -> pd.DataFrame:
    """What an evaluation of very many sequences would print: means over even intervals of the noise."""
    inside = 16
    edges = torch.linspace(EPSILON, 1 - EPSILON, bins * inside + 1, dtype=torch.float64)
    noise = (edges[1:] + edges[:-1]) / 2
    second = moments(world, noise)[1].view(bins, inside).mean(1)
    return pd.DataFrame({"noise": noise.view(bins, inside).mean(1), "per_alpha_square": second})


@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_twenty_measured_levels_are_enough(process: str) -> None:
    world = World(process, seed=5)
    knots = fit_profile(curve_of(world))
    first, second = moments(world, FINE)
    mean = float(torch.trapezoid(first, FINE))
    least = float(torch.trapezoid(second.sqrt(), FINE)) ** 2 - mean**2
    assert variance(SCHEDULES.build("fitted", knots), FINE, second, mean) == pytest.approx(least, rel=0.04)


def test_the_fit_by_hand() -> None:
    """√(mean square) times the middle of the interval's √noise, lines in √noise drawn on to 0 and 1, and
    nothing below a twentieth of the measured mean."""
    curve = pd.DataFrame(
        {
            "noise": [0.08, 0.24, 0.64],  # means of [0, 0.16], [0.16, 0.44], [0.44, 0.84]
            "per_alpha_square": [25.0, 36.0, 0.0],
        }
    )
    root = [0.2, (0.4 + 0.44**0.5) / 2, (0.44**0.5 + 0.84**0.5) / 2]
    least = (5 * root[0] + 6 * root[1]) / 3 * 0.05
    knots = fit_profile(curve)
    assert knots["noise"] == pytest.approx([0, *(v**2 for v in root), 1], rel=1e-5)
    start = 5 * root[0] - (6 * root[1] - 5 * root[0]) / (root[1] - root[0]) * root[0]
    assert start < least
    assert knots["weight"] == pytest.approx([least, 5 * root[0], 6 * root[1], least, least], rel=1e-5)
    curve["per_alpha_square"] = [100.0, 25.0, 16.0]
    a, b, c = (value * v for value, v in zip([10, 5, 4], root, strict=True))
    low, high = a - (b - a) / (root[1] - root[0]) * root[0], c + (c - b) / (root[2] - root[1]) * (1 - root[2])
    assert fit_profile(curve)["weight"] == pytest.approx([low, a, b, c, high], rel=1e-5)


def test_knots_are_read_off_a_measured_table() -> None:
    """From draws of a known mean and deviation, through the table that evaluations write."""
    generator = np.random.default_rng(0)
    level = (generator.random() + np.arange(40_000).reshape(10_000, 4) / 40_000) % 1.0
    nats = 16 * (1 + level + 0.5 * generator.standard_normal(level.shape))
    knots = fit_profile(loss_by_level(likelihoods(nats, level=level, tokens=16, epsilon=1e-9), bins=10))
    root = (np.sqrt(np.arange(0, 10) / 10) + np.sqrt(np.arange(1, 11) / 10)) / 2
    np.testing.assert_allclose(knots["noise"][1:-1], root**2, atol=1e-2)
    level = np.arange(0.05, 1, 0.1)
    np.testing.assert_allclose(knots["weight"][1:-1], root * np.sqrt((1 + level) ** 2 + 0.25), rtol=0.03)


def test_what_cannot_be_fitted_is_refused() -> None:
    columns = ["noise", "per_alpha_square"]
    with pytest.raises(ValueError, match="an exact likelihood has none"):
        fit_profile(pd.DataFrame(columns=columns, dtype=float))
    with pytest.raises(ValueError, match="evaluate more"):
        fit_profile(pd.DataFrame([[0.5, math.nan]], columns=columns))
