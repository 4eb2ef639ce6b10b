"""Correctors against distributions that can be enumerated: what keeps p_t, what does not, and what it is good for."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from sumi_core.base.options import ConfigError
from sumi_core.corruption import PARAMETERISATIONS
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.experiments.resolve import resolve
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserFunction, FromLogits
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.constraints import ForbiddenTokens
from sumi_core.sampling.generate import generate
from sumi_core.sampling.gibbs import Corrector
from tests.corruption.enumerable import World, build_process, chi_square
from tests.models.stock import lively, small
from tests.objectives.worlds import told_posterior
from tests.sampling.worlds import ROWS, clean, drawn_from, empty, index_of, noise_floor, tabled, total_variation

LEVEL, SWEEPS = 0.4, 20
TIME = torch.tensor(LEVEL, dtype=torch.float64)
NOISES = ["uniform", "hybrid", "clustered", "absorbing", "mixture", "unigram"]


def build(process: Any, name: str = "predictor_corrector", **options: Any) -> Any:
    return SAMPLERS.build(name, options, process=process, vocabulary=Vocabulary(process.num_tokens, 0))


def at_level(world: World, texts: Tensor) -> Canvas:
    """A canvas of texts ``[B, L]`` on their way."""
    canvas = Canvas.of(texts, torch.zeros_like(texts, dtype=torch.bool), seed=3, steps=1, rows=[0] * len(texts))
    return dataclasses.replace(canvas, state=world.process.clock.draw(canvas.noise("sample_clock", 0), world.length))


def corrected(world: World, sampler: Corrector, texts: Tensor, sweeps: int = SWEEPS) -> Tensor:
    """Texts ``[B, L]`` at the level after some sweeps of the sampler's own corrections."""
    canvas, denoiser = at_level(world, texts), tabled(world, world.denoiser)
    for number in range(sweeps * world.length):
        canvas = sampler.correct(denoiser, canvas, TIME, number)
    return canvas.tokens


def kernel(
    world: World,
    sampler: Corrector,
    denoiser: DenoiserFunction,
    position: int,
    time: Tensor = TIME,
    canvas: Canvas | None = None,
) -> Tensor:
    """What redrawing one position makes of every text, ``[Z, Z]``, by the probabilities that the sampler draws from.
    canvas: of every text; None: one on which nothing is given."""
    place, seen = torch.full((len(world.z), 1), position), []

    def capture(probs: Tensor, uniform: Tensor) -> Tensor:
        seen.append(probs / probs.sum(-1, keepdim=True))
        return probs.argmax(-1)

    with (
        patch("sumi_core.sampling.gibbs.draw_categorical", capture),
        patch.object(Corrector, "_chosen", lambda *_: (place, torch.ones_like(place, dtype=torch.bool))),
    ):
        sampler.correct(denoiser, at_level(world, world.z) if canvas is None else canvas, time, 0)
    (probs,) = seen
    found = torch.zeros(len(world.z), len(world.z), dtype=torch.float64)
    for state in range(world.states):
        becomes = index_of(world, world.z.index_fill(1, torch.tensor([position]), state))
        found[torch.arange(len(world.z)), becomes] = probs[:, 0, state]
    return found


@pytest.mark.parametrize(
    ("noise", "parameterisation"),
    [*itertools.product(NOISES, ["leave_one_out", "posterior"]), ("unseen", "leave_one_out")],
)
def test_redrawing_a_position_keeps_the_distribution_of_the_level(noise: str, parameterisation: str) -> None:
    """Exactly, position by position: so in any order that does not depend on the text."""
    world = World(noise, tokens=3, length=3, seed=1)
    world.process.parameterisation = PARAMETERISATIONS.build(parameterisation, {})
    exact = world.denoiser if parameterisation == "leave_one_out" else world.full_posterior_denoiser
    p, sampler = world.marginal(LEVEL), build(world.process)
    for position in range(world.length):
        redraw = kernel(world, sampler, tabled(world, exact), position)
        torch.testing.assert_close(redraw.sum(-1)[p > 0], torch.ones(int((p > 0).sum()), dtype=torch.float64))
        torch.testing.assert_close(p @ redraw, p, rtol=0, atol=1e-12)
        assert redraw.diagonal()[p > 0].max() < 1, "and not because nothing moves"


