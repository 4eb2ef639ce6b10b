"""Speculation writes the autoregressive mode's own text, whatever it drafts; what a pass costs, and what it refuses."""

from __future__ import annotations

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
from sumi_core.sampling.speculative import Speculative
from tests.corruption.enumerable import build_process
from tests.layouts.exact import blocks
from tests.models.stock import lively, small
from tests.sampling.test_generate import EOS, LENGTHS, PROMPTS, V, Watched, last

read_outs = pytest.mark.parametrize("read_out", ["own", "previous"])
noises = pytest.mark.parametrize("noise", ["uniform", "absorbing"])
SHAPES: list[dict[str, Any]] = [
    {"shape": "linear", "width": 4},
    {"shape": "linear", "width": 1},
    {"shape": "linear", "width": 5, "draft_steps": 3},
    {"shape": "linear", "width": 5, "recycle": True},
    {"shape": "fan", "width": 3},
    {"shape": "fan", "width": 4, "recycle": True},
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))


def network(noise: str, **model: Any) -> tuple[Any, Watched]:
    """A process over V tokens and a random network in float64 that is not too sure of anything."""
    process = build_process(noise, "linear", V)
    denoiser = lively(Denoiser(small(attention="causal", **model), process.num_states)).double()
    with torch.no_grad():
        denoiser.lm_head.weight.mul_(0.5)
    return process, Watched(denoiser)


def build(name: str, process: Any, read_out: str, **options: Any) -> Sampler:
    context = {"process": process, "vocabulary": Vocabulary(V, EOS), "layout": blocks(4, read_out)}
    sampler: Sampler = SAMPLERS.build(name, options, **context)
    return sampler


def both(noise: str, read_out: str, temperature: float = 1.0, **shape: Any) -> tuple[Sampler, Sampler, Watched]:
    """Speculation, the sampler whose texts it writes, and a network with both modes."""
    process, denoiser = network(noise)
    return (
        build("speculative", process, read_out, temperature=temperature, **shape),
        build("autoregressive", process, read_out, temperature=temperature),
        denoiser,
    )


@shapes
@read_outs
@noises
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_the_text_is_that_of_the_autoregressive_mode(
    temperature: float, noise: str, read_out: str, shape: dict[str, Any]
) -> None:
    """Token for token, with prompts and lengths of its own in every row, and never below one token a call."""
    speculative, reference, denoiser = both(noise, read_out, temperature, **shape)
    wanted = last(generate(reference, denoiser, Canvas.blank(PROMPTS, LENGTHS, seed=3, steps=1)))
    found = last(generate(speculative, denoiser, Canvas.blank(PROMPTS, LENGTHS, seed=3, steps=1)))
    assert torch.equal(found.tokens, wanted.tokens)
    torch.testing.assert_close(found.confidence, wanted.confidence, equal_nan=True)
    assert bool((found.nfe <= wanted.nfe).all())
    assert bool((found.nfe > 0).all())


@shapes
@read_outs
def test_a_text_ends_where_the_autoregressive_one_does_and_constraints_hold(
    read_out: str, shape: dict[str, Any]
) -> None:
    speculative, reference, denoiser = both("uniform", read_out, **shape)

    def differs(probs: torch.Tensor, canvas: Canvas, positions: torch.Tensor) -> torch.Tensor:
        """From the token before: what stands decides."""
        (position,) = positions.tolist()
        return probs.scatter(-1, canvas.tokens[:, position - 1].view(-1, 1, 1), 0.0) if position else probs

    for constraints in ([], [ForbiddenTokens([1]), differs]):
        asked = {"num": 24, "length": 9, "steps": 1, "seed": 2, "constraints": constraints}
        ended = [sampler.sample(denoiser, **asked, end_of_text=True) for sampler in (speculative, reference)]
        assert torch.equal(ended[0].tokens, ended[1].tokens)
        assert torch.equal(ended[0].lengths, ended[1].lengths)
        assert bool((ended[0].lengths < 9).any())
        assert bool((ended[0].nfe <= ended[1].nfe).all()), "never below one token a call, the end of text among them"
        if constraints:
            assert not bool((ended[0].tokens == 1).any())


