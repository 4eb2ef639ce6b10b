"""What may be claimed of a likelihood with feedback, by enumeration of all texts, states and paths."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from sumi_core.data.noise import Noise
from sumi_core.models.feedback_layers import mean_embedding
from sumi_core.models.interface import Belief, DenoiserInput, DenoiserOutput, Feedback, FromLogits
from sumi_core.objectives import FEEDBACK_SOURCES
from sumi_core.objectives.feedback import FeedbackSource
from sumi_core.objectives.likelihood import Bound, Given
from tests.corruption.enumerable import World, end_gaps, kernel_of, log_odds_quadrature
from tests.objectives.worlds import batch_of, build, texts

V, L, EPSILON, LAG = 3, 2, 1e-4, 0.3


@dataclass
class Double:
    """A denoiser of an enumerable world that is given feedback as the distribution itself: its embeddings are the
    tokens. without, beside: logits ``[B, L, S]`` of (z, level), and of (z, level, feedback)."""

    without: Callable[[Tensor, Tensor], Tensor]
    beside: Callable[[Tensor, Tensor, Feedback], Tensor]
    takes_feedback = True

    def __call__(self, given: DenoiserInput) -> DenoiserOutput:
        assert given.level is not None
        level = given.level.reshape(-1).expand(len(given.tokens))
        fed = given.feedback
        logits = self.without(given.tokens, level) if fed is None else self.beside(given.tokens, level, fed)
        return FromLogits(lambda tokens, told: logits)(given)

    def feedback(self, belief: Belief) -> Feedback:
        return mean_embedding(belief, torch.eye(V, dtype=torch.float64), "leave_one_out")


def world(name: str = "uniform") -> World:
    return World(name, tokens=V, length=L, seed=2)


def arbitrary(seed: int = 0) -> Double:
    """Networks of no meaning whose predictions depend on all that they are given."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    table, with_table, mixing, slope = numbers(V**L, L, V), numbers(V**L, L, V), 3 * numbers(L * V, L * V), numbers(V)

    def place(z: Tensor) -> Tensor:
        return z[:, 0] * V + z[:, 1]

    def without(z: Tensor, t: Tensor) -> Tensor:
        return table[place(z)] + t[:, None, None] * slope

    def beside(z: Tensor, t: Tensor, fed: Feedback) -> Tensor:
        read = (fed.mean * (1 + fed.weight.unsqueeze(-1))).flatten(1) @ mixing
        return with_table[place(z)] + t[:, None, None] * slope + read.view(-1, L, V).sin()

    return Double(without, beside)


def source_of(name: str, lag: float = LAG) -> FeedbackSource:
    source: FeedbackSource = FEEDBACK_SOURCES.build(name, {"lag": lag} if name == "path" else {})
    return source


def pairs() -> tuple[Tensor, Tensor]:
    """All (z, z′): ``[V^L · V^L, L]`` each."""
    both = torch.tensor(list(itertools.product(range(V), repeat=2 * L)))
    return both[:, :L], both[:, L:]


def fed_logits(
    world: World, denoiser: Any, source: FeedbackSource, t: float, monkeypatch: pytest.MonkeyPatch
) -> Tensor:
    """Leave-one-out logits at every z, given what the platform feeds back where the noisier state is z′."""
    z, later = pairs()
    level = torch.full((1, 1), t, dtype=torch.float64)
    monkeypatch.setattr(world.process, "noise_on", lambda z, t, u, noise: later)
    given = DenoiserInput(z, level.expand(len(z), 1).squeeze(1))
    fed = source.feed(denoiser, lambda d: d, world.process, given, level, Noise(0, "path", 0, [0]))
    return world.process.predict(denoiser, fed, level)