def of_each_level(world: World, left_out: bool) -> DenoiserFunction:
    """The exact denoiser of a level for every token, or of one for all: ``[B, L]`` or ``[B]``."""

    def logits(z: Tensor, t: Tensor | None) -> Tensor:
        assert t is not None
        found = told_posterior(world, z, t.view(len(z), -1), left_out=left_out)
        return found.nan_to_num(0.0)  # of a text that cannot occur

    return FromLogits(logits)


@pytest.mark.parametrize("parameterisation", ["leave_one_out", "posterior"])
@pytest.mark.parametrize("given", [1, 2])
@pytest.mark.parametrize("noise", NOISES)
def test_after_a_given_prefix_it_does_so_if_the_network_is_told_that_the_prefix_is_clean(
    noise: str, given: int, parameterisation: str
) -> None:
    """p_t(z^k | x^{<k}) of every prefix at once, position by position. A network that is given one level for all takes
    the prefix for noisy, and redraws beside other texts, unless noise would be a mask."""
    world = World(noise, tokens=3, length=4, seed=1)
    world.process.parameterisation = PARAMETERISATIONS.build(parameterisation, {})
    left_out, sampler = parameterisation == "leave_one_out", build(world.process)
    q = world.q(TIME.view(1))[0][world.x[:, given:, None], world.z[:, given:].T].prod(1)  # [M, Z]
    stands = (world.x[:, None, :given] == world.z[None, :, :given]).all(-1)
    p = world.p @ (q * stands)
    frozen = (torch.arange(world.length) < given).expand(world.z.shape)
    off = {True: 0.0, False: 0.0}
    for told, position in itertools.product(off, range(given, world.length)):
        canvas = dataclasses.replace(at_level(world, world.z), frozen=frozen, told=told)
        redraw = kernel(world, sampler, of_each_level(world, left_out), position, canvas=canvas)
        assert redraw.diagonal()[p > 0].max() < 1
        off[told] = max(off[told], float((p @ redraw - p).abs().max()))
    assert off[True] < 1e-15
    assert (off[False] > 1e-3) == (noise != "absorbing")


@pytest.mark.usefixtures("_fast")
@pytest.mark.parametrize("order", ["random", "scan"])
@pytest.mark.parametrize("noise", ["uniform", "hybrid", "clustered"])
def test_texts_of_a_level_stay_so_for_twenty_sweeps_and_any_others_become_so(noise: str, order: str) -> None:
    """Total variation within twice the noise floor, which is that of as many independent draws."""
    world = World(noise, tokens=3, length=3, seed=1)
    p, sampler = world.marginal(LEVEL), build(world.process, order=order)
    floor = noise_floor(p)
    assert total_variation(index_of(world, corrected(world, sampler, world.z[drawn_from(p)])), p) < 2 * floor
    same = world.z[:1].expand(ROWS, -1)
    assert total_variation(index_of(world, same), p) > 0.5
    assert total_variation(index_of(world, corrected(world, sampler, same)), p) < 2 * floor


@pytest.mark.parametrize("order", ["random", "scan"])
@pytest.mark.parametrize("noise", ["uniform", "clustered", "absorbing"])
def test_which_position_is_redrawn_depends_on_no_token(noise: str, order: str) -> None:
    """What makes redraws keep p_t: each row has the same choice, whatever all rows hold."""
    world = World(noise, tokens=3, length=3, seed=1)
    sampler, moves = build(world.process, order=order), torch.ones(len(world.z), 3, dtype=torch.bool)
    canvas = dataclasses.replace(at_level(world, world.z), rows=[*range(len(world.z))])
    chosen = [sampler._chosen(canvas, moves, number)[0] for number in range(6)]
    for texts in (world.z.flip(0), torch.zeros_like(world.z)):
        other = dataclasses.replace(canvas, tokens=texts, confidence=torch.rand(texts.shape))
        assert all(torch.equal(sampler._chosen(other, moves, n)[0], own) for n, own in enumerate(chosen))
    assert len(torch.stack(chosen).unique()) == 3, "every position is reached"