@shapes
@read_outs
@noises
@pytest.mark.parametrize("caches", [True, False])
@pytest.mark.parametrize("verify", ["gumbel", "rejection"])
def test_a_row_is_the_same_text_in_any_company(
    verify: str, caches: bool, noise: str, read_out: str, shape: dict[str, Any]
) -> None:
    speculative, _, denoiser = both(noise, read_out, verify=verify, **shape)
    denoiser.caches = caches
    together = last(generate(speculative, denoiser, Canvas.blank(PROMPTS, LENGTHS, seed=3, steps=1)))
    for row, (prompt, length) in enumerate(zip(PROMPTS, LENGTHS, strict=True)):
        alone = last(generate(speculative, denoiser, Canvas.blank([prompt], [length], seed=3, steps=1, rows=[row])))
        assert torch.equal(alone.tokens[0], together.tokens[row, :length])
        assert int(alone.nfe) == int(together.nfe[row]) <= length - len(prompt)
        assert int(alone.slots) == int(together.slots[row]) > 0
        assert torch.equal(together.tokens[row, : len(prompt)], prompt)


@shapes
@read_outs
@noises
def test_given_tokens_stand_and_what_is_between_is_the_autoregressive_text(
    noise: str, read_out: str, shape: dict[str, Any]
) -> None:
    speculative, reference, denoiser = both(noise, read_out, **shape)
    tokens = torch.tensor([[5, 0, 0, 1, 0, 3, 0, 0, 2, 2], [0, 4, 4, 4, 4, 4, 4, 0, 0, 0]])
    frozen = torch.tensor([[1, 0, 0, 1, 0, 1, 0, 0, 1, 1], [0, 1, 1, 1, 1, 1, 1, 0, 0, 0]], dtype=torch.bool)
    wanted = last(generate(reference, denoiser, Canvas.of(tokens, frozen, seed=0, steps=1)))
    canvases = list(generate(speculative, denoiser, Canvas.of(tokens, frozen, seed=0, steps=1)))
    assert all(torch.equal(canvas.tokens[frozen], tokens[frozen]) for canvas in canvases)
    assert torch.equal(canvases[-1].tokens, wanted.tokens)
    torch.testing.assert_close(canvases[-1].confidence, wanted.confidence, equal_nan=True)
    assert bool((canvases[-1].nfe <= wanted.nfe).all())


@shapes
def test_a_canvas_steps_alike_however_often_and_the_film_only_grows(shape: dict[str, Any]) -> None:
    speculative, _, denoiser = both("uniform", "previous", **shape)
    canvas = speculative.start(Canvas.blank(PROMPTS, LENGTHS, seed=3, steps=1))
    with torch.no_grad():
        while not bool(speculative.finished(canvas).all()):
            once = speculative.step(denoiser, canvas)
            speculative.step(denoiser, once)  # goes on from one of them
            again = speculative.step(denoiser, canvas)
            assert torch.equal(again.tokens, once.tokens)
            assert torch.equal(again.slots, once.slots)
            for row, settled in enumerate(speculative.settled(canvas).tolist()):
                assert torch.equal(once.tokens[row, :settled], canvas.tokens[row, :settled])
            canvas = once


@read_outs
def test_what_the_passes_compute(read_out: str) -> None:
    """Slots as the definition of each shape says: nothing that is kept is computed again."""
    process, denoiser = network("uniform")
    copy = read_out == "previous"
    asked = {"num": 5, "length": 40, "steps": 1, "seed": 1, "prompt": torch.tensor([3, 1, 4])}
    build("speculative", process, read_out, shape="linear", width=4).sample(denoiser, **asked)
    slots = [shape[1] for shape in denoiser.shapes]
    assert set(slots[::2]) == {1 + 4 + copy, 4 + 4 + copy}  # the first pass reads the prompt too
    assert set(slots[1::2]) == {4}
    denoiser.shapes.clear()
    build("speculative", process, read_out, shape="fan", width=3).sample(denoiser, **asked)
    slots = [shape[1] for shape in denoiser.shapes]
    assert slots[0] == 4 + 4 + copy
    assert set(slots[1:]) == {1 + 3 + 4 * (4 + copy)}


