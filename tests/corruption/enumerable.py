"""A world small enough to know everything: V tokens at L positions with random probabilities.

Everything here is written from the definitions (q_t(state | token), the jump rates and Bayes' rule), not with the code
under test; only α(t) is taken from the schedule.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sumi_core.corruption import PROCESSES, SCHEDULES
from sumi_core.corruption.process import ForwardProcess
from sumi_core.corruption.schedules import NoiseSchedule
from sumi_core.data.vocabulary import Vocabulary

Denoiser = Callable[[Tensor, Tensor], Tensor]

# Every process under its name, in settings where all that it can do is done; "unseen" is unigram noise that never draws
# one of the tokens.
SETTINGS: dict[str, tuple[str, dict[str, float]]] = {
    "absorbing": ("absorbing", {}),
    "absorbing_uniform": ("absorbing_uniform", {}),
    "clustered": ("clustered", {"late": 1.5}),
    "hybrid": ("hybrid", {"p_uniform": 0.3}),
    "mixture": ("mixture", {"share": 0.4}),
    "uniform": ("uniform", {}),
    "unigram": ("unigram", {"smoothing": 2.0}),
    "unseen": ("unigram", {"smoothing": 0.0}),
}

CASES = [
    ("uniform", "linear"),
    ("uniform", "cosine"),
    ("absorbing", "linear"),
    ("absorbing", "cosine"),
    ("absorbing_uniform", "cosine"),
    ("clustered", "linear"),
    ("hybrid", "cosine"),
    ("mixture", "linear"),
    ("unigram", "cosine"),
    ("unseen", "linear"),
]


NAMES = list(SETTINGS)


def token_counts(num_tokens: int) -> Tensor:
    """Uneven, and none of token 1."""
    return torch.tensor([0 if i == 1 else 1 + 7 * i * i % 11 for i in range(num_tokens)])


def token_clusters(num_tokens: int) -> Tensor:
    """Two clusters, of one third and two thirds, under names that are no indices."""
    return torch.tensor([7 - 9 * (i * i % 3) for i in range(num_tokens)])


def vocabulary_of(num_tokens: int, **tables: Tensor) -> Vocabulary:
    given = {"token_counts": token_counts(num_tokens), "token_clusters": token_clusters(num_tokens)}
    return Vocabulary(num_tokens, 0, given | tables)


def build_process(process: str, schedule: str = "linear", num_tokens: int = 4) -> ForwardProcess:
    name, options = SETTINGS[process]
    context = {"vocabulary": vocabulary_of(num_tokens), "schedule": SCHEDULES.build(schedule, {})}
    return PROCESSES.build(name, options, **context)


def has_mask(process: str) -> bool:
    return SETTINGS[process][0] in ("absorbing", "hybrid", "mixture")


def tokens_among(process: str, states: int) -> int:
    """V of a process with S states."""
    return states // 2 if SETTINGS[process][0] == "absorbing_uniform" else states - has_mask(process)


def pi_of(process: str, num_tokens: int) -> Tensor:
    """What everything has become at t = 1, by hand."""
    name, options = SETTINGS[process]
    if name == "absorbing_uniform":
        return torch.cat([torch.zeros(num_tokens), torch.ones(num_tokens)]).double() / num_tokens
    if name == "unigram":
        counts = token_counts(num_tokens).double() + options["smoothing"]
        return counts / counts.sum()
    flat = torch.full((num_tokens,), 1 / num_tokens, dtype=torch.float64)
    share = {"absorbing": 0.0, "hybrid": 0.0, "mixture": options.get("share")}.get(name)
    if share is None:
        return flat
    return torch.cat([share * flat, torch.tensor([1 - share], dtype=torch.float64)])


def gidd_time(alpha: Tensor, odds: float) -> tuple[Tensor, Tensor]:
    """t and 1 − t in GIDD's own parameterisation, α = (1 − t)/(1 + B √(t(1 − t))), by bisection of log(t/(1 − t)), once
    for each α: enumerations ask for one at all states."""
    levels, places = torch.as_tensor(alpha, dtype=torch.float64).unique(return_inverse=True)
    wanted = levels.numpy()  # a step on a few numbers costs a fraction of what it does in torch
    low, high = (np.full_like(wanted, end) for end in (-700.0, 700.0))
    for _ in range(70):
        middle = (low + high) / 2
        t, rest = 1 / (1 + np.exp(-middle)), 1 / (1 + np.exp(middle))
        above = rest / (1 + odds * np.sqrt(t * rest)) > wanted
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    t = np.where(wanted > 0, 1 / (1 + np.exp(-low)), 1.0)
    rest = np.where(wanted > 0, 1 / (1 + np.exp(low)), 0.0)
    return torch.from_numpy(t)[places], torch.from_numpy(rest)[places]


def kernel_of(
    process: str, num_tokens: int, alpha: Tensor, since: Tensor | None = None, pi: Tensor | None = None
) -> Tensor:
    """q(state when α is ``alpha`` | state when it was ``since``, 1 unless given): ``[...]`` → ``[..., S, S]``.

    Each process by its definition. pi: another π than the process has by hand.
    """
    name, options = SETTINGS[process]
    if name == "absorbing_uniform":
        return marked_kernel(num_tokens, alpha, since)
    pi = pi_of(process, num_tokens) if pi is None else pi
    a = alpha[..., None, None]
    before = torch.ones((), dtype=torch.float64) if since is None else since[..., None, None]
    stay = a / before * torch.eye(len(pi), dtype=torch.float64)
    if name == "hybrid":
        noise, noise_before = (hybrid_noise(process, num_tokens, level) for level in (a, before))
        return stay + noise - a / before * noise_before
    if name == "clustered":
        survives, survived = (1 - (1 - level) ** (1 + options["late"]) for level in (a, before))
        survives = survives / survived
        return stay + (survives - a / before) * within_cluster(num_tokens) + (1 - survives) / num_tokens
    return stay + (1 - a / before) * pi


def marked_kernel(num_tokens: int, alpha: Tensor, since: Tensor | None) -> Tensor:
    """Of AUDM: every token u that a position may become, each as likely, then whether it has become it. States: certain
    tokens, then those that stand at their u. ``[..., 2V, 2V]``; from a clean text, or from a state on its way."""
    before = torch.ones_like(alpha) if since is None else since.expand(alpha.shape)
    kernel = torch.zeros(*alpha.shape, 2 * num_tokens, 2 * num_tokens, dtype=torch.float64)
    survives = alpha / before
    for x, u in itertools.product(range(num_tokens), repeat=2):
        chance = torch.where(before == 1, 1 / num_tokens, (x != u) / (num_tokens - 1))  # on its way it is not at its u
        kernel[..., x, x] += chance * (survives if u != x else 0.0)
        kernel[..., x, num_tokens + u] += chance * (1 - survives if u != x else 1.0)
    suspected = torch.arange(num_tokens, 2 * num_tokens)
    kernel[..., suspected, suspected] = 1.0
    still = (alpha == 1)[..., None, None]  # level 0 is the text
    return torch.where(still, torch.eye(2 * num_tokens, dtype=torch.float64), kernel)


def hybrid_noise(process: str, num_tokens: int, alpha: Tensor) -> Tensor:
    """GIDD's (t m + c u)/C, ``[..., S]`` for alpha ``[..., 1]``."""
    odds = gidd_odds(process)
    t, rest = gidd_time(alpha, odds)
    c = odds * (t * rest).sqrt()
    return torch.where(torch.arange(num_tokens + 1) < num_tokens, c / num_tokens, t) / (1 + c)