def test_posterior_predictions_are_refused_where_a_token_is_never_noise() -> None:
    """They do not tell what stands there without the token itself: the chain would be another one."""
    plain: dict[str, Any] = {"process": {"name": "unigram", "smoothing": 0.0}, "parameterisation": "leave_one_out"}
    sampler = {"evaluation": {"sampler": "predictor_corrector"}}
    resolve(plain | sampler, "test.yaml")
    plain["parameterisation"] = "posterior"
    resolve(plain, "test.yaml")
    with pytest.raises(ConfigError, match=r"evaluation\.sampler: .*set process\.smoothing above 0"):
        resolve(plain | sampler, "test.yaml")


@pytest.mark.parametrize("noise", ["uniform", "hybrid", "clustered"])
def test_choosing_what_the_network_is_least_sure_of_is_another_distribution(noise: str) -> None:
    """The trap: the same redraws, but of positions by how little sure they are, by margin or by the probability of what
    stands there, with Gumbel noise as published correctors add it."""
    world = World(noise, tokens=3, length=3, seed=1)
    p, sampler, probs = world.marginal(LEVEL), build(world.process), conditionals(world)
    kernels = torch.stack([kernel(world, sampler, tabled(world, world.denoiser), i) for i in range(world.length)])
    own = probs.gather(-1, world.z[..., None])[..., 0]
    others = probs.scatter(-1, world.z[..., None], 0.0).amax(-1)
    for sureness in (own.log() - others.log(), own):
        chosen = (-sureness).softmax(-1)
        redraw = torch.einsum("zi,izy->zy", chosen, kernels)
        after = p @ torch.linalg.matrix_power(redraw, SWEEPS * world.length)
        assert (after - p).abs().sum() / 2 > 0.05
    blind = torch.linalg.matrix_power(kernels.mean(0), SWEEPS * world.length)
    assert (p @ blind - p).abs().sum() / 2 < 1e-12


def conditionals(world: World) -> Tensor:
    """p_t(z_i | z_{−i}) at the level, ``[Z, L, S]``."""
    level = torch.full((len(world.z),), LEVEL, dtype=torch.float64)
    return world.process.marginal(world.process.denoiser(world.denoiser(world.z, level)), level[:, None])


def test_redrawing_several_positions_of_one_call_is_another_distribution() -> None:
    """Why ``corrections`` are calls: all three positions at once, each exactly, do not keep p_t."""
    world = World("uniform", tokens=3, length=3, seed=1)
    p, probs = world.marginal(LEVEL), conditionals(world)
    at_once = torch.stack([probs[:, i, world.z[:, i]] for i in range(world.length)]).prod(0)
    assert (p @ torch.linalg.matrix_power(at_once, SWEEPS) - p).abs().sum() / 2 > 0.05


def chain_distribution(world: World, sampler: Any, steps: int) -> Tensor:
    """Where a predictor-corrector ends, exactly: ``[Z]``."""
    distribution, denoiser = world.pi[world.z].prod(-1), tabled(world, world.denoiser)
    for t, s in itertools.pairwise(sampler.levels(steps)):
        probs = world.process.reverse(
            world.denoiser(world.z, t.expand(len(world.z))), world.z, t.view(1, 1), s.view(1, 1)
        )
        moved = torch.stack([probs[:, i, world.z[:, i]] for i in range(world.length)]).prod(0)
        distribution = distribution @ moved.nan_to_num(0.0)  # NaN: from a text that cannot occur
        if s > 0:
            redraw = sum(kernel(world, sampler, denoiser, i, s) for i in range(world.length)) / world.length
            distribution = distribution @ torch.linalg.matrix_power(redraw, sampler.options.corrections)
    return distribution


