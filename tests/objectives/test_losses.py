"""What every loss is minimised by, its gradient, and the bound beside it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sumi_core.base.options import ConfigError
from sumi_core.corruption import PARAMETERISATIONS
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.experiments.resolve import resolve
from sumi_core.models.interface import FromLogits
from sumi_core.objectives import OBJECTIVES
from tests.corruption.enumerable import World, build_process
from tests.objectives.worlds import LOSSES, batch_of, build, exact, expected_loss, integrated_loss

PROCESSES = ["uniform", "absorbing"]
process_and_loss = [pytest.mark.parametrize("process", PROCESSES), pytest.mark.parametrize("loss", LOSSES)]


def both(test: Any) -> Any:
    for mark in process_and_loss:
        test = mark(test)
    return test


@both
@pytest.mark.parametrize("t", [0.05, 0.5, 0.9])
def test_the_exact_prediction_has_no_gradient(process: str, loss: str, t: float) -> None:
    """Summed over texts and z: nothing pulls the exact denoiser away, at any level; something pulls a wrong one."""
    world = World(process)
    objective, level = build(loss, world), torch.tensor(t, dtype=torch.float64)
    for blur, at_rest in ((1.0, True), (0.7, False)):
        logits = blur * exact(loss, world)(world.z, level.expand(len(world.z)))
        logits = logits.requires_grad_()
        (gradient,) = torch.autograd.grad(expected_loss(objective, world, lambda z, t, y=logits: y, level), logits)
        assert (float(gradient.abs().max()) < 1e-12) == at_rest
        assert float(gradient.abs().max()) < 10


@both
def test_gradient_against_finite_differences(process: str, loss: str) -> None:
    """Through corruption, network output, weighting and z-loss, as training sees it."""
    world = World(process)
    objective = build(loss, world, z_loss=1e-2, token_levels=0.5)
    shift = torch.randn(2, world.states, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def value(shift: Tensor) -> Tensor:
        return objective.loss(FromLogits(lambda z, t: 0.1 * z.unsqueeze(-1) + shift), batch_of(world.x)).value

    assert torch.autograd.gradcheck(value, (shift.requires_grad_(),), eps=1e-6, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("process", PROCESSES)
def test_mixture_path_bounds_the_entropy_but_is_not_tight(process: str) -> None:
    """At the exact posterior: far above the entropy for uniform noise, on it for absorbing noise, where a token that
    is hit jumps once. The tight bound stands beside it, on the entropy for both."""
    for seed in range(3):
        world = World(process, seed=seed)
        epsilon = 1e-3
        path = integrated_loss(
            build("mixture_path", world, time_epsilon=epsilon), world, world.full_posterior_denoiser, epsilon
        )
        tight = integrated_loss(
            build("elbo_of_posterior", world, time_epsilon=epsilon), world, world.full_posterior_denoiser, epsilon
        )
        assert tight == pytest.approx(world.entropy, abs=0.02)
        if process == "uniform":
            assert path > 1.25 * world.entropy
        else:
            assert path == pytest.approx(tight, rel=1e-9)


def test_mixture_path_is_the_divergence_between_its_rates() -> None:
    """Σ_{y≠z} [m_y − u_y + u_y log(u_y/m_y)], u_y = c δ_{xy}, m_y = c p(y|z), c = −α′/(1 − α), summed by hand."""
    world = World("uniform", "cosine")
    objective = build("mixture_path", world)
    batch = batch_of(world.x)
    noisy = objective.training_noise(batch)
    logits = 0.6 * world.denoiser(noisy.z, noisy.conditioning_level)
    found = objective.token_loss(noisy).of(logits)
    p = logits.softmax(-1)
    schedule = world.process.schedule
    pace = (-schedule.dalpha(noisy.level) / (1 - schedule.alpha(noisy.level)) * (1 - 2e-3)).expand(noisy.x.shape)
    assert (noisy.x == noisy.z).any()
    assert (noisy.x != noisy.z).any()
    for row in range(len(noisy.x)):
        for place in range(world.length):
            x, z = int(noisy.x[row, place]), int(noisy.z[row, place])
            total = 0.0
            for y in set(range(world.tokens)) - {z}:
                m, u = float(p[row, place, y]), float(y == x)
                total += m - u - (math.log(m) if u else 0.0)
            assert float(found[row, place]) == pytest.approx(float(pace[row, place]) * total)


@pytest.mark.parametrize("process", PROCESSES)
def test_mixture_path_near_certainty_does_not_cancel(process: str) -> None:
    """float32 against float64 where p(z|z) is all but one and c is large: 1 − p_z must keep its digits."""
    world = World(process, tokens=4)
    objective = build("mixture_path", world)
    batch = batch_of(world.x)
    noisy = objective.training_noise(batch)
    logits = torch.nn.functional.one_hot(noisy.z, world.states).double() * 14
    wide, narrow = (objective.token_loss(noisy).of(y) for y in (logits, logits.float()))
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-5, atol=0)


@pytest.mark.parametrize("loss", ["posterior_cross_entropy", "mixture_path"])
@pytest.mark.parametrize("process", PROCESSES)
def test_the_reported_bound_is_the_tight_one_whatever_was_trained(process: str, loss: str) -> None:
    """Regression: validation figures of a weighted or looser loss that were called a bound."""
    world = World(process)
    batch = batch_of(world.x)
    denoiser = world.full_posterior_denoiser
    reported = build("elbo_of_posterior", world).likelihood(FromLogits(denoiser), batch, 1e-3)
    found = build(loss, world, token_levels=1.0).likelihood(FromLogits(denoiser), batch, 1e-3)
    for term in ("diffusion", "reconstruction", "prior", "nats_per_alpha"):
        assert torch.equal(getattr(found, term), getattr(reported, term))
    plain = World(process)
    twin = build("elbo", plain).likelihood(FromLogits(plain.denoiser), batch, 1e-3)
    torch.testing.assert_close(found.total, twin.total)


@both
def test_knowing_nothing_costs_log_v(process: str, loss: str) -> None:
    """Regression: 1.8 nats shown as a bound at initialisation where log V = 6.2. A uniform prediction, read as the loss
    reads it, has a bound of log V; the posterior of a uniform text is not flat, so its logits are the evidence."""
    world = World(process, tokens=6)
    tokens = torch.randint(6, (6000, 3), generator=torch.Generator().manual_seed(0))
    objective = build(loss, world)

    def ignorant(z: Tensor, t: Tensor) -> Tensor:
        if LOSSES[loss][2] == "leave_one_out":
            return torch.zeros(*z.shape, world.states, dtype=torch.float64)
        evidence = world.process.log_evidence(z, t.view(len(z), -1))
        return torch.where(evidence.isfinite(), evidence, -50.0)

    found = objective.likelihood(FromLogits(ignorant), batch_of(tokens), 1e-3).total / 3
    error = float(found.std() / len(found) ** 0.5)
    assert abs(float(found.mean()) - math.log(6)) < 4 * error
    assert error < 0.05


@pytest.mark.parametrize("sampling", ["stratified", "iid"])
@pytest.mark.parametrize("tokens", [(5, 3), (1, 1), (7, 40)])
def test_every_token_counts_once_in_the_mean(tokens: tuple[int, int], sampling: str) -> None:
    """Regression: a mean over another number than that of the tokens. Knowing nothing is log V at each, exactly."""
    world = World("uniform", tokens=4)
    objective = build("posterior_cross_entropy", world, time_sampling=sampling)
    batch = batch_of(torch.zeros(tokens, dtype=torch.int64))
    loss = objective.loss(FromLogits(lambda z, t: torch.zeros(*z.shape, 4, dtype=torch.float64)), batch)
    assert float(loss.value) == pytest.approx(math.log(4), abs=1e-14)
    assert float(loss.metrics["cross_entropy"]) == float(loss.value)


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["posterior_cross_entropy", "mixture_path"])
def test_a_posterior_loss_refuses_to_be_read_otherwise(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({"objective": name}, "a.yaml")
    assert str(caught.value) == (
        f"a.yaml: parameterisation: objective '{name}' learns the posterior of a token; write posterior"
    )
    experiment = resolve({"objective": name, "parameterisation": "posterior"}, "a.yaml")
    assert experiment.objective["name"] == name
    process = build_process("uniform")
    with pytest.raises(ValueError, match="learns the posterior"):
        OBJECTIVES.build(name, {}, process=process, vocabulary=Vocabulary(4, 0))


def test_mixture_path_refuses_noise_that_moves() -> None:
    written = {"objective": "mixture_path", "parameterisation": "posterior", "process": "hybrid"}
    with pytest.raises(ConfigError) as caught:
        resolve(written, "a.yaml")
    assert str(caught.value) == (
        "a.yaml: process: objective 'mixture_path' needs noise from one distribution at all levels, unlike 'hybrid'"
    )
    for process in ("uniform", "absorbing", "unigram"):
        resolve({**written, "process": process}, "a.yaml")
    made = build_process("hybrid")
    made.parameterisation = PARAMETERISATIONS.build("posterior", {})
    with pytest.raises(ValueError, match="Hybrid noise has no mixture path"):
        OBJECTIVES.build("mixture_path", {}, process=made, vocabulary=Vocabulary(4, 0))
