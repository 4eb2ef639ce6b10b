"""What a denoiser's logits mean: the converted posterior is the leave-one-out posterior (docs/mathematics.md 2)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sumi_core.corruption import PARAMETERISATIONS
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.batch import Batch
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.models.interface import DenoiserInput, FromLogits
from sumi_core.objectives import OBJECTIVES
from sumi_core.sampling import SAMPLERS
from tests.corruption.enumerable import CASES, NAMES, World, end_gaps, expected_bound


def posterior_world(process: str, schedule: str = "linear", seed: int = 0) -> World:
    world = World(process, schedule, seed=seed)
    world.process.parameterisation = PARAMETERISATIONS.build("posterior", {})
    return world


def converted(world: World, z: Tensor, t: Tensor) -> Tensor:
    return world.process.predict(FromLogits(world.full_posterior_denoiser), DenoiserInput(z, t), t.unsqueeze(-1))


@pytest.mark.parametrize(("process", "schedule"), CASES)
@pytest.mark.parametrize("t", [1e-3, 0.3, 0.97])
def test_the_exact_posterior_converts_to_the_exact_leave_one_out_posterior(
    process: str, schedule: str, t: float
) -> None:
    world = posterior_world(process, schedule)
    # A z that rules tokens out leaves nothing of them to convert.
    q = world.q(torch.tensor(t, dtype=torch.float64))
    noisy = world.z[(q[:, world.z] > 0).all(0).all(-1)]
    assert len(noisy)
    level = torch.full((len(noisy),), t, dtype=torch.float64)
    found = converted(world, noisy, level)[..., : world.tokens].softmax(-1)
    torch.testing.assert_close(found, world.leave_one_out(noisy, level), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("process", "schedule"), CASES)
def test_the_entropy_identity_holds_for_a_posterior_denoiser(process: str, schedule: str) -> None:
    world = posterior_world(process, schedule)
    total = sum(expected_bound(world, lambda z, t: converted(world, z, t), 1e-3).values())
    assert total == pytest.approx(world.entropy + sum(end_gaps(world, 1e-3).values()), abs=1e-9)


@pytest.mark.parametrize("process", NAMES)
def test_the_short_evidence_is_that_of_the_transition(process: str) -> None:
    world = World(process)
    t = torch.full((len(world.z), 1), 0.4, dtype=torch.float64)
    short, whole = world.process.log_evidence(world.z, t), ForwardProcess.log_evidence(world.process, world.z, t)
    real = whole[..., : world.tokens].isfinite().any(-1)
    torch.testing.assert_close(short.log_softmax(-1)[real], whole.log_softmax(-1)[real])


@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_objective_and_sampler_read_the_same_model_through_either(process: str) -> None:
    """A network that gives posterior logits, declared so, has the bound and the texts of its leave-one-out twin."""
    plain, conditioning_level = World(process), posterior_world(process)
    batch = Batch(plain.x[:8], torch.arange(8), torch.arange(8), 8, step=0, seed=0)
    context = {"vocabulary": Vocabulary(4, 0)}
    totals, losses, texts = [], [], []
    for world, denoiser in ((plain, plain.denoiser), (conditioning_level, conditioning_level.full_posterior_denoiser)):
        objective = OBJECTIVES.build("nelbo", {"weighting": "snr"}, process=world.process, **context)
        totals.append(objective.likelihood(FromLogits(denoiser), batch, 1e-3).total)
        losses.append(objective.loss(FromLogits(denoiser), batch).value)
        sampler = SAMPLERS.build("ancestral", {}, process=world.process, **context)

        def inside(z: Tensor, t: Tensor | None, denoiser: object = denoiser) -> Tensor:
            assert t is not None
            return denoiser(z, t.clamp(1e-9, 1 - 1e-9))  # type: ignore[operator,no-any-return]

        texts.append(sampler.sample(FromLogits(inside), num=64, length=2, steps=6, seed=0).tokens)
    torch.testing.assert_close(totals[0], totals[1])
    torch.testing.assert_close(losses[0], losses[1])
    assert texts[0].equal(texts[1])


def test_it_reaches_the_parts_from_a_config() -> None:
    from sumi_core.experiments.build import build_parts
    from sumi_core.experiments.resolve import resolve

    parts = build_parts(resolve({"parameterisation": "posterior"}, "t.yaml"), Vocabulary(6, 5))
    assert parts.process is not None
    z, t = torch.tensor([[2]]), torch.tensor([[0.5]], dtype=torch.float64)
    logits = parts.process.predict(FromLogits(lambda z, t: torch.zeros(1, 1, 6)), DenoiserInput(z, t[:, 0]), t)
    assert logits[0, 0].tolist() == pytest.approx([0, 0, -torch.tensor(7.0).log().item(), 0, 0, 0])
    assert torch.equal(logits.argmin(-1), z)
