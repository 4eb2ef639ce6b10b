"""A world small enough to know everything: V tokens at L positions with random probabilities.

Everything here is written from the definitions (q_t(y|x) = α δ_xy + (1 − α) π(y) and Bayes' rule), not with the code
under test; only α(t) is taken from the schedule.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sumi_core.corruption import PROCESSES, SCHEDULES
from sumi_core.corruption.interpolating import Interpolating
from sumi_core.data.vocabulary import Vocabulary

Denoiser = Callable[[Tensor, Tensor], Tensor]

CASES = [(process, schedule) for process in ("uniform", "absorbing") for schedule in ("linear", "cosine")]


def build_process(process: str, schedule: str = "linear", num_tokens: int = 4) -> Interpolating:
    return PROCESSES.build(process, {}, vocabulary=Vocabulary(num_tokens, 0), schedule=SCHEDULES.build(schedule, {}))


def pi_of(process: str, num_tokens: int) -> Tensor:
    """π by hand."""
    if process == "uniform":
        return torch.full((num_tokens,), 1 / num_tokens, dtype=torch.float64)
    return torch.cat([torch.zeros(num_tokens, dtype=torch.float64), torch.ones(1, dtype=torch.float64)])


def all_sequences(states: int, length: int) -> Tensor:
    """``[states^length, length]``."""
    return torch.tensor(list(itertools.product(range(states), repeat=length)))


def chi_square(drawn: Tensor, probs: Tensor) -> float:
    """p-value of drawn states against probabilities, normalised or not; impossible states must not occur."""
    counts = torch.bincount(drawn.reshape(-1), minlength=len(probs)).double()
    possible = probs > 0
    assert (counts[~possible] == 0).all()
    expected = probs[possible] / probs.sum() * counts.sum()
    statistic = ((counts[possible] - expected) ** 2 / expected).sum()
    freedom = torch.tensor((int(possible.sum()) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, statistic / 2)) if freedom else 1.0


def log_odds_quadrature(epsilon: float, points: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights for ∫_ε^{1−ε} dt. The bound has logarithmic singularities at both ends of t;
    in the variable log(t / (1 − t)) it is smooth, and the rule converges exponentially."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    end = np.log((1 - epsilon) / epsilon)
    t = 1 / (1 + np.exp(-end * nodes))
    return torch.from_numpy(t), torch.from_numpy(weights * end * t * (1 - t))


class World:
    """A random joint distribution p(x_1 … x_L), and exact inference in it under interpolating noise."""

    def __init__(self, process: str, schedule: str = "linear", *, tokens: int = 4, length: int = 2, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        self.process = build_process(process, schedule, tokens)
        self.pi = pi_of(process, tokens)
        self.tokens, self.length = tokens, length
        self.states = len(self.pi)
        self.x = all_sequences(tokens, length)  # [M, L]
        self.z = all_sequences(self.states, length)  # [Z, L]
        # Cubing makes the distribution uneven, so that positions depend on each other.
        p = torch.rand(len(self.x), generator=generator, dtype=torch.float64) ** 3
        self.p = p / p.sum()

    @property
    def entropy(self) -> float:
        return float(-(self.p * self.p.log()).sum())

    def q(self, t: Tensor) -> Tensor:
        """q_t(state | token): ``[B, V, S]`` for t ``[B]``."""
        alpha = self.process.schedule.alpha(t)[:, None, None]
        return alpha * torch.eye(self.tokens, self.states, dtype=torch.float64) + (1 - alpha) * self.pi

    def evidence(self, z: Tensor, t: Tensor) -> Tensor:
        """q_t(z_j | x_j) for every sequence x: ``[B, M, L]``."""
        rows = torch.arange(len(z))[:, None, None]
        return self.q(t)[rows, self.x[None], z[:, None, :]]

    def marginal(self, t: float) -> Tensor:
        """p_t(z) over ``self.z``: ``[Z]``."""
        q = self.q(torch.tensor([t], dtype=torch.float64))[0]
        return torch.stack([(self.p * q[self.x, z].prod(-1)).sum() for z in self.z])

    def leave_one_out(self, z: Tensor, t: Tensor) -> Tensor:
        """p(x_i = v | z_{−i}): ``[B, L, V]``."""
        return self._posterior(z, t, leave_out=True)

    def posterior(self, z: Tensor, t: Tensor) -> Tensor:
        """p(x_i = v | z): ``[B, L, V]``; NaN for a z that cannot occur."""
        return self._posterior(z, t, leave_out=False)

    def _posterior(self, z: Tensor, t: Tensor, leave_out: bool) -> Tensor:
        evidence = self.evidence(z, t)
        columns = []
        for i in range(self.length):
            used = [j for j in range(self.length) if not (leave_out and j == i)]
            weight = self.p * evidence[:, :, used].prod(-1)  # [B, M]
            column = torch.zeros(len(z), self.tokens, dtype=torch.float64)
            column.index_add_(1, self.x[:, i], weight)
            columns.append(column / column.sum(-1, keepdim=True))
        return torch.stack(columns, 1)

    def denoiser(self, z: Tensor, t: Tensor) -> Tensor:
        """The exact denoiser: logits whose softmax is the leave-one-out posterior. At the mask's own place stands a
        large number, which a process must never let through."""
        return self._logits(self.leave_one_out(z, t))

    def full_posterior_denoiser(self, z: Tensor, t: Tensor) -> Tensor:
        return self._logits(self.posterior(z, t))

    def _logits(self, p: Tensor) -> Tensor:
        logits = torch.full((*p.shape[:2], self.states), 3.0, dtype=torch.float64)
        logits[..., : self.tokens] = p.log()
        return logits


def expected_bound(
    world: World, denoiser: Denoiser, epsilon: float, points: int = 96, p: Tensor | None = None
) -> dict[str, float]:
    """The three terms of the bound, averaged over texts and every z, integrated over t. Nats per sequence.

    p: ``[M]`` weights of the texts, the world's own unless given.
    """
    process = world.process
    p = world.p if p is None else p
    x = world.x.repeat_interleave(len(world.z), 0)
    z = world.z.repeat(len(world.x), 1)

    def expectation(term: Callable[..., Tensor], t: float) -> float:
        levels = torch.full((len(world.z),), t, dtype=torch.float64)
        logits = denoiser(world.z, levels).repeat(len(world.x), 1, 1)
        q = world.q(levels[:1])[0]
        weight = p.repeat_interleave(len(world.z)) * q[x, z].prod(-1)
        possible = weight > 0
        value = term(logits[possible], x[possible], z[possible], levels[:1, None])
        return float((weight[possible] * value.sum(-1)).sum())

    nodes, weights = log_odds_quadrature(epsilon, points)
    pairs = zip(nodes.tolist(), weights.tolist(), strict=True)
    diffusion = sum(weight * expectation(process.bound_integrand, t) for t, weight in pairs)
    reconstruction = expectation(process.reconstruction, epsilon)
    prior = p @ process.prior(world.x, torch.full((1, 1), 1 - epsilon, dtype=torch.float64)).sum(-1)
    return {"diffusion": diffusion, "reconstruction": reconstruction, "prior": float(prior)}


def end_gaps(world: World, epsilon: float) -> dict[str, float]:
    """How far the cut at ε must lift the bound of the exact denoiser above the entropy, by definition.

    start: KL(p_{1−ε}(z) ‖ Π p_start(z_i)), the model starts from independent guesses;
    factorised: E[KL(p(x|z_ε) ‖ Π_i p(x_i|z_ε))], the last step reads every position off on its own.
    """
    noisy, clean = world.marginal(1 - epsilon), world.marginal(epsilon)
    guess = world.q(torch.tensor([1 - epsilon], dtype=torch.float64))[0].mean(0)  # of a uniformly guessed token
    start = guess[world.z].prod(-1)
    start_gap = torch.xlogy(noisy, noisy / start).sum()

    reachable = clean > 0
    z = world.z[reachable]
    levels = torch.full((len(z),), epsilon, dtype=torch.float64)
    joint = world.p * world.evidence(z, levels).prod(-1)  # [Z, M]
    posterior = joint / joint.sum(-1, keepdim=True)
    each = world.posterior(z, levels)  # [Z, L, V]
    product = torch.stack([each[:, i, world.x[:, i]] for i in range(world.length)]).prod(0)
    safe = torch.where(posterior > 0, posterior / product, 1.0)
    factorised_gap = (clean[reachable] * (posterior * safe.log()).sum(-1)).sum()
    return {"start": float(start_gap), "factorised": float(factorised_gap)}