@pytest.mark.parametrize("noise", ["uniform", "clustered"])
def test_the_predictor_corrector_comes_to_p_and_sooner_with_corrections(noise: str) -> None:
    world = World(noise, tokens=3, length=3, seed=1)  # of two positions one redraw would already give p_t
    distances = {
        corrections: [
            float(
                (chain_distribution(world, build(world.process, corrections=corrections), n) - clean(world)).abs().sum()
            )
            for n in (4, 16)
        ]
        for corrections in (0, 4)
    }
    for found in distances.values():
        assert all(fine < 0.4 * coarse for coarse, fine in itertools.pairwise(found))
    assert all(more < 0.9 * none for none, more in zip(*distances.values(), strict=True))
    assert distances[4][-1] < 0.6 * distances[0][-1]


@pytest.mark.parametrize("noise", ["uniform", "hybrid", "clustered", "absorbing", "unigram"])
def test_finer_steps_come_to_the_distribution_of_the_data(noise: str) -> None:
    world = World(noise, tokens=3, length=3, seed=1)
    sampler = build(world.process, corrections=3)
    distances = [float((chain_distribution(world, sampler, n) - clean(world)).abs().sum()) / 2 for n in (4, 16, 64)]
    assert all(fine < 0.25 * coarse for coarse, fine in itertools.pairwise(distances))
    assert distances[-1] < 0.004


@pytest.mark.usefixtures("_fast")
@pytest.mark.parametrize("noise", ["uniform", "absorbing"])
def test_the_sampler_draws_from_that_chain(noise: str) -> None:
    world = World(noise, tokens=3, length=2, seed=2)
    sampler = build(world.process, corrections=3)
    *_, last = generate(sampler, tabled(world, world.denoiser), empty(world, steps=4))
    assert set(last.nfe.tolist()) == {4 + 3 * 3}
    expected = chain_distribution(world, sampler, 4).clamp(min=0)
    assert chi_square(index_of(world, last.tokens), expected.where(expected > 1e-12, 0.0)) > 1e-3
    uncorrected = chain_distribution(world, build(world.process, corrections=0), 4).clamp(min=0)
    assert noise == "absorbing" or chi_square(index_of(world, last.tokens), uncorrected) < 1e-6


@pytest.mark.usefixtures("_fast")
@pytest.mark.parametrize("noise", ["uniform", "hybrid", "clustered"])
def test_self_correction_keeps_p_and_brings_other_texts_to_it(noise: str) -> None:
    world = World(noise, tokens=3, length=3, seed=1)
    p, denoiser = clean(world), tabled(world, world.denoiser)
    floor = noise_floor(p)

    def revised(texts: Tensor, **options: Any) -> float:
        sampler = build(world.process, "self_correction", **options)
        canvas = Canvas.of(texts, torch.zeros_like(texts, dtype=torch.bool), seed=0, steps=64, rows=[0] * len(texts))
        canvases = list(generate(sampler, denoiser, dataclasses.replace(canvas, revises=True)))
        assert torch.equal(canvases[0].tokens, texts)
        return total_variation(index_of(world, canvases[-1].tokens), p)

    assert revised(world.z[drawn_from(p)], noise=0.1, corrections=6) < 2 * floor
    tokens = torch.randint(3, (ROWS, 3), generator=torch.Generator().manual_seed(0))
    before = total_variation(index_of(world, tokens), p)
    by_noise = revised(tokens, noise=0.3, corrections=0)
    by_correction = revised(tokens, noise=0.3, corrections=24)
    assert by_correction < 0.1 * before
    assert by_correction < 0.5 * by_noise < 0.5 * before


def network(noise: str) -> tuple[Any, Any]:
    process = build_process(noise, "linear", 6)
    return process, lively(Denoiser(small(), process.num_states)).eval()


