"""How training draws its noise: unbiased for every choice, a function of addresses, and what each choice is worth."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sumi_core.base.options import ConfigError, component
from sumi_core.corruption import CLOCKS
from sumi_core.corruption.fitted import fit_profile
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.experiments.build import build_parts
from sumi_core.experiments.resolve import resolve
from sumi_core.models.denoiser import build_denoiser
from sumi_core.models.interface import FromLogits
from sumi_core.objectives import OBJECTIVES
from tests.corruption.enumerable import SETTINGS, World
from tests.corruption.test_fitted import curve_of, moments
from tests.objectives.worlds import LOSSES, batch_of, build, integrated_loss, per_sequence, texts

EPSILON = 1e-3
KNOTS = {"name": "fitted", "noise": [0.01, 0.3, 1.0], "weight": [2.0, 1.0, 1.5]}
SAMPLINGS: dict[str, dict[str, Any]] = {
    "stratified": {"time_sampling": "stratified"},
    "iid": {"time_sampling": "iid"},
    "importance log_snr": {"time_sampling": "importance", "time_density": {"name": "log_snr", "limit": 9.0}},
    "importance fitted": {"time_sampling": "importance", "time_density": KNOTS},
    "some of the positions": {"loss_share": 0.75},
}
OPTIONS = {**SAMPLINGS, "token levels": {"token_levels": 0.5}, "z-loss": {"z_loss": 1e-2}}


def blurred(world: World) -> Any:
    return lambda z, t: 0.6 * world.denoiser(z, t)


def by_table(z: Tensor, t: Tensor) -> Tensor:
    """A network over 4 tokens whose logits depend on the tokens and on the level given, a text's or a token's."""
    table = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return table[z] * (1 + t.view(len(z), -1, 1)) + table[z.flip(-1)]


@pytest.mark.parametrize("process", ["uniform", "absorbing"])
@pytest.mark.parametrize("loss", ["elbo", "snr", "mixture_path"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_every_time_sampling_has_the_same_mean(process: str, loss: str, sampling: str) -> None:
    """Against quadrature over t and a sum over texts and z."""
    world = World(process, "cosine", seed=5)
    objective = build(loss, world, **SAMPLINGS[sampling])
    truth = integrated_loss(objective, world, blurred(world), EPSILON)
    found = per_sequence(objective, blurred(world), batch_of(texts(world, 40_000)))
    error = float(found.std() / len(found) ** 0.5)
    assert abs(float(found.mean()) - truth) < 4 * error
    assert error < 0.07 * truth


@pytest.mark.parametrize("density", ["log_snr", "polynomial", "cosine"])
def test_importance_draws_what_the_other_schedule_would(density: str) -> None:
    """To the digit: training under linear, drawn as under another schedule, has the losses of training under that one,
    and the levels told are linear's."""
    other, linear = World("uniform", density), World("uniform", "linear")
    options = {"time_epsilon": 1e-13}
    there = build("elbo", other, **options)
    here = build("elbo", linear, **options, time_sampling="importance", time_density={"name": density})
    batch = batch_of(texts(other, 300))
    noisy_there, noisy_here = there.training_noise(batch), here.training_noise(batch)
    torch.testing.assert_close(
        1 - noisy_here.conditioning_level, other.process.alpha(noisy_there.conditioning_level), rtol=1e-4, atol=1e-8
    )
    torch.testing.assert_close(
        per_sequence(here, blurred(linear), batch), per_sequence(there, blurred(other), batch), rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize(("process", "worth"), [("uniform", 7.2), ("absorbing", 1.7)])
def test_importance_lowers_the_variance_by_what_the_fit_promises(process: str, worth: float) -> None:
    """One sequence's estimate under linear, its times uniform or drawn by twenty measured levels of this model. Exact:
    for the levels and weights of a large batch the sum over texts and z takes the place of drawing them."""
    world = World(process, seed=5)
    density = {"name": "fitted", **fit_profile(curve_of(world))}
    variance = []
    for options in ({}, {"time_sampling": "importance", "time_density": density}):
        noisy = build("elbo", world, **options).training_noise(batch_of(world.x[:1].expand(1500, -1)))
        first, second = moments(world, 1 - world.process.alpha(noisy.level[:, 0]))
        scale = (1 - 2 * EPSILON) * noisy.weight[:, 0]  # linear: nats per unit of α are nats per unit of t
        variance.append(float((scale**2 * second).mean() - (scale * first).mean() ** 2))
    assert variance[0] / variance[1] == pytest.approx(worth, rel=0.05)


def test_stratified_batches_vary_less_than_independent_draws() -> None:
    """Means of batches of 32 long texts, whose loss is nearly a function of t: what t adds to the variance is gone."""
    world, variance = World("absorbing"), {}
    tokens = torch.zeros(32, 200, dtype=torch.int64)
    for sampling in ("stratified", "iid"):
        objective = build("snr", world, time_sampling=sampling)
        means = [
            objective.loss(
                FromLogits(lambda z, t: torch.zeros(*z.shape, 5, dtype=torch.float64)), batch_of(tokens, step)
            ).value
            for step in range(150)
        ]
        variance[sampling] = float(torch.stack(means).var())
    assert variance["stratified"] < 0.1 * variance["iid"]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("options", OPTIONS)
def test_a_split_into_micro_batches_or_devices_gives_the_same_loss(loss: str, options: str) -> None:
    world = World("uniform")
    objective = build(loss, world, **OPTIONS[options])
    whole = objective.loss(FromLogits(by_table), batch_of(world.x))
    assert not torch.equal(whole.value, objective.loss(FromLogits(by_table), batch_of(world.x, step=1)).value)
    for split in ([[i] for i in range(16)], [[0, 5, 9, 15], [1, 2, 3, 4], [14, 13, 12, 11], [10, 8, 7, 6]]):
        parts = [objective.loss(FromLogits(by_table), batch_of(world.x, rows=rows)) for rows in split]
        torch.testing.assert_close(torch.stack([part.value for part in parts]).mean(), whole.value)
        for name, value in whole.metrics.items():
            torch.testing.assert_close(torch.stack([part.metrics[name] for part in parts]).mean(), value)


@pytest.mark.parametrize("options", OPTIONS)
def test_evaluation_keeps_its_own_draws(options: str) -> None:
    world = World("uniform")
    batch = batch_of(world.x)
    own, other = (
        build("elbo", world, **o).likelihood(FromLogits(blurred(world)), batch, EPSILON) for o in ({}, OPTIONS[options])
    )
    assert torch.equal(own.total, other.total)
    assert torch.equal(own.level, other.level)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("options", OPTIONS)
def test_noise_loss_and_network_hear_of_one_level(loss: str, options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: a published code corrupts with α = 1 − (1 − ε)t and weights with α = 1 − t. Every use of a level in a
    training step must be of the one that the tokens were corrupted with."""
    world = World("absorbing", "cosine")
    objective, seen = build(loss, world, **OPTIONS[options]), []
    corrupt, alpha, dalpha = world.process.corrupt, world.process.alpha, world.process.dalpha
    monkeypatch.setattr(world.process, "corrupt", lambda x, t, noise: (seen.append(t), corrupt(x, t, noise))[1])
    noisy = objective.training_noise(batch_of(world.x))
    (level,) = seen
    assert torch.equal(noisy.level, level)
    assert torch.equal(noisy.conditioning_level.view(len(noisy.conditioning_level), -1), level)
    seen.clear()
    monkeypatch.setattr(world.process, "alpha", lambda t: (seen.append(t), alpha(t))[1])
    monkeypatch.setattr(world.process, "dalpha", lambda t: (seen.append(t), dalpha(t))[1])
    objective.token_loss(noisy).of(blurred(world)(noisy.z, noisy.x[:, 0].double() / 10))
    # Losses of rows ask for the levels of some of them; 0 is where every bound starts.
    known = {0.0, *level.flatten().tolist()}
    assert all(set(t.flatten().tolist()) <= known for t in seen)
    assert seen or loss == "posterior_cross_entropy"


# --- levels of single tokens ----------------------------------------------------------------------------------------


def test_which_sequences_get_token_levels_is_their_own_affair() -> None:
    world = World("uniform", tokens=4, length=2)
    tokens = texts(world, 4000)
    plain, mixed = (build("elbo", world, token_levels=share) for share in (0.0, 0.3))
    whole, without = mixed.training_noise(batch_of(tokens)), plain.training_noise(batch_of(tokens))
    assert float(1 - whole.clocked.double().mean()) == pytest.approx(0.3, abs=0.03)
    clocked = whole.clocked.squeeze(-1)
    assert torch.equal(whole.z[clocked], without.z[clocked])
    assert torch.equal(whole.level[clocked], without.level.expand(-1, 2)[clocked])
    rows = [3999, 17, 4, 808]
    part = mixed.training_noise(batch_of(tokens, rows=rows))
    assert torch.equal(part.level, whole.level[rows])
    assert torch.equal(part.clocked, whole.clocked[rows])
    assert whole.conditioning_level.shape == (4000, 2)
    own = (whole.level[~clocked] - EPSILON) / (1 - 2 * EPSILON)
    assert ((own >= 0) & (own < 1)).all()
    assert abs(float(torch.corrcoef(own.T)[0, 1])) < 0.1
    assert float(own.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(own.var()) == pytest.approx(1 / 12, rel=0.05)


def binomial_contexts(world: World) -> float:
    """Σ_i E_S H(x_i | x_S), S each other position with probability ½: what independent levels come to with masks."""

    def conditional(i: int, known: tuple[int, ...]) -> float:
        total = 0.0
        for values in itertools.product(range(world.tokens), repeat=len(known)):
            inside = (world.x[:, list(known)] == torch.tensor(values, dtype=torch.int64)).all(-1)
            table = torch.zeros(world.tokens, dtype=torch.float64).index_add_(0, world.x[inside, i], world.p[inside])
            total -= float((torch.xlogy(table, table) - torch.xlogy(table, table.sum())).sum())
        return total

    places = range(world.length)
    return sum(
        conditional(i, known) / 2 ** (world.length - 1)
        for i in places
        for size in places
        for known in itertools.combinations([j for j in places if j != i], size)
    )


class LevelWorld(World):
    """Exact inference from masks, for levels of any shape: a mask says nothing, whatever its level."""

    def evidence(self, z: Tensor, t: Tensor) -> Tensor:
        seen = z[:, None, :]
        return ((seen == self.x) | (seen == self.tokens)).double()


def equal_tokens() -> LevelWorld:
    world = LevelWorld("absorbing", tokens=2, length=3)
    same = (world.x == world.x[:, :1]).all(-1).double() + 1e-30  # never drawn, and its logarithm is finite
    world.p = same / same.sum()
    return world


@pytest.mark.parametrize("kind", ["equal", "random"])
def test_independent_levels_are_no_bound(kind: str) -> None:
    """With the exact denoiser: shared levels give the entropy; independent ones the binomial figure, which for tokens
    that are always equal lies *below* the entropy, where no bound on −log p can."""
    world = equal_tokens() if kind == "equal" else LevelWorld("absorbing", tokens=2, length=3, seed=1)
    figure = binomial_contexts(world)
    if kind == "equal":
        assert world.entropy == pytest.approx(math.log(2))
        assert figure == pytest.approx(0.75 * math.log(2))
    batch = batch_of(texts(world, 15_000))
    for share, wanted in ((0.0, world.entropy), (1.0, figure), (0.5, (world.entropy + figure) / 2)):
        objective = build("elbo", world, token_levels=share, time_epsilon=1e-5)
        found = per_sequence(objective, world.denoiser, batch)
        error = float(found.std() / len(found) ** 0.5)
        assert abs(float(found.mean()) - wanted) < 4 * error, share
        assert error < 0.04
        loss = objective.loss(FromLogits(world.denoiser), batch)
        if share < 1:  # the figure beside the loss counts the sequences of the process's own clock alone
            assert float(loss.metrics["elbo"]) * 3 == pytest.approx(world.entropy, abs=0.12)
        else:
            assert "elbo" not in loss.metrics


# --- z-loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_z_loss_is_the_squared_log_partition_of_the_network(process: str, loss: str) -> None:
    """Over tokens alone, of the logits as the network gives them: a constant added to them changes nothing else."""
    world = World(process)
    batch = batch_of(world.x)
    logits = torch.randn(16, 2, world.states, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    partition = logits[..., : world.tokens].exp().sum(-1).log()
    plain, held = (build(loss, world, z_loss=z).loss(FromLogits(lambda z, t: logits), batch) for z in (0.0, 1e-2))
    torch.testing.assert_close(held.value - plain.value, 1e-2 * (partition**2).mean())
    torch.testing.assert_close(held.metrics["squared_log_partition"], (partition**2).mean())
    assert "squared_log_partition" not in plain.metrics
    moved = build(loss, world, z_loss=1e-2).loss(FromLogits(lambda z, t: logits + 3), batch)
    torch.testing.assert_close(moved.value - plain.value, 1e-2 * ((partition + 3) ** 2).mean())


# --- what is written ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"time_sampling": "importance"}, "objective: .*time_density, a schedule, go together"),
        ({"time_density": "cosine"}, "objective: .*go together"),
        ({"time_sampling": "importence"}, "did you mean 'importance'"),
        ({"token_levels": 1.5}, "objective.token_levels: must be at most 1"),
        ({"time_sampling": "importance", "time_density": "cosin"}, "objective.time_density: no noise schedule"),
    ],
)
def test_bad_options_are_refused_by_name(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        component(OBJECTIVES, {"name": "nelbo", **options}, "a.yaml", "objective")


def test_everything_together_from_a_config_to_a_gradient() -> None:
    """A fitted schedule, levels of tokens, importance and z-loss, with a denoiser that is told each token's level."""
    experiment = resolve(
        {
            "schedule": KNOTS,
            "objective": {**SAMPLINGS["importance log_snr"], "name": "nelbo", "token_levels": 0.5, "z_loss": 1e-5},
            "model": {"preset": "nano", "time_conditioning": "token"},
        },
        "a.yaml",
    )
    parts = build_parts(experiment, Vocabulary(6, 5))
    denoiser = build_denoiser(experiment.model, parts.num_states)
    batch = batch_of(torch.arange(48).view(8, 6) % 6)
    loss = parts.objective.loss(denoiser, batch)
    assert 0 < float(loss.metrics["elbo"]) < 6
    loss.value.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in denoiser.parameters())
    assert parts.objective.likelihood(denoiser, batch, EPSILON).total.isfinite().all()


def test_a_density_is_written_as_a_schedule() -> None:
    written = {"name": "nelbo", "time_sampling": "importance", "time_density": "log_snr"}
    assert component(OBJECTIVES, written, "a.yaml", "objective")["time_density"] == {"name": "log_snr", "limit": 9.0}


@pytest.mark.parametrize("clock", [{"name": "shared"}, {"name": "spans", "mean_length": 3.0, "window": 0.5}], ids=str)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("process", SETTINGS)
def test_supervised_tokens_are_those_whose_prediction_has_a_gradient(
    process: str, loss: str, clock: dict[str, Any]
) -> None:
    if loss == "mixture_path" and process in ("clustered", "hybrid", "absorbing_uniform"):
        pytest.skip("no mixture path")
    world = World(process)
    world.process.clock = CLOCKS.from_config(clock)
    objective, batch = build(loss, world), batch_of(texts(world, 64))
    logits = 0.3 * torch.randn(*batch.tokens.shape, world.states, generator=torch.Generator().manual_seed(0))
    logits = logits.double().requires_grad_()
    found = objective.loss(FromLogits(lambda z, t: logits), batch)
    (gradient,) = torch.autograd.grad(found.value, logits)
    assert float(found.metrics["supervised_tokens"]) == pytest.approx(float((gradient != 0).any(-1).double().mean()))


@pytest.mark.parametrize("options", [{}, {"loss_share": 0.25}, {"token_levels": 0.5}], ids=str)
@pytest.mark.parametrize("clock", [{"name": "shared"}, {"name": "spans", "mean_length": 3.0, "window": 0.5}], ids=str)
@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_the_share_of_supervised_tokens_is_what_a_budget_expects(
    process: str, clock: dict[str, Any], options: dict[str, Any]
) -> None:
    world = World(process, "cosine")
    world.process.clock = CLOCKS.from_config(clock)
    objective = build("elbo", world, **options)
    tokens = torch.zeros(4000, 50, dtype=torch.int64)
    found = objective.supervised(objective.training_noise(batch_of(tokens))).expand(tokens.shape).double().mean()
    others = {"process": {"name": process}, "schedule": {"name": "cosine"}, "clock": clock}
    expected = type(objective).expected_supervision(
        component(OBJECTIVES, {"name": "nelbo", **options}, "a.yaml", "objective"),
        {**others, "shards": {"sequence_length": 200}},
    )
    assert float(found) == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize(
    "density",
    [{"name": "polynomial", "exponent": 8.0}, {"name": "sqrt"}, {"name": "cosine"}, {"name": "log_snr"}],
    ids=str,
)
def test_a_budget_expects_the_levels_that_importance_sampling_draws(density: dict[str, Any]) -> None:
    """Between the levels of ε and 1 − ε, which under a steep density are far from its own times ε and 1 − ε."""
    options = {"time_sampling": "importance", "time_density": density}
    world = World("absorbing", "linear")
    objective = build("elbo", world, **options)
    count = 100_000
    drawn, _ = objective._drawn((torch.arange(count, dtype=torch.float64)[:, None] + 0.5) / count)
    hit = world.process.noise_fraction(EPSILON + (1 - 2 * EPSILON) * drawn).mean()
    expected = type(objective).expected_supervision(
        component(OBJECTIVES, {"name": "nelbo", "time_epsilon": EPSILON, **options}, "a.yaml", "objective"),
        {
            "process": {"name": "absorbing"},
            "schedule": {"name": "linear"},
            "clock": {"name": "shared"},
            "shards": {"sequence_length": 200},
        },
    )
    assert expected == pytest.approx(float(hit), rel=1e-3)
