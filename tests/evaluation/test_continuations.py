"""What texts cost behind a context: exact against enumeration, the same in any company, shared noise, windows."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sumi_core.corruption import CLOCKS
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation.continuations import Continuation, Window, half_differences, read_windows, windows
from sumi_core.layouts import LAYOUTS
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserInput, DenoiserOutput, FromLogits
from sumi_core.objectives import OBJECTIVES
from sumi_core.objectives.likelihood import Bound, ChainRule, Given
from tests.corruption.enumerable import World, build_process
from tests.models.stock import STATES, lively, small
from tests.objectives.worlds import batch_of, told_posterior

EOS = 0


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def window(context: list[int], new: list[int], address: int = 7) -> Window:
    return Window(ids(*context), ids(*new), address)


def exact_denoiser(world: World) -> FromLogits:
    """Reads one level for all tokens, or one for each."""

    def logits(z: Tensor, level: Tensor | None) -> Tensor:
        assert level is not None
        return told_posterior(world, z, level if level.ndim > 1 else level[:, None])

    return FromLogits(logits)


@pytest.mark.parametrize("clock", ["shared", "spans"])
@pytest.mark.parametrize("process", ["uniform", "absorbing", "clustered", "absorbing_uniform"])
def test_with_the_exact_denoiser_the_bound_behind_a_context_is_that_of_the_conditional_world(
    process: str, clock: str
) -> None:
    """Draw by draw, that of p(y | c) where this is a world of its own, whose bound other tests show to be tight."""
    world, own = World(process, tokens=3, length=4, seed=2), World(process, tokens=3, length=2)
    context = [1, 2]
    begins = (world.x[:, :2] == torch.tensor(context)).all(-1)
    own.p = world.p[begins] / world.p[begins].sum()
    for one in (world, own):
        one.process.clock = CLOCKS.build(clock, {})
    y = own.x
    plain = batch_of(y)
    wanted = Bound(own.process).by_position(exact_denoiser(own), plain, 1e-3)
    beside = dataclasses.replace(plain, tokens=torch.cat([torch.tensor([context]).expand(len(y), -1), y], 1))
    given = Given(torch.full((len(y),), 2), torch.full((len(y),), 4), told=True)
    found = Bound(world.process).by_position(exact_denoiser(world), beside, 1e-3, given)
    assert (found[:, :2] == 0).all()
    torch.testing.assert_close(found[:, 2:], wanted, rtol=1e-9, atol=1e-9)


def test_a_context_that_the_network_takes_for_noise_makes_the_bound_looser_except_under_masks() -> None:
    """KL(p(y|c) ‖ p_θ(y|c)) ≥ 0 on average over y, estimated from the same noise with and without the levels."""

    def price(process: str) -> tuple[float, float]:
        world = World(process, tokens=3, length=2, seed=5)
        asked = [window([c], [y], c) for c, y in itertools.product(range(3), repeat=2)]
        told, blind = (
            read_windows(
                Bound(world.process), exact_denoiser(world), asked, draws=256, width=2, epsilon=1e-3, seed=1, told=told
            )
            for told in (True, False)
        )
        gaps = [
            chance * (two.nats - one.nats).sum(1)
            for chance, one, two in zip(world.p.tolist(), told, blind, strict=True)
        ]
        # The texts behind one context share their noise, so their errors add up before they are squared.
        halves = [half_differences(sum(gaps[3 * c : 3 * c + 3]), told[3 * c].time) for c in range(3)]
        return float(sum(gaps).mean()), math.sqrt(sum(float((part**2).sum()) for part in halves))

    assert price("absorbing") == pytest.approx((0.0, 0.0), abs=1e-12)
    value, error = price("uniform")
    assert value > 4 * error > 0


def causal() -> Denoiser:
    return lively(Denoiser(small(attention="causal"), STATES))


def test_an_exact_likelihood_behind_a_context_is_a_difference_of_two_texts() -> None:
    denoiser, reading = causal(), ChainRule(STATES, EOS)
    context, new = [3, 5, 8, 2], [9, 9, 1]

    def cost(context: list[int], new: list[int], **more: bool) -> Continuation:
        return read_windows(reading, denoiser, [window(context, new)], draws=8, width=16, epsilon=1e-3, seed=1, **more)[
            0
        ]

    found = cost(context, new)
    assert found.nats.shape == (1, 3)
    assert found.mc_stderr == 0
    assert found.total == pytest.approx(cost([], context + new).total - cost([], context).total, rel=1e-5)
    assert found.greedy is None
    written = context[:]
    for _ in range(3):
        shown = torch.tensor([[EOS, *written]])
        written.append(int(denoiser(DenoiserInput(shown)).logits()[0, -1].argmax()))
    assert cost(context, written[4:], greedy=True).greedy is True
    assert cost(context, [*written[4:6], (written[6] + 1) % STATES], greedy=True).greedy is False


def bounds() -> list[tuple[str, Bound, Denoiser, bool]]:
    told = small(time_conditioning="token")
    blocks = LAYOUTS.build("blocks", {"length": 4})
    found = []
    for name, layout, config, is_told in (
        ("one level", None, small(time_conditioning="adaln"), False),
        ("told", None, told, True),
        ("blocks", blocks, small(attention="causal"), False),
    ):
        process = build_process("uniform", num_tokens=STATES)
        denoiser = lively(Denoiser(config, STATES))
        found.append((name, Bound(process, layout, EOS), denoiser, is_told))
    return found


@pytest.mark.parametrize(("reading", "denoiser", "told"), [case[1:] for case in bounds()], ids=[c[0] for c in bounds()])
def test_a_window_costs_the_same_in_any_company(reading: Bound, denoiser: Denoiser, told: bool) -> None:
    asked = [window([1, 2, 3, 4], [5, 6, 7], 1), window([], [9, 8, 7, 6, 5, 4], 2), window([3] * 8, [2, 2], 3)]

    def read(some: list[Window]) -> list[Continuation]:
        return read_windows(reading, denoiser, some, draws=5, width=12, epsilon=1e-3, seed=4, told=told)

    together = read(asked)
    for own, continuation in zip(asked, together, strict=True):
        [alone] = read([own])
        np.testing.assert_allclose(continuation.nats, alone.nats, rtol=2e-4, atol=1e-5)
        np.testing.assert_array_equal(continuation.time, alone.time)
        spread = np.sort(continuation.time)
        np.testing.assert_allclose(np.diff(spread), 1 / 5, atol=1e-9)
    assert len({float(continuation.time[0]) for continuation in together}) == 3, "each has levels of its own"


def test_without_a_context_it_is_the_bound_of_the_text() -> None:
    _, reading, denoiser, _ = bounds()[0]
    batch = batch_of(torch.randint(0, STATES, (3, 6), generator=torch.Generator().manual_seed(0)))
    given = Given(torch.zeros(3, dtype=torch.int64), torch.full((3,), 6))
    plain = reading.by_position(denoiser, batch, 1e-3)
    torch.testing.assert_close(reading.by_position(denoiser, batch, 1e-3, given), plain, rtol=0, atol=0)


def test_options_of_one_question_share_levels_and_noise() -> None:
    """Two options of different lengths: the same noise falls on the tokens that both have, so that what they share
    costs both the same where the network sees nothing else."""
    seen: list[Tensor] = []

    def blind(given: DenoiserInput) -> DenoiserOutput:
        seen.append(given.tokens)
        return FromLogits(lambda z, level: torch.zeros(*z.shape, STATES))(given)

    process = build_process("uniform", num_tokens=STATES)
    options = [window([1, 2], [5, 6, 7]), window([1, 2], [5, 6, 7, 8, 9, 10]), window([1, 2], [5, 6, 7], 8)]
    one, two, other = read_windows(Bound(process), blind, options, draws=6, width=12, epsilon=1e-3, seed=1)
    np.testing.assert_array_equal(one.time, two.time)
    np.testing.assert_allclose(one.nats, two.nats[:, :3], rtol=1e-6)
    assert not np.allclose(one.nats, other.nats)
    assert all(bool((tokens[:, :2] == torch.tensor([1, 2])).all()) for tokens in seen), "the context stays clean"


def test_windows_read_every_token_once_behind_enough_context() -> None:
    for context, new, length, overlap in itertools.product((0, 3, 20), (1, 7, 30), (8, 13), (0, 1, 5, 7)):
        found = windows(np.arange(context), 100 + np.arange(new), "key", length=length, overlap=overlap)
        assert np.concatenate([own.new for own in found]).tolist() == (100 + np.arange(new)).tolist()
        text, at = [*range(context), *(100 + np.arange(new))], context
        for own in found:
            assert own.length <= length
            assert own.context.tolist() == text[at - len(own.context) : at]
            assert len(own.context) >= min(at, overlap)
            at += len(own.new)
        assert len({own.address for own in found}) == len(found)
    with pytest.raises(ValueError, match="leaves nothing to read in 8; give at most 7"):
        windows(ids(), ids(1), "key", length=8, overlap=8)


def test_half_differences_have_the_variance_of_the_strata() -> None:
    """Var of the mean = Σ_pairs (a − b)²/K², and for a stratum of three 3·s²/K² with s² of two degrees of freedom."""
    values, time = np.array([4.0, 1.0, 7.0, 3.0, 8.0]), np.array([0.9, 0.1, 0.5, 0.3, 0.7])
    ordered = [1.0, 3.0, 7.0, 8.0, 4.0]
    wanted = (ordered[0] - ordered[1]) ** 2 / 25 + 3 * np.var(ordered[2:], ddof=1) / 25
    assert float((half_differences(values, time) ** 2).sum()) == pytest.approx(wanted)
    assert float((half_differences(values[:4], time[:4]) ** 2).sum()) == pytest.approx((2**2 + 3**2) / 16)
    assert half_differences(values[:1], time[:1]).size == 0


def test_the_chain_rule_in_an_order_takes_no_context() -> None:
    from sumi_core.objectives.orders import InOrder

    process = build_process("absorbing", num_tokens=STATES)
    reading = InOrder(process, "left_to_right")
    given = Given(torch.tensor([1]), torch.tensor([3]))
    with pytest.raises(ValueError, match="give it no context"):
        reading.by_position(
            FromLogits(lambda z, level: torch.zeros(1)), batch_of(torch.tensor([[1, 2, 3]])), 0.1, given
        )
    assert OBJECTIVES.build("autoregressive", {}, process=None, vocabulary=Vocabulary(STATES, EOS)).reading.exact
