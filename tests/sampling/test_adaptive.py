"""Blocks written by a rule: rows in any company, their cost, prompts, constraints, and what the network is told."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sumi_core.corruption import PARAMETERISATIONS
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserInput, FromLogits
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.constraints import ForbiddenTokens
from sumi_core.sampling.generate import generate
from sumi_core.sampling.rules import Reading
from sumi_core.sampling.sampler import Sampler
from tests.corruption.enumerable import build_process
from tests.layouts.exact import blocks
from tests.models.stock import lively, small
from tests.sampling.test_generate import EOS, LENGTHS, PROMPTS, V, Watched, last

RULES: list[tuple[str, dict[str, Any]]] = [
    ("entropy_bound", {}),
    ("entropy_bound", {"entropy_bound": 1.5, "confidence": 0.9, "t_min": 0.2}),
    ("entropy_bound", {"entropy_bound": 2.0, "confidence": 0.8, "stability": 0}),
    ("threshold", {}),
    ("threshold", {"threshold": 0.45}),
]
rules = pytest.mark.parametrize(("name", "options"), RULES, ids=str)
read_outs = pytest.mark.parametrize("read_out", ["own", "previous"])
noises = pytest.mark.parametrize("noise", ["uniform", "absorbing"])


def made(name: str, options: dict[str, Any], read_out: str, noise: str, **model: Any) -> tuple[Sampler, Watched]:
    process = build_process(noise, "linear", V)
    network = lively(Denoiser(small(attention="causal", **model), process.num_states)).double()
    context = {"process": process, "vocabulary": Vocabulary(V, EOS), "layout": blocks(4, read_out)}
    sampler: Sampler = SAMPLERS.build(name, options, **context)
    return sampler, Watched(network)


@rules
@read_outs
@noises
@pytest.mark.parametrize("caches", [True, False])
def test_a_row_is_the_same_text_in_any_company(
    caches: bool, noise: str, read_out: str, name: str, options: dict[str, Any]
) -> None:
    """Rows that are done with a block wait for the others, unchanged and at no cost."""
    sampler, denoiser = made(name, options, read_out, noise)
    denoiser.caches = caches
    together = last(generate(sampler, denoiser, Canvas.blank(PROMPTS, LENGTHS, seed=3, steps=6)))
    for row, (prompt, length) in enumerate(zip(PROMPTS, LENGTHS, strict=True)):
        alone = last(generate(sampler, denoiser, Canvas.blank([prompt], [length], seed=3, steps=6, rows=[row])))
        assert torch.equal(alone.tokens[0], together.tokens[row, :length])
        torch.testing.assert_close(alone.confidence[0], together.confidence[row, :length], equal_nan=True)
        written = -(-length // 4) - len(prompt) // 4
        assert written <= int(alone.nfe) == int(together.nfe[row]) <= 6 * written
        assert int(alone.slots) == int(together.slots[row]) > 0
        assert torch.equal(together.tokens[row, : len(prompt)], prompt)
        assert bool((together.tokens[row, :length] < V).all())


def test_rows_stop_at_different_steps() -> None:
    """Else the test above would say nothing of waiting."""
    for name, options in (RULES[1], RULES[4]):
        sampler, denoiser = made(name, options, "own", "uniform")
        nfe = sampler.sample(denoiser, num=12, length=8, steps=6, seed=3).nfe
        assert len(set(nfe.tolist())) > 2
        assert int(nfe.min()) < 12


@rules
def test_a_canvas_steps_alike_however_often_and_the_film_only_grows(name: str, options: dict[str, Any]) -> None:
    sampler, denoiser = made(name, options, "own", "uniform")
    canvas = sampler.start(Canvas.blank(PROMPTS, LENGTHS, seed=3, steps=3))
    with torch.no_grad():
        while not bool(sampler.finished(canvas).all()):
            once = sampler.step(denoiser, canvas)
            sampler.step(denoiser, once)
            again = sampler.step(denoiser, canvas)
            assert torch.equal(again.tokens, once.tokens)
            assert torch.equal(again.slots, once.slots)
            for row, settled in enumerate(sampler.settled(canvas).tolist()):
                assert torch.equal(once.tokens[row, :settled], canvas.tokens[row, :settled])
            canvas = once


@rules
@noises
def test_what_is_given_stands_and_constraints_hold(noise: str, name: str, options: dict[str, Any]) -> None:
    sampler, denoiser = made(name, options, "previous", noise)
    tokens = torch.tensor([[5, 0, 0, 1, 0, 3], [0, 4, 4, 0, 0, 0]])
    frozen = torch.tensor([[1, 0, 0, 1, 0, 1], [0, 1, 1, 0, 0, 0]], dtype=torch.bool)
    free = list(generate(sampler, denoiser, Canvas.of(tokens, frozen, seed=0, steps=4)))[-1]
    forbidden = int(free.tokens[0, 1])
    held = Canvas.of(tokens, frozen, seed=0, steps=4, constraints=[ForbiddenTokens([forbidden])])
    canvases = list(generate(sampler, denoiser, held))
    assert all(torch.equal(canvas.tokens[frozen], tokens[frozen]) for canvas in canvases)
    assert not bool((canvases[-1].tokens[~frozen] == forbidden).any())
    confidence = canvases[-1].confidence
    assert bool(confidence[frozen].isnan().all())
    assert bool(((confidence > 0) & (confidence <= 1))[~frozen].all())
    with pytest.raises(ValueError, match="NaN or all zero"):
        sampler.sample(denoiser, num=1, length=4, steps=2, seed=0, constraints=[ForbiddenTokens(range(V))])


@rules
def test_a_text_ends_at_its_end_of_text(name: str, options: dict[str, Any]) -> None:
    sampler, denoiser = made(name, options, "own", "uniform")
    asked = {"num": 60, "length": 10, "steps": 3, "seed": 0}
    whole, ended = sampler.sample(denoiser, **asked), sampler.sample(denoiser, **asked, end_of_text=True)  # type: ignore[arg-type]
    assert bool((ended.lengths < 10).any())
    for full, text, length in zip(whole.tokens, ended.tokens, ended.lengths.tolist(), strict=True):
        assert torch.equal(text[:length], full[:length])
        assert length == 10 or int(full[length]) == EOS


def test_the_network_is_told_how_much_of_the_block_is_accepted() -> None:
    sampler, _ = made("threshold", {"threshold": 1.0}, "own", "uniform")
    told: list[Any] = []

    def unsure(given: DenoiserInput) -> Any:
        told.append(None if given.level is None else given.level[0, -4:].tolist())
        logits = torch.tensor([1.0, 0, 0, 0, 0, 0], dtype=torch.float64)
        return FromLogits(lambda tokens, level: logits.expand(*tokens.shape, -1))(given)

    sampler.sample(unsure, num=1, length=4, steps=4, seed=0)
    # α = 1 − t, and a quarter more is accepted in every step.
    assert told == [[1.0] * 4, [0.75] * 4, [0.5] * 4, [0.25] * 4]


@pytest.mark.parametrize("noise", ["uniform", "hybrid"])
def test_what_is_accepted_last_is_revised_though_all_is_accepted(noise: str) -> None:
    """With a posterior that does not change, the sampler is its rule: same draws, same calls, and what it emits is the
    most probable token, not the one that was drawn."""
    process = build_process(noise, "linear", V)
    process.parameterisation = PARAMETERISATIONS.build("posterior", {})
    logits = torch.full((4, process.num_states), -torch.inf, dtype=torch.float64)
    logits[:, :V] = -30.0
    logits[[0, 1, 2], [4, 2, 1]], logits[3, 0], logits[3, 3] = 30.0, math.log(0.58), math.log(0.42)
    first = logits[:1]  # of whatever stands before the block
    network = FromLogits(
        lambda tokens, level: torch.cat([first.expand(tokens.shape[1] - 4, -1), logits]).expand(len(tokens), -1, -1)
    )
    context = {"process": process, "vocabulary": Vocabulary(V, EOS), "layout": blocks(4, "own")}
    sampler: Any = SAMPLERS.build("entropy_bound", {}, **context)
    told: list[list[float]] = []

    class Recorded(type(sampler.writer.rule)):  # type: ignore[misc]
        def read(self, given: torch.Tensor, *rest: Any) -> Reading:
            told.append(given.softmax(-1)[0, 3, [0, 3]].tolist())
            return super().read(given, *rest)

    sampler.writer.rule = Recorded(**vars(sampler.writer.rule))
    found = sampler.sample(network, num=50, length=4, steps=6, seed=0)
    assert found.tokens.tolist() == [[4, 2, 1, 0]] * 50
    assert found.nfe.tolist() == [6] * 50, "a place with two tokens is never sure"
    assert told == [pytest.approx([0.58, 0.42])] * 6


@noises
def test_a_sure_network_needs_a_call_and_one_to_see_that_it_is_stable(noise: str) -> None:
    process = build_process(noise, "linear", V)
    sure = torch.tensor([0.0, 0, 0, 30, 0, 0] + [0.0] * (process.num_states - V), dtype=torch.float64)
    network = FromLogits(lambda tokens, level: sure.expand(*tokens.shape, -1))
    for name, calls in (("entropy_bound", 2), ("threshold", 1)):
        sampler, _ = made(name, {}, "own", noise)
        found = sampler.sample(network, num=3, length=8, steps=48, seed=0)
        assert found.tokens.tolist() == [[3] * 8] * 3
        assert found.nfe.tolist() == [2 * calls] * 3
