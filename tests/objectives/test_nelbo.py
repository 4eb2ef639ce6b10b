"""The Monte-Carlo estimates that training and evaluation use, against exact enumeration and quadrature."""

import math

import pytest
import torch

from sumi_core.base.options import ConfigError, typed
from sumi_core.data.batch import Batch
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.models.interface import FromLogits
from sumi_core.objectives import OBJECTIVES
from tests.corruption.enumerable import CASES, World, build_process, expected_bound

EPSILON = 1e-3


def build(process, **options):
    return OBJECTIVES.build("nelbo", options, process=process, vocabulary=Vocabulary(process.num_tokens, 0))


def batch_of(tokens, step=0, seed=3, rows=None):
    """A batch, or some rows of it as another device or micro-batch would get them."""
    rows = torch.arange(len(tokens)) if rows is None else torch.tensor(rows)
    return Batch(tokens[rows], 1000 + rows, rows, len(tokens), step, seed)


def blurred(world):
    """A denoiser that is wrong, so that every term differs from its value at the optimum."""
    return lambda z, t: 0.6 * world.denoiser(z, t)


def uniform_guess(process):
    """What a network with a zero head says."""
    return lambda z, t: torch.zeros(*z.shape, process.num_states)


def within(estimates, truth, sigmas=4.0):
    """Mean of the estimates against the truth in standard errors (of independent draws: stratified ones do better)."""
    error = float(estimates.std() / len(estimates) ** 0.5)
    assert abs(float(estimates.mean()) - truth) < sigmas * error + 1e-12
    return error


@pytest.mark.parametrize(("process", "schedule"), CASES)
def test_nats_is_unbiased(process, schedule):
    """20,000 rows of one text, each with its own level and noise, against quadrature over t and a sum over every z."""
    world = World(process, schedule, seed=5)
    text = 6
    only = torch.zeros(len(world.x), dtype=torch.float64)
    only[text] = 1
    truth = expected_bound(world, blurred(world), EPSILON, p=only)
    batch = batch_of(world.x[text].expand(20_000, -1))
    likelihood = build(world.process).likelihood(FromLogits(blurred(world)), batch, EPSILON)
    for term, value in truth.items():
        estimates = getattr(likelihood, term)
        assert estimates.dtype == torch.float64
        assert estimates.shape == (20_000,)
        within(estimates, value)
    error = within(likelihood.total, sum(truth.values()))
    assert error < 0.04 * sum(truth.values())  # sharp enough to notice a factor in the weight


@pytest.mark.parametrize(("process", "schedule"), CASES)
def test_training_loss_is_unbiased_for_the_diffusion_term(process, schedule):
    world = World(process, schedule, seed=5)
    objective = build(world.process)
    assert objective.options.time_epsilon == EPSILON
    text = 3
    only = torch.zeros(len(world.x), dtype=torch.float64)
    only[text] = 1
    truth = expected_bound(world, blurred(world), EPSILON, p=only)["diffusion"] / world.length
    losses = torch.stack(
        [
            objective.loss(FromLogits(blurred(world)), batch_of(world.x[text].expand(16, -1), step)).value
            for step in range(600)
        ]
    )
    error = within(losses, truth)
    assert error < 0.05 * truth


@pytest.mark.parametrize(("process", "schedule"), CASES)
@pytest.mark.parametrize("weighting", ["elbo", "snr"])
def test_knowing_nothing_costs_log_v(process, schedule, weighting):
    """Regression: a validation figure that is no bound (a published code showed 1.8 nats at initialisation where
    log V = 6.2). Guessing uniformly, every text costs log V nats per token, exactly, all three terms together."""
    process = build_process(process, schedule, 50)
    tokens = torch.randint(50, (2000, 4), generator=torch.Generator().manual_seed(0))
    likelihood = build(process, weighting=weighting).likelihood(
        FromLogits(uniform_guess(process)), batch_of(tokens), EPSILON
    )
    error = within(likelihood.total / 4, math.log(50))
    assert error < 0.05 * math.log(50)


