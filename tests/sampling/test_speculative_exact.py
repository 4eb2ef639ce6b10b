"""Speculation by rejection, enumerated: every draw of the sampler's own code comes out in every way."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from sumi_core.corruption.categorical import draw_categorical
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.acceptance import agreement, overlap, standing, tokens_per_forward
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.drafting import Standing
from sumi_core.sampling.speculative import Speculative
from sumi_core.sampling.verification import by_rejection
from tests.corruption.enumerable import World
from tests.layouts.exact import blocks
from tests.sampling.two_modes import branched, chain_rule, distribution, started, two_modes

SHAPES: list[dict[str, Any]] = [
    {"shape": "linear", "width": 2},
    {"shape": "linear", "width": 3},
    {"shape": "linear", "width": 3, "draft_steps": 2},
    {"shape": "linear", "width": 3, "recycle": True},
    {"shape": "fan", "width": 1},
]
LARGE: list[dict[str, Any]] = [  # where noise is of one kind
    {"shape": "linear", "width": 4, "draft_steps": 3},
    {"shape": "fan", "width": 2, "recycle": True},
]
ALIKE = torch.tensor([0.45, 0.02, 0.01, 0.02, 0.02, 0.01, 0.02, 0.45], dtype=torch.float64)  # all tokens of a text
CASES = [("uniform", shape) for shape in SHAPES] + [("absorbing", shape) for shape in SHAPES + LARGE]


def build(world: World, read_out: str, **options: Any) -> Speculative:
    context = {"process": world.process, "vocabulary": Vocabulary(world.tokens, 0), "layout": blocks(2, read_out)}
    sampler: Speculative = SAMPLERS.build("speculative", {"verify": "rejection", **options}, **context)
    return sampler


def worlds(noise: str, length: int = 3) -> tuple[World, World]:
    """What the two modes know; the drafts are wrong in more than their independence."""
    return World(noise, tokens=2, length=length, seed=1), World(noise, tokens=2, length=length, seed=2)


def variation(p: Tensor, q: Tensor) -> float:
    return float((p - q).abs().sum() / 2)


@pytest.mark.parametrize(
    ("noise", "shape"), CASES, ids=lambda part: "-".join(map(str, part.values())) if isinstance(part, dict) else part
)
@pytest.mark.parametrize("read_out", ["own", "previous"])
def test_rejection_draws_from_the_autoregressive_mode(read_out: str, noise: str, shape: dict[str, Any]) -> None:
    causal, drafts = worlds(noise)
    found = distribution(build(causal, read_out, **shape), two_modes(causal, drafts, read_out == "own"), causal)
    assert variation(found, causal.p) < 1e-12
    assert variation(causal.p, drafts.p) > 0.2


def written(causal: World, temperature: float, given: dict[int, int]) -> Tensor:
    """What left-to-right decoding writes, ``[M]``: Π_i softmax(log p(· | x_{<i}) / T) at x_i, the tokens ``given``
    standing where they are, whatever precedes them."""
    found = torch.ones(len(causal.x), dtype=torch.float64)
    for i in range(causal.length):
        if i in given:
            found *= causal.x[:, i] == given[i]
        else:
            p = (chain_rule(causal, causal.x, i).log() / temperature).softmax(-1)
            found *= p.gather(-1, causal.x[:, i : i + 1])[:, 0]
    return found


@pytest.mark.parametrize("given", [{}, {1: 1}], ids=["empty", "one_given"])
@pytest.mark.parametrize("shape", SHAPES[1:], ids=lambda shape: "-".join(map(str, shape.values())))
def test_rejection_writes_at_a_temperature_and_around_what_is_given(
    shape: dict[str, Any], given: dict[int, int]
) -> None:
    causal, drafts = worlds("absorbing" if shape["shape"] == "fan" else "uniform")
    denoiser, wanted = two_modes(causal, drafts, True), written(causal, 0.7, given)
    found = distribution(build(causal, "own", temperature=0.7, **shape), denoiser, causal, given=given)
    assert variation(found, wanted) < 1e-12
    assert variation(wanted, written(causal, 1.0, given)) > 0.02
    if given:  # at temperature 1 too
        found = distribution(build(causal, "own", **shape), denoiser, causal, given=given)
        assert variation(found, written(causal, 1.0, given)) < 1e-12


@pytest.mark.parametrize("draft", range(3))
def test_a_draft_that_was_certain_stands_with_its_own_probability(draft: int) -> None:
    """An argmax has d = δ: it is accepted with p(y), else replaced by p without it. Over all pairs of uniform numbers,
    as a grid that every probability divides."""
    p = torch.tensor([[0.5, 0.125, 0.375], [0.25, 0.625, 0.125]], dtype=torch.float64)
    cells = 8 * 5 * 7  # 1 − p(y) is 4, 7 or 5 eighths
    grid = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    uniform, count = torch.cartesian_prod(grid, grid), cells**2
    d = torch.eye(3, dtype=torch.float64)[draft].expand(count, 1, 3)
    verdict = by_rejection(p.expand(count, 2, 3), d, torch.full((count, 1), draft), uniform)
    stands = verdict.accepted == 1
    first = torch.where(stands, draft, verdict.token).bincount(minlength=3).double() / count
    torch.testing.assert_close(first, p[0], rtol=0, atol=1e-12)
    assert float(stands.double().mean()) == pytest.approx(float(p[0, draft]), abs=1e-12)
    then = verdict.token[stands].bincount(minlength=3).double() / stands.sum()
    torch.testing.assert_close(then, p[1], rtol=0, atol=1e-12)


def with_marginals(canvas: Canvas) -> Canvas:
    """The usual mistake: a draft is judged by its distribution over all noise, not by that of the noise it came from.
    Rows of one history have had every noise, each equally often."""
    state = canvas.state
    assert isinstance(state, Standing)
    if not state.drafted or not len(canvas.tokens):
        return canvas
    history = torch.cat([state.settled[:, None], canvas.tokens], 1)
    _, group = history.unique(dim=0, return_inverse=True)
    total = torch.zeros(int(group.max()) + 1, *state.chances.shape[1:], dtype=torch.float64)
    mean = total.index_add(0, group, state.chances) / group.bincount()[:, None, None]
    return dataclasses.replace(canvas, state=dataclasses.replace(state, chances=mean[group]))


def test_judging_drafts_by_their_marginals_is_biased() -> None:
    causal, drafts = worlds("uniform")
    drafts.p = ALIKE
    sampler, denoiser = build(causal, "own", width=3), two_modes(causal, drafts, True, trusts=0.95)
    assert variation(distribution(sampler, denoiser, causal), causal.p) < 1e-12
    assert variation(distribution(sampler, denoiser, causal, with_marginals), causal.p) > 0.01


@pytest.mark.parametrize("shape", ["linear", "fan"])
def test_acceptance_and_tokens_of_a_pass_are_those_of_the_formula(shape: str) -> None:
    """P_j = E_z Σ_y Π_{i≤j} min(p_i(y_i | y_{<i}), d_i(y_i | z)), and what follows from it."""
    causal, drafts = worlds("uniform", length=4)
    width = 3 if shape == "linear" else 2
    sampler, denoiser = build(causal, "own", shape=shape, width=width), two_modes(causal, drafts, True)
    drafted = branched(sampler, denoiser, started(sampler, 4))
    state = drafted.canvas.state
    assert isinstance(state, Standing)
    assert state.drafted == 2
    assert bool((state.settled == 1).all()), "one token for certain"
    sampler.drafting = dataclasses.replace(sampler.drafting, fan=False)  # what it drafts then is not looked at
    looked = branched(sampler, denoiser, drafted)
    accepted = looked.canvas.state.settled - 2
    shares = [float(looked.weight[accepted >= j].sum()) for j in (1, 2)]

    wanted = [0.0, 0.0]
    p_of = [chain_rule(causal, drafted.canvas.tokens, 1)]
    for first in range(2):
        text = drafted.canvas.tokens.clone()
        text[:, 1] = first
        p_of.append(chain_rule(causal, text, 2))
    # The drafts of a row were drawn from its chances: take them out of its weight again.
    drawn = state.chances.gather(-1, state.drafts[..., None])[..., 0].prod(-1)
    for row, weight in enumerate((drafted.weight / drawn).tolist()):
        if state.drafts[row].tolist() != [0, 0]:  # each noise and first token once
            continue
        d = state.chances[row]
        for y in range(2):
            stands = float(torch.minimum(p_of[0][row, y], d[0, y]))
            wanted[0] += weight * stands
            wanted[1] += weight * stands * float(overlap(p_of[1 + y][row], d[1]))
    assert shares == pytest.approx(wanted, abs=1e-12)
    passes = 2 if shape == "linear" else 1
    mean = float((looked.weight * (looked.canvas.state.settled - (2 - passes))).sum()) / passes
    assert mean == pytest.approx(tokens_per_forward(shape, wanted), abs=1e-12)


@pytest.mark.parametrize("noise", ["uniform", "absorbing"])
def test_noise_that_tokens_are_drafted_from_costs_agreement_unless_it_is_of_one_kind(noise: str) -> None:
    """E_z Σ min(p, d_z) ≤ Σ min(p, E_z d_z): what a canvas of random tokens happens to hold is irrelevant and moves its
    drafts away from p; masks hold nothing."""
    causal, drafts = worlds(noise)
    drafts.p = ALIKE
    sampler, denoiser = build(causal, "own", width=3), two_modes(causal, drafts, True, trusts=0.95)
    drafted, lost = branched(sampler, denoiser, started(sampler, 3)), []
    for first in range(2):
        rows = drafted.canvas.tokens[:, 0] == first
        state, weight = drafted.canvas.state, drafted.weight[rows] / drafted.weight[rows].sum()
        assert isinstance(state, Standing)
        p, d = chain_rule(causal, drafted.canvas.tokens[rows], 1), state.chances[rows, 0]
        # A row's weight holds the chance of its own drafts; without it, of every noise.
        noise_weight = weight / state.chances[rows].gather(-1, state.drafts[rows, :, None])[..., 0].prod(-1)
        noise_weight = noise_weight / noise_weight.sum()
        each, together = noise_weight @ overlap(p, d), overlap(p[0], noise_weight @ d)
        lost.append(float(together - each))
    if noise == "uniform":
        assert max(lost) > 1e-3
        assert min(lost) > -1e-12
    else:
        assert lost == pytest.approx([0.0, 0.0], abs=1e-12)


def distributions(count: int, tokens: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    p, d = torch.rand(2, count, tokens, generator=generator, dtype=torch.float64) ** 3
    return p / p.sum(-1, keepdim=True), d / d.sum(-1, keepdim=True)


def test_shared_noise_chooses_the_same_token_as_often_as_the_formula_says() -> None:
    p, d = distributions(5, 6, 0)
    wanted = [sum(1 / float(torch.maximum(p[i] / p[i, v], d[i] / d[i, v]).sum()) for v in range(6)) for i in range(5)]
    found = agreement(p, d)
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))
    stands = overlap(p, d)
    assert bool((found <= stands).all())
    assert bool((found >= stands / (2 - stands)).all())
    uniform = torch.rand(200_000, 1, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gumbel = -(-uniform.log()).log()
    same = ((p.log() + gumbel).argmax(-1) == (d.log() + gumbel).argmax(-1)).double().mean(0)
    torch.testing.assert_close(same, found, atol=0.005, rtol=0)  # over four standard errors


def test_shared_noise_agrees_more_often_than_one_uniform_number_through_both_inverses() -> None:
    """Either draws exactly from p and from d. Along the cumulative sums the same number chooses the same token where
    their pieces lie over each other; on one pair 0.11, against 0.29 by shared noise and 0.35 at best."""
    p, d = distributions(50, 16, 2)
    of_p, of_d = p.cumsum(-1), d.cumsum(-1)
    inverted = (torch.minimum(of_p, of_d) - torch.maximum(of_p - p, of_d - d)).clamp(min=0).sum(-1)
    uniform = ((torch.arange(20_000) + 0.5) / 20_000).double()
    drawn = [draw_categorical(part[36].expand(len(uniform), -1), uniform) for part in (p, d)]
    assert float((drawn[0] == drawn[1]).double().mean()) == pytest.approx(float(inverted[36]), abs=2e-3)
    figures = [inverted[36], agreement(p, d)[36], overlap(p, d)[36]]
    assert [round(float(value), 2) for value in figures] == [0.11, 0.29, 0.35]
    assert float(inverted.mean()) < 0.7 * float(agreement(p, d).mean())


def test_agreement_at_its_ends() -> None:
    p, _ = distributions(3, 5, 2)
    torch.testing.assert_close(agreement(p, p), torch.ones(3, dtype=torch.float64))
    assert agreement(torch.tensor([0.0, 1.0, 0.0]).double(), torch.tensor([0.5, 0.0, 0.5]).double()) == 0
    one = torch.tensor([1.0, 0.0, 0.0]).double()
    assert float(agreement(one, torch.tensor([0.3, 0.7, 0.0]).double())) == pytest.approx(0.3)


@pytest.mark.parametrize("rule", ["rejection", "gumbel"])
def test_how_often_drafts_stand_is_a_mean_along_texts(rule: str) -> None:
    """Σ_x p(x) · standing(x) is the chance of one draft; where drafts of two tokens stand, along texts as by
    enumeration: Σ_y Π min(p, d) under rejection."""
    generator = torch.Generator().manual_seed(4)
    p = torch.rand(6, 5, generator=generator, dtype=torch.float64) ** 3
    d = torch.rand(6, 5, generator=generator, dtype=torch.float64) ** 3
    d[0, 2] = p[1, 3] = 0
    p, d = p / p.sum(-1, keepdim=True), d / d.sum(-1, keepdim=True)
    each = torch.stack([standing(p, d, torch.full((6,), token), rule) for token in range(5)], -1)
    one = overlap(p, d) if rule == "rejection" else agreement(p, d)
    torch.testing.assert_close((p * each).sum(-1), one)
    torch.testing.assert_close(each[1, 3], one[1])
    if rule == "rejection":  # the first token decides which row the second one has
        first, second = (p[0], d[0]), (p[1:], d[1:])
        exact = (torch.minimum(*first) * torch.minimum(*second).sum(-1)).sum()
        along = (first[0] * each[0] * overlap(*second)).sum()
        torch.testing.assert_close(along, exact)
