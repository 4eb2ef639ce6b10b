"""First-hitting sampling: exact at any length, one call a token, at the times of the reverse process."""

from __future__ import annotations

import itertools

import pytest
import torch

from sumi_core.base.options import ConfigError
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.experiments.resolve import resolve
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import FromLogits
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.constraints import ForbiddenTokens
from sumi_core.sampling.generate import generate
from tests.corruption.enumerable import World, build_process, chi_square
from tests.models.stock import lively, small
from tests.sampling.worlds import ROWS, clean, empty, index_of, noise_floor, tabled, total_variation


def build(process, name="first_hitting", **options):
    return SAMPLERS.build(name, options, process=process, vocabulary=Vocabulary(process.num_tokens, 0))


@pytest.mark.usefixtures("_fast")
def test_texts_are_drawn_from_p() -> None:
    """At the noise floor, where ancestral steps are not with as many calls."""
    world = World("absorbing", "cosine", tokens=3, length=3, seed=1)
    half = torch.full((len(world.z),), 0.5, dtype=torch.float64)  # any level predicts the same
    denoiser = FromLogits(lambda z, t: world.denoiser(world.z, half).nan_to_num(0.0)[index_of(world, z)])
    p = clean(world)
    *_, last = generate(build(world.process), denoiser, empty(world, steps=1))
    assert set(last.nfe.tolist()) == {3}
    assert total_variation(index_of(world, last.tokens), p) < 2 * noise_floor(p)
    assert chi_square(index_of(world, last.tokens), p) > 1e-3
    *_, stepped = generate(build(world.process, "ancestral"), tabled(world, world.denoiser), empty(world, steps=3))
    assert total_variation(index_of(world, stepped.tokens), p) > 4 * noise_floor(p)


@pytest.mark.usefixtures("_fast")
def test_the_times_are_those_of_the_reverse_process() -> None:
    """A mask goes at a uniform share of hit tokens: those of a text, sorted, are order statistics of the uniform."""
    world = World("absorbing", "cosine", tokens=2, length=4)
    told: list[torch.Tensor] = []

    def watched(z: torch.Tensor, t: torch.Tensor | None) -> torch.Tensor:
        assert t is not None
        told.append(world.process.noise_fraction(t))
        return torch.zeros(*z.shape, 3, dtype=torch.float64)

    canvases = list(generate(build(world.process), FromLogits(watched), empty(world, steps=1)))
    for k, hit in enumerate(told):  # the (k + 1)-th largest of four
        mean, var = (4 - k) / 5, (4 - k) * (k + 1) / (25 * 6)
        assert float(hit.mean()) == pytest.approx(mean, abs=5 * (var / ROWS) ** 0.5)
        assert float(hit.var()) == pytest.approx(var, rel=0.05)
    order = torch.stack([(a.tokens != b.tokens).double().argmax(-1) for a, b in itertools.pairwise(canvases)], 1)
    assert all(chi_square(order[:, k], torch.ones(4).double()) > 1e-3 for k in range(4)), "any mask is the next"


def test_what_is_given_stands_and_rows_take_the_calls_they_need() -> None:
    process = build_process("absorbing", "linear", 6)
    denoiser, sampler = lively(Denoiser(small(), 7)).eval(), build(process)
    tokens = torch.tensor([[5, 0, 0, 1, 0, 5], [0, 5, 0, 0, 0, 0]])
    frozen = torch.tensor([[1, 0, 0, 1, 0, 1], [0, 1, 0, 0, 0, 0]], dtype=torch.bool)
    canvas = Canvas.of(tokens, frozen, torch.tensor([6, 4]), seed=0, steps=1, constraints=[ForbiddenTokens([5, 0])])
    canvases = list(generate(sampler, denoiser, canvas))
    assert all(torch.equal(canvas.tokens[frozen], tokens[frozen]) for canvas in canvases)
    last = canvases[-1]
    assert last.nfe.tolist() == [3, 3]
    assert last.slots.tolist() == [18, 12]
    assert not {0, 5} & set(last.tokens[0][~frozen[0]].tolist())
    assert int(last.tokens[1, :4].max()) < 6
    for before, after in itertools.pairwise(canvases):
        assert ((before.tokens != after.tokens).sum(-1) <= 1).all(), "a call fills one mask"


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"process": "uniform"}, "process 'uniform'"), ({"clock": "spans"}, "clock 'spans'")],
)
def test_other_noise_is_refused(changed: dict[str, str], told: str) -> None:
    plain = {"process": "absorbing", "schedule": "linear", "evaluation": {"sampler": "first_hitting"}}
    resolve(plain, "test.yaml")
    with pytest.raises(ConfigError) as caught:
        resolve(plain | changed, "test.yaml")
    assert str(caught.value) == (
        f"test.yaml: evaluation.sampler: sampler 'first_hitting' needs absorbing noise on one clock, which {told} "
        "is not; choose ancestral, or write process: absorbing and clock: shared"
    )