# --- a sampler of three steps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["path", "same"])
def test_three_steps_with_memory_are_a_distribution_and_the_bound_is_above_its_code_lengths(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arbitrary networks: Σ p_θ = 1, and KL + Σ E_path[KL] ≥ −log p_θ(x) for every text, where the sampler at level t
    has at hand what it predicted without feedback one step before."""
    w, denoiser = world(), arbitrary()
    process, times, count = w.process, [0.0, 1 / 3, 2 / 3, 1.0], V**L
    source = source_of(name, lag=1 / 3)
    z, _ = pairs()

    def levels(t: float) -> Tensor:
        return torch.full((1, 1), t, dtype=torch.float64)

    def joint(table: Tensor) -> Tensor:
        """``[.., L, V]`` of independent positions → ``[.., V^L]``."""
        return (table[..., 0, :, None] * table[..., 1, None, :]).flatten(-2)

    steps = []  # p_θ(z_{k−1} | z_k, z_{k+1}): [z_k, z_{k+1}, z_{k−1}]
    for k in (1, 2, 3):
        logits = fed_logits(w, denoiser, source, times[k], monkeypatch)
        steps.append(
            joint(process.reverse(logits, z, levels(times[k]), levels(times[k - 1]))).view(count, count, count)
        )
    start = torch.full((count,), 1 / count, dtype=torch.float64)
    # At the first step z_{k+1} is nothing: `path` has no feedback there, and `same` does not read it.
    assert float((steps[2] - steps[2][:, :1]).abs().max()) == 0
    reached = start[:, None] * steps[2][:, 0]  # [z_3, z_2]
    reached = torch.einsum("ab,bac->bc", reached, steps[1])  # [z_2, z_1]
    p_theta = torch.einsum("bc,cbx->x", reached, steps[0])
    torch.testing.assert_close(p_theta.sum(), torch.ones(()).double(), rtol=0, atol=1e-12)

    kernels = [kernel_of("uniform", V, 1 - torch.tensor(t, dtype=torch.float64)) for t in times]
    to = [
        kernel_of("uniform", V, 1 - torch.tensor(times[k + 1]).double(), since=1 - torch.tensor(times[k]).double())
        for k in range(3)
    ]
    every = w.x

    def transitions(kernel: Tensor) -> Tensor:
        return joint(torch.stack([kernel[every[:, 0]], kernel[every[:, 1]]], 1))  # [from, to]

    q, onwards = [transitions(kernel) for kernel in kernels], [transitions(kernel) for kernel in to]
    bound = torch.zeros(count, dtype=torch.float64)
    for k in (1, 2, 3):
        above = onwards[k] if k < 3 else torch.eye(count, dtype=torch.float64)  # z_4 is nothing
        posterior = q[k - 1][:, None, :] * onwards[k - 1].T[None] / q[k][:, :, None]  # [x, z_k, z_{k−1}]
        gap = torch.xlogy(posterior, posterior).unsqueeze(2) - torch.xlogy(
            posterior.unsqueeze(2), steps[k - 1][None]
        )  # [x, z_k, z_{k+1}, z_{k−1}]
        bound += (q[k][:, :, None] * above[None] * gap.sum(-1)).sum((1, 2))
    assert bool((bound >= -p_theta.log() - 1e-12).all())
    assert float((bound + p_theta.log()).max()) > 1e-3, "a bound of arbitrary networks is not tight"


# --- the tight bound ------------------------------------------------------------------------------------------------


def enumerated(
    w: World, denoiser: Any, source: FeedbackSource, monkeypatch: pytest.MonkeyPatch, *, one_path: bool = True
) -> float:
    """The bound with feedback, averaged over texts and over every z and z′, integrated over t. one_path: z′ is z with
    more noise; else another noising of the text, which no code of ours draws."""
    z, later = pairs()

    def expectation(term: Callable[..., Tensor], t: float) -> float:
        at, beyond = (w.process.schedule.alpha(torch.tensor(u, dtype=torch.float64)) for u in (t, min(t + LAG, 1.0)))
        logits, q = fed_logits(w, denoiser, source, t, monkeypatch), kernel_of(w.name, V, at)
        more = kernel_of(w.name, V, beyond, since=at)[z, later].prod(-1) if one_path else None
        total = 0.0
        for x, p in zip(w.x, w.p, strict=True):
            chance = q[x, z].prod(-1)
            chance = chance * (kernel_of(w.name, V, beyond)[x, later].prod(-1) if more is None else more)
            value = term(logits, x.expand(len(z), L), z, torch.full((1, 1), t, dtype=torch.float64)).sum(-1)
            total += float(p * (chance * value).sum())
        return total

    nodes, weights = log_odds_quadrature(EPSILON, 40)
    diffusion = sum(
        weight * expectation(w.process.bound_integrand, t)
        for t, weight in zip(nodes.tolist(), weights.tolist(), strict=True)
    )
    prior = w.p @ w.process.prior(w.x, torch.full((1, 1), 1 - EPSILON, dtype=torch.float64)).sum(-1)
    return float(diffusion + expectation(w.process.reconstruction, EPSILON) + prior)


def reads_both(w: World) -> Double:
    """The best that can be made of z and of a second state that is taken for another noising of the same text. Its
    first pass predicts the state itself, so that the second pass is told all of it."""

    def without(z: Tensor, t: Tensor) -> Tensor:
        return 60.0 * torch.nn.functional.one_hot(z, V).double()

    def beside(z: Tensor, t: Tensor, fed: Feedback) -> Tensor:
        seen = fed.mean.argmax(-1)
        more = w.evidence(seen, (t + LAG).clamp(max=1.0))  # [B, M, L]
        more = torch.where((fed.mean.sum(-1) > 0)[:, None, :], more, 1.0)
        own = w.evidence(z, t)
        columns = []
        for i in range(L):
            weight = w.p * own[:, :, 1 - i] * more.prod(-1)
            column = torch.zeros(len(z), V, dtype=torch.float64).index_add(1, w.x[:, i], weight)
            columns.append((column / column.sum(-1, keepdim=True)).log())
        return torch.stack(columns, 1)

    return Double(without, beside)


def exact(w: World) -> Double:
    """Reads z alone, exactly: of two states of one path the noisier one says nothing more."""
    return Double(w.denoiser, lambda z, t, fed: w.denoiser(z, t))


@pytest.mark.parametrize("name", ["path", "same"])
def test_with_the_exact_denoiser_feedback_changes_nothing_and_the_bound_is_the_entropy(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = world()
    found = enumerated(w, exact(w), source_of(name), monkeypatch)
    assert found == pytest.approx(w.entropy + sum(end_gaps(w, EPSILON).values()), abs=1e-6)


def test_given_a_state_noisier_ones_of_its_path_tell_nothing_more_and_another_noising_does() -> None:
    w = world()
    at, beyond = torch.tensor(0.6).double(), torch.tensor(0.3).double()
    z, later = pairs()
    q, more = kernel_of("uniform", V, at), kernel_of("uniform", V, beyond, since=at)
    alone = w.p[:, None] * torch.stack([q[x, z].prod(-1) for x in w.x])
    path = alone * more[z, later].prod(-1)
    apart = alone * torch.stack([kernel_of("uniform", V, beyond)[x, later].prod(-1) for x in w.x])
    alone, path, apart = (table / table.sum(0) for table in (alone, path, apart))
    torch.testing.assert_close(path, alone, rtol=0, atol=1e-14)
    assert float((apart - alone).abs().max()) > 0.05


def test_feedback_of_another_noising_of_the_text_falls_below_the_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trap: the same network, averaged over pairs that no source draws, and over those of one path."""
    w = world()
    denoiser, source = reads_both(w), source_of("path")
    trap = enumerated(w, denoiser, source, monkeypatch, one_path=False)
    assert trap < w.entropy - 0.02
    assert enumerated(w, denoiser, source, monkeypatch) > w.entropy + 0.02


@pytest.mark.parametrize("measured", ["loss", "bound"])
def test_what_is_trained_and_measured_is_a_pair_of_one_path(measured: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The earlier pass reads more noise on top of the very z that the later pass reads, at its level plus the lag; none
    does where that exceeds 1."""
    w = world()
    drawn: list[tuple[Tensor, ...]] = []
    noise_on = w.process.noise_on

    def watched(z: Tensor, t: Tensor, u: Tensor, noise: Noise) -> Tensor:
        drawn.append((z, t, u, noise_on(z, t, u, noise)))
        return drawn[-1][-1]

    monkeypatch.setattr(w.process, "noise_on", watched)
    denoiser, passes = arbitrary(), list[DenoiserInput]()

    class Watching(Double):
        def __call__(self, given: DenoiserInput) -> DenoiserOutput:
            passes.append(given)
            return super().__call__(given)

    watching, batch = Watching(denoiser.without, denoiser.beside), batch_of(texts(w, 64))
    if measured == "bound":
        Bound(w.process, source=source_of("path"))(watching, batch, EPSILON)
    else:
        build("elbo", w, feedback={"name": "path", "lag": LAG}).loss(watching, batch)
    assert len(passes) == 2 * len(drawn) == {"loss": 2, "bound": 4}[measured]
    for (z, t, u, more), earlier, later in zip(drawn, passes[::2], passes[1::2], strict=True):
        assert torch.equal(z, later.tokens)
        assert torch.equal(more, earlier.tokens)
        assert earlier.feedback is None
        assert earlier.level is not None
        assert later.level is not None
        assert later.feedback is not None
        torch.testing.assert_close(u, (t + LAG).clamp(max=1.0), rtol=0, atol=0)
        torch.testing.assert_close(earlier.level, u.squeeze(-1), rtol=0, atol=0)
        torch.testing.assert_close(later.level, t.squeeze(-1), rtol=0, atol=0)
        beyond = (t > 1 - LAG).squeeze(-1)
        assert bool((later.feedback.mean[beyond] == 0).all())
    assert bool((passes[1].level > 1 - LAG).any())  # type: ignore[operator]


def test_a_source_is_given_no_text_but_the_one_in_noise() -> None:
    """So there is nothing that a second noising could be made of: the same z gives the same feedback."""
    for name in FEEDBACK_SOURCES.names():
        for method in ("earlier", "feed"):
            taken = set(inspect.signature(getattr(FEEDBACK_SOURCES.get(name), method)).parameters)
            assert not taken & {"x", "batch", "noisy"}


@pytest.mark.parametrize("told", [False, True], ids=["one level", "a level for each token"])
def test_a_context_stands_in_the_earlier_pass_too(told: bool) -> None:
    """A sampler predicts beside its prompt in every step, so the bound behind a context is of clean contexts alone."""
    seen: list[DenoiserInput] = []

    class Watched:
        takes_feedback = True

        def __call__(self, given: DenoiserInput) -> DenoiserOutput:
            seen.append(given)
            return FromLogits(lambda z, level: torch.zeros(*z.shape, V, dtype=torch.float64))(given)

        def feedback(self, belief: Belief) -> Feedback:
            return mean_embedding(belief, torch.eye(V, dtype=torch.float64), "leave_one_out")

    process = World("uniform", tokens=V, length=L).process
    x = texts(World("uniform", tokens=V, length=L), 64).repeat(1, 3)
    given = Given(torch.full((len(x),), 4), torch.full((len(x),), x.shape[1]), told=told)
    Bound(process, source=source_of("path")).by_position(Watched(), batch_of(x), EPSILON, given)
    earlier, _, end, _ = seen
    assert bool((earlier.tokens[:, 4:] != x[:, 4:]).any()), "there is noise, behind the context"
    for call in (earlier, end):
        assert bool((call.tokens[:, :4] == x[:, :4]).all())
        assert call.level is not None
        assert not told or bool((call.level[:, :4] == 0).all())