@pytest.mark.parametrize("name", ["predictor_corrector", "self_correction"])
@pytest.mark.parametrize("noise", ["uniform", "hybrid"])
def test_what_is_given_stands_and_what_is_forbidden_is_not_written(name: str, noise: str) -> None:
    process, denoiser = network(noise)
    sampler = build(process, name, corrections=12, order="scan")
    tokens = torch.tensor([[5, 0, 0, 1, 0, 5], [0, 5, 5, 0, 0, 0]])
    frozen = torch.tensor([[1, 0, 0, 1, 0, 1], [0, 1, 1, 0, 0, 0]], dtype=torch.bool)
    canvas = Canvas.of(tokens, frozen, seed=0, steps=3, constraints=[ForbiddenTokens([5])])
    for canvas in generate(sampler, denoiser, canvas):  # noqa: B020
        assert torch.equal(canvas.tokens[frozen], tokens[frozen])
    assert int(canvas.tokens.max()) < 6
    assert not (canvas.tokens[~frozen] == 5).any()
    assert canvas.confidence[frozen].isnan().all()
    assert not canvas.confidence[~frozen].isnan().any()


def test_a_scan_goes_through_the_open_positions_of_each_row_and_a_random_order_takes_each_as_often() -> None:
    process, _ = network("uniform")
    frozen = torch.tensor([[1, 0, 0, 1, 0, 1], [0, 0, 0, 0, 0, 0]], dtype=torch.bool)
    canvas = Canvas.of(torch.zeros(2, 6, dtype=torch.int64), frozen, torch.tensor([6, 4]), seed=0, steps=1)
    moves = torch.ones(2, 6, dtype=torch.bool)
    scan = [build(process, order="scan")._chosen(canvas, moves, number)[0][:, 0].tolist() for number in range(6)]
    assert [own for own, _ in scan] == [1, 2, 4, 1, 2, 4]
    assert [own for _, own in scan] == [0, 1, 2, 3, 0, 1]
    random = build(process, order="random")
    drawn = torch.cat([random._chosen(canvas, moves, number)[0] for number in range(1200)], 1)
    assert chi_square(drawn[0], torch.tensor([0, 1, 1, 0, 1, 0]).double()) > 1e-3
    assert chi_square(drawn[1], torch.tensor([1, 1, 1, 1]).double()) > 1e-3
    assert not random._chosen(canvas, moves & False, 0)[1].any()


def test_the_head_reads_the_redrawn_position_alone() -> None:
    """What a correction costs beside the network does not grow with the text."""
    process, denoiser = network("uniform")
    sampler, shapes = build(process, corrections=2), []
    watched = denoiser.lm_head.register_forward_hook(
        lambda module, given, found: shapes.append(tuple(given[0].shape[:2]))
    )
    sampler.sample(denoiser, num=3, length=9, steps=2, seed=0)
    watched.remove()
    assert shapes == [(3, 9), (3, 1), (3, 1), (3, 9)]


def test_only_a_sampler_that_revises_begins_with_a_text() -> None:
    process, denoiser = network("uniform")
    draw: dict[str, Any] = {"num": 2, "length": 5, "steps": 2, "seed": 0}
    text = torch.tensor([1, 2, 3, 4, 5])
    with pytest.raises(ValueError, match="begins with noise and revises no text"):
        build(process, "ancestral").sample(denoiser, **draw, text=text)
    sampler = build(process, "self_correction")
    with pytest.raises(ValueError, match="the text holds ids outside the vocabulary of 6 tokens"):
        sampler.sample(denoiser, **draw, text=text + 1)
    with pytest.raises(ValueError, match=r"texts to revise have \[4, 5\] tokens, not the lengths \[5, 5\]"):
        sampler.sample(denoiser, **draw, text=[text[:4], text])
    revised = sampler.sample(denoiser, **draw, text=text, prompt=text[:2])
    assert torch.equal(revised.tokens[:, :2], text[:2].expand(2, 2))
    written = sampler.sample(denoiser, **draw)
    assert written.nfe.tolist() == [2 + 32 + 1] * 2
    assert revised.nfe.tolist() == [32 + 1] * 2
