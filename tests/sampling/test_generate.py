"""The one loop: rows with prompts, gaps and lengths of their own, each the same text in any company; what it costs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from sumi_core.data.vocabulary import Vocabulary
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserInput, DenoiserOutput, FromLogits
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.constraints import ForbiddenTokens
from sumi_core.sampling.generate import generate
from sumi_core.sampling.sampler import Sampler
from tests.corruption.enumerable import build_process, chi_square
from tests.models.stock import lively, small

V, EOS = 6, 2
KINDS = ["uniform", "absorbing", "autoregressive"]


class Watched(torch.nn.Module):
    """A denoiser that remembers how many slots each call computed; ``caches`` may be switched off."""

    def __init__(self, denoiser: Denoiser, caches: bool = True) -> None:
        super().__init__()
        self.denoiser, self.caches = denoiser, caches and denoiser.caches
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, given: DenoiserInput) -> DenoiserOutput:
        self.shapes.append(tuple(given.tokens.shape))
        output: DenoiserOutput = self.denoiser(given)
        return output


def made(kind: str) -> tuple[Sampler, Watched]:
    """A sampler and a network over V tokens."""
    vocabulary = Vocabulary(V, EOS)
    if kind == "autoregressive":
        sampler = SAMPLERS.build("left_to_right", {}, process=None, vocabulary=vocabulary)
        return sampler, Watched(lively(Denoiser(small(attention="causal"), V)).eval())
    process = build_process(kind, "linear", V)
    sampler = SAMPLERS.build("ancestral", {}, process=process, vocabulary=vocabulary)
    return sampler, Watched(lively(Denoiser(small(), process.num_states)).eval())


def last(canvases: Iterator[Canvas]) -> Canvas:
    *_, final = canvases
    return final


each_kind = pytest.mark.parametrize("kind", KINDS)
PROMPTS = [torch.tensor([1, 3, 5]), torch.tensor([], dtype=torch.int64), torch.tensor([4]), torch.tensor([0] * 7)]
LENGTHS = [9, 12, 5, 8]


@each_kind
def test_a_row_is_the_same_text_in_any_company(kind: str) -> None:
    """Prompts and lengths differ by row; alone, with its own number, each row is drawn again."""
    sampler, denoiser = made(kind)
    together = last(generate(sampler, denoiser, Canvas.blank(PROMPTS, LENGTHS, seed=3, steps=6)))
    for row, (prompt, length) in enumerate(zip(PROMPTS, LENGTHS, strict=True)):
        alone = last(generate(sampler, denoiser, Canvas.blank([prompt], [length], seed=3, steps=6, rows=[row])))
        assert torch.equal(alone.tokens[0], together.tokens[row, :length])
        assert int(alone.nfe) == int(together.nfe[row])
        assert int(alone.slots) == int(together.slots[row]) > 0
        assert torch.equal(together.tokens[row, : len(prompt)], prompt)
        torch.testing.assert_close(
            alone.confidence[0], together.confidence[row, :length], equal_nan=True, rtol=1e-4, atol=1e-6
        )


@each_kind
def test_frozen_positions_stand_at_every_step_and_the_gaps_are_filled(kind: str) -> None:
    sampler, denoiser = made(kind)
    tokens = torch.tensor([[5, 0, 0, 1, 0, 3], [0, 4, 4, 0, 0, 0]])
    frozen = torch.tensor([[1, 0, 0, 1, 0, 1], [0, 1, 1, 0, 0, 0]], dtype=torch.bool)
    canvases = list(generate(sampler, denoiser, Canvas.of(tokens, frozen, seed=0, steps=5)))
    assert all(torch.equal(canvas.tokens[frozen], tokens[frozen]) for canvas in canvases)
    assert all(bool(canvas.confidence[frozen].isnan().all()) for canvas in canvases)
    final = canvases[-1]
    assert int(final.tokens.max()) < V
    assert bool(((final.confidence > 0) & (final.confidence <= 1))[~frozen].all())


@each_kind
def test_canvases_are_a_film_and_a_step_is_a_call(kind: str) -> None:
    sampler, denoiser = made(kind)
    canvases = list(generate(sampler, denoiser, Canvas.blank(PROMPTS, LENGTHS, seed=1, steps=4)))
    assert len(canvases) == 1 + len(denoiser.shapes)
    assert not canvases[-2].done.all()
    assert canvases[-1].done.all()
    written = [length - len(prompt) for prompt, length in zip(PROMPTS, LENGTHS, strict=True)]
    assert canvases[-1].nfe.tolist() == (written if kind == "autoregressive" else [4] * 4)
    if kind != "autoregressive":
        assert canvases[-1].slots.tolist() == [4 * length for length in LENGTHS]


@pytest.mark.parametrize("caches", [True, False])
def test_a_row_with_given_tokens_costs_the_same_in_any_company(caches: bool) -> None:
    """Given tokens are read for what is written behind them, and what is given at the end is not read at all."""
    sampler, denoiser = made("autoregressive")
    denoiser.caches = caches
    tokens = torch.tensor([[5, 0, 3, 1, 0, 4, 3, 1], [0, 0, 0, 0, 0, 0, 0, 0]])
    frozen = torch.tensor([[1, 0, 1, 1, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0, 0]], dtype=torch.bool)
    together = last(generate(sampler, denoiser, Canvas.of(tokens, frozen, seed=0, steps=1)))
    alone = last(generate(sampler, denoiser, Canvas.of(tokens[:1], frozen[:1], seed=0, steps=1)))
    assert torch.equal(alone.tokens[0], together.tokens[0])
    assert together.nfe.tolist() == [2, 8]
    assert together.slots.tolist() == ([5, 8] if caches else [2 + 5, sum(range(1, 9))])
    assert int(alone.slots) == int(together.slots[0])


def test_a_canvas_steps_alike_however_often() -> None:
    """The kept keys and values are shared by the canvases of a run; a step takes of them what its canvas had."""
    sampler, denoiser = made("autoregressive")
    canvas = sampler.start(Canvas.blank(PROMPTS, LENGTHS, seed=3, steps=1))
    with torch.no_grad():
        for _ in range(5):
            once, later = sampler.step(denoiser, canvas), sampler.step(denoiser, canvas)
            sampler.step(denoiser, once)  # goes on from one of them
            again = sampler.step(denoiser, canvas)
            for other in (later, again):
                assert torch.equal(other.tokens, once.tokens)
                assert torch.equal(other.confidence.nan_to_num(), once.confidence.nan_to_num())
                assert torch.equal(other.slots, once.slots)
            canvas = once


def test_two_continuations_of_one_canvas_do_not_mix() -> None:
    """Canvases that went apart take turns: each draws on as if the other were not there."""
    sampler, denoiser = made("autoregressive")
    with torch.no_grad():
        start = sampler.step(denoiser, sampler.start(Canvas.blank([PROMPTS[1]] * 3, [12] * 3, seed=3, steps=1)))
        pair = [start, dataclasses.replace(start, tokens=(start.tokens + 1) % V, state=start.state)]
        apart = [dataclasses.replace(canvas, state=None) for canvas in pair]
        for _ in range(6):
            pair = [sampler.step(denoiser, canvas) for canvas in pair]
            apart = [sampler.step(denoiser, canvas) for canvas in apart]
            for one, other in zip(pair, apart, strict=True):
                torch.testing.assert_close(one.confidence, other.confidence, equal_nan=True, rtol=1e-4, atol=1e-6)
                assert torch.equal(one.tokens, other.tokens)


def test_no_layer_of_a_step_waits_for_the_device() -> None:
    from torch.profiler import ProfilerActivity, profile

    def waits(layers: int) -> int:
        """Numbers that a step fetches from the device."""
        sampler, _ = made("autoregressive")
        denoiser = lively(Denoiser(small(attention="causal", num_layers=layers), V))
        canvas = sampler.start(Canvas.blank([PROMPTS[0]], [12], seed=0, steps=1))
        with torch.no_grad():
            canvas = sampler.step(denoiser, sampler.step(denoiser, canvas))
            with profile(activities=[ProfilerActivity.CPU]) as profiled:
                sampler.step(denoiser, canvas)
        return sum(event.count for event in profiled.key_averages() if event.key == "aten::_local_scalar_dense")

    assert 0 < waits(1) == waits(6)


def test_a_call_computes_one_token_however_long_the_text_is() -> None:
    """With kept keys and values each call computes one slot; the texts are those of a network that keeps nothing."""
    sampler, cached = made("autoregressive")
    forgetful = Watched(cached.denoiser, caches=False)
    draw = {"num": 8, "length": 40, "steps": 1, "seed": 5, "prompt": torch.tensor([3, 1, 4])}
    kept, recomputed = sampler.sample(cached, **draw), sampler.sample(forgetful, **draw)  # type: ignore[arg-type]
    assert torch.equal(kept.tokens, recomputed.tokens)
    assert cached.shapes == [(8, 4), *[(8, 1)] * 36]
    assert forgetful.shapes == [(8, n) for n in range(4, 41)]
    assert kept.nfe.tolist() == recomputed.nfe.tolist() == [37] * 8
    assert set(kept.slots.tolist()) == {40}
    assert set(recomputed.slots.tolist()) == {sum(range(4, 41))}


def test_a_row_ends_with_its_text_and_costs_no_more() -> None:
    sampler, denoiser = made("autoregressive")
    draw = {"num": 40, "length": 30, "steps": 1, "seed": 2}
    whole, ended = sampler.sample(denoiser, **draw), sampler.sample(denoiser, **draw, end_of_text=True)  # type: ignore[arg-type]
    assert len(set(ended.lengths.tolist())) > 5
    for full, text, length, calls in zip(whole.tokens, ended.tokens, ended.lengths, ended.nfe, strict=True):
        first = int((full == EOS).float().argmax()) if bool((full == EOS).any()) else 30
        assert int(length) == first
        assert int(calls) == min(first + 1, 30)
        assert torch.equal(text[:first], full[:first])
        assert bool((text[first:] == EOS).all())


@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
def test_a_diffusion_text_ends_at_its_first_end_of_text_when_all_is_settled(kind: str) -> None:
    sampler, denoiser = made(kind)
    draw = {"num": 20, "length": 12, "steps": 5, "seed": 2}
    whole, ended = sampler.sample(denoiser, **draw), sampler.sample(denoiser, **draw, end_of_text=True)  # type: ignore[arg-type]
    for full, length in zip(whole.tokens, ended.lengths, strict=True):
        assert int(length) == (int((full == EOS).float().argmax()) if bool((full == EOS).any()) else 12)


@each_kind
def test_a_constraint_decides_what_may_be_drawn(kind: str) -> None:
    sampler, denoiser = made(kind)
    draw = {"num": 30, "length": 10, "steps": 6, "seed": 0}
    free = sampler.sample(denoiser, **draw).tokens  # type: ignore[arg-type]
    held = sampler.sample(denoiser, **draw, constraints=[ForbiddenTokens([0, 4])]).tokens  # type: ignore[arg-type]
    assert {0, 4} <= set(free.flatten().tolist())
    assert not {0, 4} & set(held.flatten().tolist())


CLEAN = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def knows(states: int) -> FromLogits:
    """A network that predicts ``CLEAN`` at every position, whatever stands there."""
    logits = torch.cat([CLEAN.log(), torch.zeros(states - 3, dtype=torch.float64)])
    return FromLogits(lambda tokens, level: logits.expand(*tokens.shape, -1))


@pytest.mark.parametrize("kind", ["uniform", "absorbing", "hybrid", "mixture"])
def test_a_constraint_acts_on_the_predicted_tokens_and_noise_keeps_its_schedule(kind: str) -> None:
    process = build_process(kind, "linear", 3)
    sampler = SAMPLERS.build("ancestral", {}, process=process, vocabulary=Vocabulary(3, EOS))
    shape = ([torch.tensor([], dtype=torch.int64)] * 500, [20] * 500)
    films = [
        list(generate(sampler, knows(process.num_states), Canvas.blank(*shape, seed=0, steps=4, constraints=held)))
        for held in ((), (ForbiddenTokens([0]),))
    ]
    if process.mask_id is not None:
        for free, held in zip(*films, strict=True):
            masked = [float((canvas.tokens == process.mask_id).double().mean()) for canvas in (free, held)]
            assert masked[1] == pytest.approx(masked[0], abs=0.02)  # 10,000 positions: four standard errors
    assert not bool((films[1][-1].tokens == 0).any())
    assert chi_square(films[0][-1].tokens.flatten(), CLEAN) > 1e-3
    assert chi_square(films[1][-1].tokens.flatten(), torch.tensor([0.0, 0.6, 0.4], dtype=torch.float64)) > 1e-3


@pytest.mark.parametrize("kind", [*KINDS, "hybrid"])
def test_a_constraint_leaves_alone_what_is_given(kind: str) -> None:
    """A prompt may hold what must not be written; a row that ends earlier may have nothing allowed behind its end."""
    sampler, denoiser = made(kind)
    prompt = torch.tensor([4, 0])

    def only_early(probs: Tensor, canvas: Canvas, positions: Tensor) -> Tensor:
        late = (positions >= 5) & (canvas.lengths[:, None] <= 5)
        return torch.where(late.unsqueeze(-1), 0.0, ForbiddenTokens([0, 4])(probs, canvas, positions))

    canvas = Canvas.blank([prompt, prompt], [9, 5], seed=0, steps=4, constraints=[only_early])
    final = last(generate(sampler, denoiser, canvas))
    assert torch.equal(final.tokens[:, :2], prompt.expand(2, 2))
    assert not {0, 4} & set(final.tokens[0, 2:].tolist()) | {0, 4} & set(final.tokens[1, 2:5].tolist())


def test_a_token_behind_absorbing_noise_stays_whatever_a_constraint_says_later() -> None:
    sampler, denoiser = made("absorbing")

    def moody(probs: Tensor, canvas: Canvas, positions: Tensor) -> Tensor:
        return ForbiddenTokens([0, 1, 2] if canvas.age % 2 else [3, 4, 5])(probs, canvas, positions)

    canvas = Canvas.blank(PROMPTS, LENGTHS, seed=0, steps=6, constraints=[moody])
    films = list(generate(sampler, denoiser, canvas))
    for before, after in itertools.pairwise(films):
        written = before.tokens < V
        assert torch.equal(after.tokens[written], before.tokens[written])


def test_a_constraint_sees_the_canvas_and_the_positions_of_the_draw() -> None:
    """One that depends on what stands: a token differs from its left neighbour."""
    sampler, denoiser = made("autoregressive")

    def differs(probs: Tensor, canvas: Canvas, positions: Tensor) -> Tensor:
        (position,) = positions.tolist()
        if position == 0:
            return probs
        return probs.scatter(-1, canvas.tokens[:, position - 1].view(-1, 1, 1), 0.0)

    tokens = sampler.sample(denoiser, num=20, length=15, steps=1, seed=0, constraints=[differs]).tokens
    assert bool((tokens[:, 1:] != tokens[:, :-1]).all())


def test_what_nothing_may_follow_is_an_error() -> None:
    sampler, denoiser = made("uniform")
    with pytest.raises(ValueError, match="NaN or all zero"):
        sampler.sample(denoiser, num=1, length=4, steps=2, seed=0, constraints=[ForbiddenTokens(range(V))])


def test_as_many_prompts_and_lengths_as_texts() -> None:
    sampler, denoiser = made("uniform")
    with pytest.raises(ValueError, match="3 texts need as many lengths and prompts, got 2 and 3"):
        sampler.sample(denoiser, num=3, length=[4, 5], steps=2, seed=0)