@read_outs
@pytest.mark.parametrize("shape", ["linear", "fan"])
def test_drafts_that_are_right_all_stand(shape: str, read_out: str) -> None:
    """A network that predicts one token everywhere, whatever it reads: every pass writes all that it can."""
    process, denoiser = network("uniform")
    with torch.no_grad():
        denoiser.denoiser.lm_head.weight.zero_()  # every token is as probable; shared noise chooses the same
    width, length = 4, 41
    found = build("speculative", process, read_out, shape=shape, width=width).sample(
        denoiser, num=3, length=length, steps=1, seed=1
    )
    # linear: 1 + 4 tokens from two passes. fan: 1, then 5 from each.
    assert found.nfe.tolist() == [{"linear": 17, "fan": 9}[shape]] * 3


def test_another_time_conditioning_is_told_the_level_of_each_slot() -> None:
    process, denoiser = network("uniform", time_conditioning="token")
    told: list[torch.Tensor] = []
    inner = denoiser.denoiser.forward

    def watched(given: Any) -> Any:
        told.append(given.level)
        return inner(given)

    denoiser.denoiser.forward = watched  # type: ignore[method-assign]
    tokens = torch.tensor([[5, 0, 0, 1, 0, 0]])
    frozen = torch.tensor([[1, 0, 0, 1, 0, 0]], dtype=torch.bool)
    sampler = build("speculative", process, "own", width=4, draft_steps=2)
    last(generate(sampler, denoiser, Canvas.of(tokens, frozen, seed=0, steps=1)))
    assert told[0].tolist() == [[0, 0, 1, 1, 0, 1]], "eos and the prompt, then the canvas: what is given is clean"
    assert told[1].tolist() == [[0, 0.5, 0, 0.5]], "the next token, then what is left of the canvas"


def test_what_it_cannot_do_is_refused() -> None:
    process, _ = network("uniform")
    with pytest.raises(ValueError, match="layout of blocks"):
        SAMPLERS.build("speculative", {}, process=process, vocabulary=Vocabulary(V, EOS))
    for options in ({"shape": "fan", "draft_steps": 2}, {"width": 2, "draft_steps": 3}):
        with pytest.raises(ValueError, match="draft_steps above 1 need shape: linear"):
            build("speculative", process, "own", **options)
    sampler, _, denoiser = both("uniform", "own")
    with pytest.raises(ValueError, match="NaN or all zero"):
        sampler.sample(denoiser, num=1, length=4, steps=1, seed=0, constraints=[ForbiddenTokens(range(V))])


@read_outs
@noises
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[3], SHAPES[4], SHAPES[5]], ids=str)
def test_drafts_are_what_the_layout_predicts_of_that_canvas_alone(
    shape: dict[str, Any], noise: str, read_out: str
) -> None:
    """Wherever a canvas begins: beside kept slots, unread drafts and other canvases, one of which may be a copy of the
    last token, it is denoised as in a pass of its own."""
    sampler, _, denoiser = both(noise, read_out, **shape)
    assert isinstance(sampler, Speculative)
    canvas, compared = sampler.start(Canvas.blank(PROMPTS, [24] * len(PROMPTS), seed=3, steps=1)), 0
    with torch.no_grad():
        while not bool(sampler.finished(canvas).all()):
            before, plan = canvas.state, sampler.drafting.plan(canvas, canvas.state)
            canvas = sampler.step(denoiser, canvas)
            if plan is None:
                continue
            for row, begin in enumerate(before.settled.tolist()):
                accepted = int(canvas.state.settled[row]) - begin - 1
                if begin + accepted < 2 or bool(sampler.finished(canvas)[row]):
                    continue
                z, level = plan.z[row, accepted][None], plan.level[row, accepted][None]
                text = canvas.tokens[row][None]
                alone = blocks(begin + accepted, read_out)  # its second block begins there
                asked = DenoiserInput(z, level)
                predicted = sampler.process.predict(
                    lambda given, text=text, alone=alone: alone.canvas(denoiser, text, given, 1, EOS),
                    asked,
                    level[:, None],
                )
                wanted = sampler.process.reverse(predicted, z, level[:, None], torch.zeros(1, 1).double())[0, 1:, :V]
                torch.testing.assert_close(canvas.state.chances[row], wanted, rtol=0, atol=1e-12)
                compared += 1
    assert compared > 10
