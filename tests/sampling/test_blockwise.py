"""Block-by-block sampling: its exact distribution, rows in any company, prompts, and what a call costs."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch

from sumi_core.data.vocabulary import Vocabulary
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserInput
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.constraints import ForbiddenTokens
from sumi_core.sampling.generate import generate
from sumi_core.sampling.sampler import Sampler
from tests.corruption.enumerable import World, build_process, chi_square
from tests.layouts.exact import blocks, exact_logits, one_block
from tests.models.stock import lively, small
from tests.sampling.test_generate import EOS, LENGTHS, PROMPTS, V, Watched, last

read_outs = pytest.mark.parametrize("read_out", ["own", "previous"])


def build(process: Any, length: int, read_out: str = "own") -> Sampler:
    vocabulary = Vocabulary(process.num_tokens, EOS if process.num_tokens == V else 0)
    context = {"process": process, "vocabulary": vocabulary, "layout": blocks(length, read_out)}
    sampler: Sampler = SAMPLERS.build("blockwise", {}, **context)
    return sampler


def made(read_out: str, noise: str = "absorbing", n: int = 4, **model: Any) -> tuple[Sampler, Watched]:
    process = build_process(noise, "linear", V)
    network = lively(Denoiser(small(attention="causal", **model), process.num_states)).double()
    return build(process, n, read_out), Watched(network)


def chain(world: World, n: int, steps: int) -> torch.Tensor:
    """The distribution of texts ``[M]`` that blocks of ``n`` end in, exactly: every factorised step pushed through."""
    process = world.process
    levels = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    found = torch.ones(len(world.x), dtype=torch.float64)
    states = torch.tensor(list(itertools.product(range(world.states), repeat=n)))
    for first in range(0, world.length, n):
        part = slice(first, first + n)
        for prefix in {tuple(row) for row in world.x[:, :first].tolist()}:
            distribution = world.pi[states].prod(-1)
            for t, s in itertools.pairwise(levels):
                held = states[distribution > 0]
                z = torch.zeros(len(held), world.length, dtype=torch.int64)
                z[:, part] = held
                x = torch.tensor([prefix], dtype=torch.int64).reshape(1, first).expand(len(z), -1)
                logits = exact_logits(world, z, x, t.expand(len(z)), first, first + n)
                probs = process.reverse(logits, held, t.view(1, 1), s.view(1, 1))
                step = torch.stack([probs[:, i, states[:, i]] for i in range(n)]).prod(0)
                distribution = distribution[distribution > 0] @ step
            begins = (world.x[:, :first] == torch.tensor(prefix, dtype=torch.int64)).all(-1)
            index = (world.x[:, part, None] == states.T).all(1).double() @ distribution
            found = torch.where(begins, found * index, found)
    return found


@read_outs
@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("process", ["uniform", "absorbing", "clustered"])
def test_texts_are_drawn_from_the_chain_of_blocks(process: str, n: int, read_out: str) -> None:
    world = World(process, "cosine", tokens=2, length=4, seed=1)
    samples = build(world.process, n, read_out).sample(
        one_block(world, blocks(n, read_out)), num=3000, length=4, steps=3, seed=5
    )
    assert set(samples.nfe.tolist()) == {3 * 4 // n}
    drawn = (samples.tokens * torch.tensor([8, 4, 2, 1])).sum(-1)
    expected = chain(world, n, 3)
    assert float(expected.sum()) == pytest.approx(1)
    assert chi_square(drawn, expected) > 1e-3
    if n == 1:  # nothing is factorised
        torch.testing.assert_close(expected, world.p)


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("process", ["uniform", "absorbing", "clustered", "hybrid"])
def test_finer_steps_come_to_the_distribution_of_the_data(process: str, n: int) -> None:
    world = World(process, "cosine", tokens=2, length=4, seed=1)
    distances = [float((chain(world, n, steps) - world.p).abs().sum()) / 2 for steps in (4, 16, 64)]
    assert all(fine < 0.35 * coarse for coarse, fine in itertools.pairwise(distances))
    assert distances[-1] < 0.015


@read_outs
@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_a_prompt_of_whole_blocks_is_conditioned_on(process: str, read_out: str) -> None:
    world = World(process, "cosine", tokens=2, length=4, seed=1)
    prompt = torch.tensor([1, 0])
    samples = build(world.process, 2, read_out).sample(
        one_block(world, blocks(2, read_out)), num=3000, length=4, steps=3, seed=5, prompt=prompt
    )
    expected = chain(world, 2, 3)[(world.x[:, :2] == prompt).all(-1)]
    assert chi_square((samples.tokens[:, 2:] * torch.tensor([2, 1])).sum(-1), expected / expected.sum()) > 1e-3


@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_what_is_given_within_a_block_is_conditioned_on_where_noise_is_marked(process: str) -> None:
    """One token is left, so nothing is factorised. Read at the level of the others, a given token is certain under
    masks; under uniform noise it may be noise, and the last token is drawn from another distribution."""
    world = World(process, "cosine", tokens=2, length=4, seed=3)
    prompt, exact = torch.tensor([1, 0, 0]), one_block(world, blocks(4))

    def denoiser(given: DenoiserInput) -> Any:  # at t = 1 no token stands, and the exact posterior has nothing to say
        assert given.level is not None
        return exact(dataclasses.replace(given, level=given.level.clamp(max=0.999)))

    samples = build(world.process, 4).sample(denoiser, num=3000, length=4, steps=16, seed=5, prompt=prompt)
    expected = world.p[(world.x[:, :3] == prompt).all(-1)]
    agrees = chi_square(samples.tokens[:, 3], expected / expected.sum()) > 1e-3
    assert agrees == (process == "absorbing")


@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_one_block_is_ancestral_sampling(process: str) -> None:
    world = World(process, "cosine", tokens=2, length=4, seed=1)
    ancestral = SAMPLERS.build("ancestral", {}, process=world.process, vocabulary=Vocabulary(2, 0))
    from sumi_core.models.interface import FromLogits

    asked = {"num": 20, "length": 4, "steps": 5, "seed": 3}
    whole = ancestral.sample(FromLogits(world.denoiser), **asked)
    found = build(world.process, 4).sample(one_block(world, blocks(4)), **asked)
    assert torch.equal(found.tokens, whole.tokens)
    assert torch.equal(found.nfe, whole.nfe)


@read_outs
@pytest.mark.parametrize("noise", ["uniform", "absorbing"])
@pytest.mark.parametrize("caches", [True, False])
def test_a_row_is_the_same_text_in_any_company(caches: bool, noise: str, read_out: str) -> None:
    sampler, denoiser = made(read_out, noise)
    denoiser.caches = caches
    together = last(generate(sampler, denoiser, Canvas.blank(PROMPTS, LENGTHS, seed=3, steps=3)))
    for row, (prompt, length) in enumerate(zip(PROMPTS, LENGTHS, strict=True)):
        alone = last(generate(sampler, denoiser, Canvas.blank([prompt], [length], seed=3, steps=3, rows=[row])))
        assert torch.equal(alone.tokens[0], together.tokens[row, :length])
        assert int(alone.nfe) == int(together.nfe[row]) == 3 * (-(-length // 4) - len(prompt) // 4)
        assert int(alone.slots) == int(together.slots[row]) > 0
        assert torch.equal(together.tokens[row, : len(prompt)], prompt)
        assert bool((together.tokens[row, :length] < V).all())


@read_outs
def test_kept_keys_change_no_text_and_save_slots(read_out: str) -> None:
    sampler, denoiser = made(read_out, "uniform", time_conditioning="token")
    asked = {"num": 3, "length": 12, "steps": 3, "seed": 3}
    kept = sampler.sample(denoiser, **asked)
    shapes = [shape[1] for shape in denoiser.shapes]
    denoiser.caches = False
    alone = sampler.sample(denoiser, **asked)
    assert torch.equal(kept.tokens, alone.tokens)
    canvas, eos = (4, 1) if read_out == "own" else (5, 0)
    assert shapes == [canvas + eos, canvas, canvas, *[canvas + 4, canvas, canvas] * 2], "commits ride along"
    assert kept.slots.tolist() == [sum(shapes)] * 3
    assert alone.slots.tolist() == [3 * (3 * (canvas + eos) + 4 + 8)] * 3


def test_a_canvas_steps_alike_however_often_and_the_film_only_grows() -> None:
    sampler, denoiser = made("own")
    canvas = sampler.start(Canvas.blank(PROMPTS, LENGTHS, seed=3, steps=2))
    with torch.no_grad():
        while not bool(sampler.finished(canvas).all()):
            once = sampler.step(denoiser, canvas)
            sampler.step(denoiser, once)  # goes on from one of them
            again = sampler.step(denoiser, canvas)
            assert torch.equal(again.tokens, once.tokens)
            assert torch.equal(again.slots, once.slots)
            for row, settled in enumerate(sampler.settled(canvas).tolist()):
                assert torch.equal(once.tokens[row, :settled], canvas.tokens[row, :settled])
            canvas = once


def test_given_tokens_are_told_clean_and_stand() -> None:
    sampler, denoiser = made("own", time_conditioning="token")
    told: list[DenoiserInput] = []
    inner = denoiser.denoiser
    denoiser.caches = False

    def watched(given: DenoiserInput) -> Any:
        told.append(given)
        return inner(given)

    tokens = torch.tensor([[5, 0, 0, 1, 0, 3]])
    frozen = torch.tensor([[1, 0, 0, 1, 0, 1]], dtype=torch.bool)
    canvases = list(generate(sampler, watched, Canvas.of(tokens, frozen, seed=0, steps=2)))
    assert all(torch.equal(canvas.tokens[frozen], tokens[frozen]) for canvas in canvases)
    assert canvases[-1].confidence[frozen].isnan().all()
    assert ((canvases[-1].confidence > 0) & (canvases[-1].confidence <= 1))[~frozen].all()
    first = told[0].level
    assert first is not None
    assert first.tolist() == [[0, 0, 1, 1, 0]], "eos, then the block: what is given is clean"


@read_outs
def test_constraints_hold_and_end_of_text_ends_a_row(read_out: str) -> None:
    sampler, denoiser = made(read_out, "uniform")
    asked = {"num": 40, "length": 10, "steps": 3, "seed": 0}
    free = sampler.sample(denoiser, **asked)
    assert bool((free.tokens == 1).any())
    held = sampler.sample(denoiser, constraints=[ForbiddenTokens([1])], **asked)
    assert not bool((held.tokens == 1).any())
    ended = sampler.sample(denoiser, end_of_text=True, **asked)
    short = ended.lengths < 10
    assert bool(short.any())
    for row in short.nonzero().flatten().tolist():
        length = int(ended.lengths[row])
        assert torch.equal(ended.tokens[row, :length], free.tokens[row, :length])
        assert int(free.tokens[row, length]) == EOS
        assert int(ended.nfe[row]) == 3 * (length // 4 + 1)


def test_another_layout_is_refused() -> None:
    process = build_process("uniform", "linear", V)
    with pytest.raises(ValueError, match="layout of blocks"):
        SAMPLERS.build("blockwise", {}, process=process, vocabulary=Vocabulary(V, 0))