@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_nats_do_not_depend_on_the_training_loss(process):
    world = World(process)
    batch = batch_of(world.x)
    totals = [
        build(world.process, **options).likelihood(FromLogits(world.denoiser), batch, EPSILON).total
        for options in ({}, {"weighting": "snr"}, {"time_epsilon": 0.1})
    ]
    assert torch.equal(totals[0], totals[1])
    assert torch.equal(totals[0], totals[2])


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_snr_weighting_is_the_published_loss(schedule):
    """Sumi's loss written out: E_t E_z [w (KL + IS)], w = 1 where z ≠ x and 1/(1 + V e^λ) where z = x."""
    world = World("uniform", schedule)
    V = world.tokens
    objective = build(world.process, weighting="snr")
    batch = batch_of(world.x)
    loss = objective.loss(FromLogits(blurred(world)), batch)

    t = batch.times(EPSILON, 1 - EPSILON)
    z = world.process.corrupt(batch.tokens, t[:, None], batch.noise("corrupt"))
    alpha = world.process.schedule.alpha(t)[:, None]
    p = blurred(world)(z, t).softmax(-1)
    model = alpha[..., None] * p + (1 - alpha[..., None]) / V
    true = alpha[..., None] * torch.nn.functional.one_hot(batch.tokens, V) + (1 - alpha[..., None]) / V
    ratio = (true / model).gather(-1, z[..., None])[..., 0]
    weight = torch.where(z == batch.tokens, 1 / (1 + V * torch.exp(torch.logit(alpha))), 1.0)
    expected = weight * ((true * (true / model).log()).sum(-1) + ratio - ratio.log() - 1)
    torch.testing.assert_close(loss.value, expected.mean())
    assert (weight <= 1).all()
    # The bound stands beside it as a metric, with the true weight.
    torch.testing.assert_close(loss.metrics["elbo"], build(world.process).loss(FromLogits(blurred(world)), batch).value)
    assert float(loss.metrics["elbo"]) > float(loss.value)


def test_snr_weighting_of_absorbing_noise_is_alpha_times_cross_entropy():
    world = World("absorbing", "cosine")
    batch = batch_of(world.x)
    t = batch.times(EPSILON, 1 - EPSILON)
    z = world.process.corrupt(batch.tokens, t[:, None], batch.noise("corrupt"))
    logits = blurred(world)(z, t)[..., : world.tokens]
    nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.tokens.flatten(), reduction="none").view(
        z.shape
    )
    expected = (world.process.schedule.alpha(t)[:, None] * nats * (z == world.process.mask_id)).mean()
    torch.testing.assert_close(
        build(world.process, weighting="snr").loss(FromLogits(blurred(world)), batch).value, expected
    )


@pytest.mark.parametrize("epsilon", [1e-3, 0.2])
@pytest.mark.parametrize(("process", "schedule"), CASES)
def test_reconstruction_to_the_last_digit(process, schedule, epsilon):
    world = World(process, schedule)
    batch = batch_of(world.x.repeat(20, 1))
    t = torch.full((len(batch.tokens),), epsilon, dtype=torch.float64)
    z = world.process.corrupt(batch.tokens, t[:, None], batch.noise("reconstruction"))
    posterior = world.process.log_posterior(blurred(world)(z, t), z, t[:, None])
    wanted = -posterior.gather(-1, batch.tokens[..., None]).sum((1, 2))
    found = build(world.process).likelihood(FromLogits(blurred(world)), batch, epsilon).reconstruction
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("weighting", ["elbo", "snr"])
@pytest.mark.parametrize(("process", "schedule"), CASES)
def test_a_split_into_micro_batches_or_devices_gives_the_same_loss(process, schedule, weighting):
    """Levels and noise belong to the example: the loss is the mean of its rows, however they are dealt out."""
    world = World(process, schedule)
    objective = build(world.process, weighting=weighting)
    whole = objective.loss(FromLogits(blurred(world)), batch_of(world.x))
    assert not torch.equal(whole.value, objective.loss(FromLogits(blurred(world)), batch_of(world.x, step=1)).value)
    for split in ([[i] for i in range(16)], [[0, 5, 9, 15], [1, 2, 3, 4], [14, 13, 12, 11], [10, 8, 7, 6]]):
        parts = [objective.loss(FromLogits(blurred(world)), batch_of(world.x, rows=rows)) for rows in split]
        torch.testing.assert_close(torch.stack([part.value for part in parts]).mean(), whole.value)
        for name, value in whole.metrics.items():
            torch.testing.assert_close(torch.stack([part.metrics[name] for part in parts]).mean(), value)


