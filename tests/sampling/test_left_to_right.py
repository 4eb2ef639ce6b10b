import pytest
import torch

import sumi_core.sampling.drawing as drawing_module
from sumi_core.base.options import ConfigError, typed
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.models.interface import FromLogits
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.constraints import ForbiddenTokens
from tests.corruption.enumerable import World, chi_square

V, EOS = 4, 1


def build(name="left_to_right", **options):
    return SAMPLERS.build(name, options, process=None, vocabulary=Vocabulary(V, EOS))


def exact_model(world, calls=None):
    """The chain rule of an enumerable p(x_1, x_2): logits at i are log p(x_i | x_{<i}) after the end-of-text token."""
    joint = world.p.view(V, V)

    def model(tokens, t):
        assert t is None
        assert (tokens[:, 0] == EOS).all()
        if calls is not None:
            calls.append(tokens.shape)
        logits = torch.full((*tokens.shape, V), 100.0, dtype=torch.float64)  # earlier positions must not be read
        logits[:, -1] = joint.sum(1).log() if tokens.shape[1] == 1 else joint[tokens[:, 1]].log()
        return logits

    return model


@pytest.mark.parametrize("name", ["left_to_right", "autoregressive"])
def test_draws_the_joint_distribution(name):
    world, calls = World("uniform"), []
    samples = build(name).sample(FromLogits(exact_model(world, calls)), num=20_000, length=2, steps=99, seed=0)
    assert chi_square((samples.tokens * torch.tensor([V, 1])).sum(-1), world.p) > 1e-3
    assert set(samples.nfe.tolist()) == {len(calls)} == {2}


def test_temperature():
    world = World("uniform")
    greedy = build(temperature=0.0).sample(FromLogits(exact_model(world)), num=3, length=2, steps=1, seed=0).tokens
    first = int(world.p.view(V, V).sum(1).argmax())
    assert greedy.tolist() == [[first, int(world.p.view(V, V)[first].argmax())]] * 3
    sharp = build(temperature=0.5).sample(FromLogits(exact_model(world)), num=10_000, length=1, steps=1, seed=0).tokens
    assert chi_square(sharp, world.p.view(V, V).sum(1) ** 2) > 1e-3


@pytest.mark.parametrize("temperature", [0.0, 1e-3])
def test_the_most_probable_token_is_the_most_probable_that_is_allowed(temperature):
    """The constraint comes before the temperature, which would leave nothing of the others."""
    world = World("uniform")
    order = world.p.view(V, V).sum(1).argsort(descending=True).tolist()
    drawn = build(temperature=temperature).sample(
        FromLogits(exact_model(world)), num=3, length=1, steps=1, seed=0, constraints=[ForbiddenTokens(order[:1])]
    )
    assert drawn.tokens.tolist() == [[order[1]]] * 3
    with pytest.raises(ValueError, match="NaN or all zero"):
        build(temperature=temperature).sample(
            FromLogits(exact_model(world)), num=1, length=1, steps=1, seed=0, constraints=[ForbiddenTokens(range(V))]
        )


def test_prompt_is_kept_and_conditions():
    world = World("uniform")
    samples = build().sample(
        FromLogits(exact_model(world)), num=10_000, length=2, steps=1, seed=0, prompt=torch.tensor([3])
    )
    assert (samples.tokens[:, 0] == 3).all()
    assert set(samples.nfe.tolist()) == {1}
    assert chi_square(samples.tokens[:, 1], world.p.view(V, V)[3]) > 1e-3


def test_a_text_is_the_same_in_any_company(monkeypatch):
    world = World("uniform")
    many = build().sample(FromLogits(exact_model(world)), num=50, length=2, steps=1, seed=4).tokens
    assert torch.equal(
        build().sample(FromLogits(exact_model(world)), num=7, length=2, steps=1, seed=4).tokens, many[:7]
    )
    monkeypatch.setattr(drawing_module, "_BLOCK_ENTRIES", 2 * V * 9)
    assert torch.equal(build().sample(FromLogits(exact_model(world)), num=50, length=2, steps=1, seed=4).tokens, many)
    assert len(many.unique(dim=0)) > 4


def test_negative_temperature_is_refused():
    with pytest.raises(ConfigError, match=r"sampler\.temperature.*at least 0"):
        typed(SAMPLERS.options("left_to_right"), {"temperature": -1.0}, "x.yaml", "sampler.")