def gidd_odds(process: str) -> float:
    """B."""
    return 2 * SETTINGS[process][1]["p_uniform"] / (1 - SETTINGS[process][1]["p_uniform"])


def within_cluster(num_tokens: int) -> Tensor:
    """1[c(y) = c(x)] / n: ``[V, V]``."""
    clusters = token_clusters(num_tokens)
    same = (clusters[:, None] == clusters).double()
    return same / same.sum(-1)


def rates_of(process: str, num_tokens: int, alpha: Tensor) -> Tensor:
    """Jump rates from every state to every other, per unit by which α falls: ``[...]`` → ``[..., S, S]``."""
    name, options = SETTINGS[process]
    pi, a = pi_of(process, num_tokens), alpha.double()[..., None, None]
    if name == "absorbing_uniform":
        other = 1 - torch.eye(num_tokens, dtype=torch.float64)
        rates = torch.zeros(2 * num_tokens, 2 * num_tokens, dtype=torch.float64)
        rates[:num_tokens, num_tokens:] = other / (num_tokens - 1)
        return rates / a
    if name == "hybrid":  # GIDD's β π′ − (α′/α) π per unit of its t, over −α′
        odds = gidd_odds(process)
        t, rest = gidd_time(a, odds)
        c = odds * (t * rest).sqrt()
        slope_c = (1 - 2 * t) / (2 * t * rest) * c
        slope = -(1 + c + rest * slope_c) / (1 + c) ** 2  # α′
        tokens = torch.arange(len(pi)) < num_tokens
        noise = hybrid_noise(process, num_tokens, a)  # β π
        slope_noise = (torch.where(tokens, slope_c / num_tokens, 1.0) - noise * slope_c) / (1 + c)  # (β π)′
        into = slope_noise - slope / a * noise  # with β′ = −α′ the same as above
        return (into / -slope).expand(*a.shape[:-2], len(pi), -1)
    if name == "clustered":
        late = options["late"]
        survives, slope = 1 - (1 - a) ** (1 + late), (1 + late) * (1 - a) ** late  # g and dg/da
        return slope / survives / num_tokens + (1 / a - slope / survives) * within_cluster(num_tokens)
    return (pi / a).expand(*a.shape[:-2], len(pi), -1)