@pytest.mark.parametrize(("process", "schedule"), CASES)
def test_a_row_is_measured_alike_in_any_batch(process, schedule):
    world = World(process, schedule)
    objective = build(world.process)
    whole = objective.likelihood(FromLogits(blurred(world)), batch_of(world.x), EPSILON)
    for rows in ([11], [7, 2, 15]):
        part = objective.likelihood(FromLogits(blurred(world)), batch_of(world.x, rows=rows), EPSILON)
        for name in ("diffusion", "reconstruction", "prior", "level", "alpha", "nats_per_alpha"):
            torch.testing.assert_close(getattr(part, name), getattr(whole, name)[rows], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("process", "schedule"), CASES)
def test_loss_by_noise_level(process, schedule):
    """nats_per_alpha against 1 − α: the area under it is the diffusion term per token, whatever the schedule."""
    world = World(process, schedule, seed=5)
    batch = batch_of(world.x.repeat(500, 1))
    likelihood = build(world.process).likelihood(FromLogits(blurred(world)), batch, EPSILON)
    torch.testing.assert_close(likelihood.level, batch.times(EPSILON, 1 - EPSILON))
    torch.testing.assert_close(likelihood.alpha, world.process.schedule.alpha(likelihood.level))
    order = likelihood.alpha.argsort()
    alpha = likelihood.alpha[order]
    binned = likelihood.nats_per_alpha[order].view(100, -1).mean(1)  # 100 bins of 80 levels
    width = alpha.view(100, -1)[:, -1] - alpha.view(100, -1)[:, 0]
    area = float((binned * width).sum())
    even = torch.full((16,), 1 / 16, dtype=torch.float64)
    truth = expected_bound(world, blurred(world), EPSILON, p=even)["diffusion"] / world.length
    assert area == pytest.approx(truth, rel=0.08)


def test_gradient_reaches_the_value_and_nothing_else():
    world = World("uniform")
    table = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    objective = build(world.process)
    loss = objective.loss(FromLogits(lambda z, t: world.denoiser(z, t) + table), batch_of(world.x))
    assert loss.value.requires_grad
    assert not any(metric.requires_grad for metric in loss.metrics.values())
    loss.value.backward()
    assert table.grad is not None
    assert float(table.grad.abs().sum()) > 0
    assert not objective.likelihood(
        FromLogits(lambda z, t: world.denoiser(z, t) + table), batch_of(world.x), EPSILON
    ).total.requires_grad


