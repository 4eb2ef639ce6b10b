"""Blocks that are trained on pure noise: which they are, what they weigh, and why they have a loss of their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sumi_core.base.options import component
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.models.interface import DenoiserInput, FromLogits
from sumi_core.objectives import OBJECTIVES
from sumi_core.objectives.diffusion import Diffusion
from tests.corruption.enumerable import World
from tests.layouts.exact import blocks
from tests.objectives.worlds import LOSSES, batch_of, build, integrated_loss, texts

EPSILON, SHARE = 1e-3, 0.4


def blurred(world: World) -> Any:
    return lambda z, t: 0.6 * world.denoiser(z, t.view(len(z), -1)[:, 0])


def of_blocks(world: World, n: int, **options: Any) -> Diffusion:
    context = {"process": world.process, "vocabulary": Vocabulary(world.tokens, 0), "layout": blocks(n)}
    made = OBJECTIVES.build("nelbo", {"all_noise": SHARE, **options}, **context)
    assert isinstance(made, Diffusion)
    return made


@pytest.mark.parametrize("process", ["uniform", "absorbing"])
@pytest.mark.parametrize("loss", ["elbo", "snr"])
def test_the_loss_is_the_mean_of_both(process: str, loss: str) -> None:
    """Of the objective's own, by quadrature, and of −log p(x_i | z) at pure noise, by a sum over texts and noise."""
    world = World(process, "cosine", seed=5)
    objective = build(loss, world, all_noise=SHARE)
    alone = integrated_loss(objective, world, blurred(world), EPSILON) / world.length
    log_p = blurred(world)(world.z, torch.ones(len(world.z), dtype=torch.float64))[..., : world.tokens].log_softmax(-1)
    of_text = log_p[:, torch.arange(world.length), world.x].mean(-1)  # [Z, M]
    pure = -float(world.pi[world.z].prod(-1) @ of_text.nan_to_num(0.0) @ world.p)  # NaN: of what cannot occur
    drawn = texts(world, 24_000).split(2000)
    values = torch.stack(
        [objective.loss(FromLogits(blurred(world)), batch_of(own, step=k)).value for k, own in enumerate(drawn)]
    )
    error = float(values.std() / len(values) ** 0.5)
    assert abs(float(values.mean()) - ((1 - SHARE) * alone + SHARE * pure)) < 4 * error
    assert error < 0.03 * pure


@pytest.mark.parametrize("n", [2, 4])
def test_whole_blocks_hold_noise_that_knows_nothing_of_the_text(n: int) -> None:
    world = World("uniform", tokens=4, length=4)
    objective, tokens = of_blocks(world, n), torch.full((3000, 4), 2)
    noisy = objective.training_noise(batch_of(tokens))
    assert noisy.pure is not None
    in_block = noisy.pure.view(3000, -1, n)
    assert bool((in_block == in_block[..., :1]).all())
    assert float(noisy.pure.double().mean()) == pytest.approx(SHARE, abs=0.03)
    assert float((noisy.z[noisy.pure] == 2).double().mean()) == pytest.approx(1 / 4, abs=0.03)
    assert bool((noisy.conditioning_level == 1)[noisy.pure].all())
    assert bool(((noisy.weight == 0) == noisy.pure).all())
    plain = of_blocks(world, n, all_noise=0.0).training_noise(batch_of(tokens))
    assert torch.equal(noisy.z[~noisy.pure], plain.z[~noisy.pure]), "the others are as without it"
    torch.testing.assert_close(noisy.level[~noisy.pure], plain.level[~noisy.pure], rtol=0, atol=0)


def test_which_they_are_depends_on_the_address_alone_and_micro_batches_add_up() -> None:
    world = World("uniform", tokens=2, length=4)
    objective = of_blocks(world, 2)

    def shallow(given: DenoiserInput) -> Any:
        table = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        return FromLogits(lambda z, t: table[z])(given)

    whole = objective.loss(shallow, batch_of(world.x))
    assert float(whole.metrics["draft_cross_entropy"]) > 0
    parts = [objective.loss(shallow, batch_of(world.x, rows=[i])) for i in range(len(world.x))]
    torch.testing.assert_close(torch.stack([part.value for part in parts]).mean(), whole.value)
    for name, value in whole.metrics.items():
        torch.testing.assert_close(torch.stack([part.metrics[name] for part in parts]).mean(), value)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_supervised_tokens_are_counted_and_expected(process: str, loss: str) -> None:
    world = World(process, "cosine")
    objective = build(loss, world, all_noise=SHARE)
    rows = batch_of(torch.zeros(4000, 20, dtype=torch.int64))
    logits = torch.zeros(4000, 20, world.states)
    found = objective.loss(FromLogits(lambda z, t: logits), rows).metrics["supervised_tokens"]
    name, own, _ = LOSSES[loss]
    others: dict[str, Any] = {"process": {"name": process}, "schedule": {"name": "cosine"}, "clock": {"name": "shared"}}
    expected = type(objective).expected_supervision(
        component(OBJECTIVES, {"name": name, **own, "all_noise": SHARE}, "a.yaml", "objective"),
        {**others, "shards": {"sequence_length": 20}},
    )
    assert float(found) == pytest.approx(expected, abs=0.02)


def test_the_bound_s_weights_teach_nothing_there() -> None:
    """Why pure noise has a loss of its own: that of the weighting vanishes with α under masks, with α² in uniform
    noise."""
    for process, power in (("absorbing", 1), ("uniform", 2)):
        world = World(process, "linear")
        objective, found = build("snr", world), []
        logits = torch.randn(1, world.length, world.states, generator=torch.Generator().manual_seed(0)).double()
        z = torch.full((1, world.length), 2 if process == "uniform" else world.states - 1)
        for alpha in (1e-3, 1e-4):
            level = torch.full_like(z, 1 - alpha, dtype=torch.float64)
            integrand = world.process.bound_integrand(logits, torch.tensor([[0, 1]]), z, level)
            found.append(float((integrand / -world.process.log_snr_rate(level)).sum()))
        assert found[0] / found[1] == pytest.approx(10**power, rel=0.02)
        assert objective.options.all_noise == 0