def reference_integrand(
    process: str, schedule: NoiseSchedule, logits: Tensor, x: Tensor, z: Tensor, t: Tensor
) -> Tensor:
    """The generalised KL divergence of true and predicted reverse rates (docs/mathematics.md 4), in tensor algebra.

    logits ``[B, L, S]`` float64, t broadcastable to x. Tables of S² a position: for autograd and small vocabularies.
    """
    t = t.expand(x.shape)
    num_tokens = tokens_among(process, logits.shape[-1])
    q = kernel_of(process, num_tokens, schedule.alpha(t))[..., :num_tokens, :]  # [B, L, V, S]
    true = q.gather(-2, x[..., None, None].expand(*x.shape, 1, q.shape[-1])).squeeze(-2)
    model = (logits[..., :num_tokens].softmax(-1).unsqueeze(-2) @ q).squeeze(-2)
    rates = rates_of(process, num_tokens, schedule.alpha(t))
    rates = rates.gather(-1, z[..., None, None].expand(*z.shape, rates.shape[-2], 1)).squeeze(-1)
    jumps = (torch.arange(q.shape[-1]) != z[..., None]) & (rates > 0)
    true, model = true / true.gather(-1, z[..., None]), model / model.gather(-1, z[..., None])
    true, model = torch.where(jumps, true, 1.0), torch.where(jumps, model, 1.0)  # no 0/0 for autograd to meet
    gap = model - true + torch.xlogy(true, true) - torch.where(true > 0, true * model.log(), 0.0)
    return -schedule.dalpha(t) * (rates * jumps * gap).sum(-1)


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
    """A random joint distribution p(x_1 … x_L), and exact inference in it under noise."""

    def __init__(self, process: str, schedule: str = "linear", *, tokens: int = 4, length: int = 2, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        self.name, self.process = process, build_process(process, schedule, tokens)
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
        """q_t(state | token): ``[..., V, S]`` for t ``[...]``."""
        return kernel_of(self.name, self.tokens, self.process.schedule.alpha(t), pi=self.pi)[..., : self.tokens, :]

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