@pytest.mark.parametrize(("process", "schedule"), CASES)
@pytest.mark.parametrize("weighting", ["elbo", "snr"])
def test_loss_gradient_against_finite_differences(process, schedule, weighting):
    """Through corruption, network output and weighting, as training sees it."""
    world = World(process, schedule)
    objective = build(world.process, weighting=weighting)
    shift = torch.randn(2, world.states, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def value(shift):
        return objective.loss(FromLogits(lambda z, t: world.denoiser(z, t) + shift), batch_of(world.x)).value

    assert torch.autograd.gradcheck(value, (shift.requires_grad_(),), eps=1e-6, atol=1e-7, rtol=1e-6)


def test_changed_tokens_is_what_the_noise_changed():
    process = build_process("absorbing", "linear", 7)
    tokens = torch.zeros(64, 50, dtype=torch.int64)
    loss = build(process).loss(FromLogits(uniform_guess(process)), batch_of(tokens))
    assert float(loss.metrics["changed_tokens"]) == pytest.approx(0.5, abs=0.03)


def test_low_discrepancy_levels():
    """One level in each of the n equal parts of [ε, 1 − ε], new at every step, the same for any split."""
    n = 24
    tokens = torch.zeros(n, 2, dtype=torch.int64)
    seen = []
    for step in range(50):
        t = batch_of(tokens, step).times(EPSILON, 1 - EPSILON)
        strata = ((t - EPSILON) / (1 - 2 * EPSILON) * n).floor().long()
        assert sorted(strata.tolist()) == list(range(n))
        assert ((t >= EPSILON) & (t < 1 - EPSILON)).all()
        for rows in ([5], [23, 0, 7], list(range(12, 24))):
            assert torch.equal(batch_of(tokens, step, rows=rows).times(EPSILON, 1 - EPSILON), t[rows])
        seen.append(t)
    first = torch.stack(seen)[:, 0]
    assert len(set(first.tolist())) == 50
    assert float(first.min()) < 0.15  # a place in the batch is not tied to a stratum
    assert float(first.max()) > 0.85


def test_a_process_is_needed():
    with pytest.raises(ValueError, match="needs a corruption process"):
        OBJECTIVES.build("nelbo", {}, process=None, vocabulary=Vocabulary(4, 0))


def test_bad_options_are_refused_by_name():
    options = OBJECTIVES.options("nelbo")
    with pytest.raises(ConfigError, match=r"objective\.weighting.*'elbo'"):
        typed(options, {"weighting": "elbow"}, "x.yaml", "objective.")
    with pytest.raises(ConfigError, match=r"objective\.time_epsilon.*above 0"):
        typed(options, {"time_epsilon": 0.0}, "x.yaml", "objective.")


def test_bfloat16_network():
    """bf16 logits cost what they cost in float32: the loss lifts them before it computes."""
    process = build_process("uniform", "linear", 300)
    tokens = torch.randint(300, (8, 6), generator=torch.Generator().manual_seed(0))
    logits = torch.randn(8, 6, 300, generator=torch.Generator().manual_seed(1)).bfloat16()
    low, high = (
        build(process).loss(FromLogits(lambda z, t, y=y: y), batch_of(tokens)).value for y in (logits, logits.float())
    )
    assert low.dtype == torch.float32
    assert float(low) == float(high)


def test_the_two_terms_draw_their_own_noise():
    """Shared draws would make the masks at ε a subset of those at t, and the terms' errors would add up."""
    process, seen = build_process("absorbing", "linear", 7), []

    def watching(z, t):
        seen.append(z == process.mask_id)
        return torch.zeros(*z.shape, process.num_states)

    build(process).likelihood(FromLogits(watching), batch_of(torch.zeros(16, 50, dtype=torch.int64)), 0.3)
    at_t, at_epsilon = seen
    assert (at_epsilon & ~at_t).any()


@pytest.mark.parametrize("epsilon", [1e-3, 0.2])
@pytest.mark.parametrize(("process", "schedule"), CASES)
def test_diffusion_term_is_the_integrand_times_the_length_of_the_interval(process, schedule, epsilon):
    """To the last digit, on the draws that were made: a missing 1 − 2ε is far below any Monte-Carlo error."""
    world = World(process, schedule)
    batch = batch_of(world.x)
    t = batch.times(epsilon, 1 - epsilon)
    z = world.process.corrupt(batch.tokens, t[:, None], batch.noise("corrupt"))
    integrand = world.process.bound_integrand(blurred(world)(z, t), batch.tokens, z, t[:, None])
    likelihood = build(world.process).likelihood(FromLogits(blurred(world)), batch, epsilon)
    torch.testing.assert_close(likelihood.diffusion, (1 - 2 * epsilon) * integrand.sum(-1))
    per_alpha = integrand.mean(-1) / -world.process.schedule.dalpha(t)
    torch.testing.assert_close(likelihood.nats_per_alpha, per_alpha)
    loss = build(world.process, time_epsilon=epsilon).loss(FromLogits(blurred(world)), batch)
    torch.testing.assert_close(loss.value, (1 - 2 * epsilon) * integrand.mean())
