"""Forward processes: how clean tokens become noise, and everything that follows from it.

A process is a continuous-time Markov chain on single positions. Three primitives define it: where a clean
distribution goes (``marginal``), how a state was reached (``transition``) and at what rate (``jump_rates``). From
these the base class derives the tight likelihood bound, both end terms and the reverse step, for any process; a
subclass overrides what it can do in closed form. The general forms are the reference that the closed ones are
tested against.

Shapes: x, z ``[B, L]`` int64; logits ``[B, L, S]``; t a float tensor broadcastable to ``[B, L]`` (a level per
sequence is ``[B, 1]``, a level per position ``[B, L]``), 0 = clean, 1 = noise.
Logits are those of the *leave-one-out* posterior p(x_i | z_{−i}) (docs/mathematics.md 2; 2605.22765): ``predict``
gets them from a denoiser.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from sumi_core.base.registry import Part
from sumi_core.corruption.categorical import draw_categorical
from sumi_core.corruption.clocks import Clock, Shared
from sumi_core.corruption.parameterisations import LeaveOneOut, Parameterisation
from sumi_core.corruption.schedules import NoiseSchedule
from sumi_core.data.noise import Noise
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.kernels.chunks import Rows, chunks_of, precision_of
from sumi_core.kernels.row_loss import Differentiated, RowLoss, pick, put_add
from sumi_core.models.interface import DenoiserFunction, DenoiserInput

if TYPE_CHECKING:
    from torch import Tensor


class ForwardProcess(Part, ABC):
    """A corruption process over ``num_tokens`` tokens and ``num_states`` ≥ ``num_tokens`` states.

    States from ``num_tokens`` on (a mask) are noise only: texts never hold them, and no denoiser may predict them.
    The chain runs on single positions; ``clock`` says at which level each of them stands.
    """

    description = (
        "replaces tokens by other tokens until only noise is left; the model reads text in which any token may be "
        "wrong, and can change every token at every step"
    )
    mask_id: int | None = None

    def __init__(
        self,
        options: Any,
        *,
        vocabulary: Vocabulary,
        schedule: NoiseSchedule,
        clock: Clock | None = None,
        parameterisation: Parameterisation | None = None,
    ) -> None:
        super().__init__(options)
        self.num_tokens = vocabulary.size
        self.schedule = schedule
        self.clock = clock or Shared()
        self.parameterisation = parameterisation or LeaveOneOut()

    # --- what defines a process -------------------------------------------------------------------------------------

    @property
    def num_states(self) -> int:
        """S, the denoiser's vocabulary."""
        return self.num_tokens

    @abstractmethod
    def stationary(self) -> Tensor:
        """π, what everything has become at t = 1: ``[S]`` float64."""

    @abstractmethod
    def marginal(self, p: Tensor, t: Tensor) -> Tensor:
        """Σ_x p(x) q_t(·|x): ``[..., S]`` and ``[...]`` → ``[..., S]``, in p's type."""

    @abstractmethod
    def transition(self, z: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """q_{t|s}(z | y) for every origin y, s < t: ``[B, L, S]`` float64. s = 0 gives q_t(z | y)."""

    @abstractmethod
    def jump_rates(self, z: Tensor, t: Tensor) -> Tensor:
        """R_t(y → z), jumps per unit t into z from every y: ``[B, L, S]`` float64. The entry y = z is not used."""

    @property
    def noise_writes_tokens(self) -> bool:
        """Whether a token of a text in noise may have been written by the noise: not under masks alone."""
        tokens = torch.arange(self.num_tokens)[None]
        return bool(self.supervised(tokens, torch.tensor([[0.5]], dtype=torch.float64)).any())

    @classmethod
    def expected_supervision(cls, own: Mapping[str, Any], noise_fraction: float) -> float:
        """The share of positions where ``supervised`` holds when ``noise_fraction`` of them are hit. own: the resolved
        component."""
        return 1.0

    # --- the noise level --------------------------------------------------------------------------------------------

    def alpha(self, t: Tensor) -> Tensor:
        """α(t) in float64, the share of tokens that noise has not yet hit: what corruption and bound both use."""
        return self.schedule.alpha(t.double())

    def noise_fraction(self, t: Tensor) -> Tensor:
        """1 − α(t) in float64, the share of tokens that noise has hit, with all its digits near t = 0."""
        return self.schedule.noise_fraction(t.double())

    def dalpha(self, t: Tensor) -> Tensor:
        """dα/dt ≤ 0, float64."""
        return self.schedule.dalpha(t.double())

    def rate(self, t: Tensor) -> Tensor:
        """Hits per unit t, −α′/α, float64."""
        return self.schedule.rate(t.double())

    def log_snr_rate(self, t: Tensor) -> Tensor:
        """dλ/dt = α′/(α (1 − α)) < 0, λ = log(α/(1 − α)), float64."""
        return self.schedule.log_snr_rate(t.double())

    def time_of_alpha(self, alpha: Tensor) -> Tensor:
        """The level t with α(t) = alpha, float64."""
        return self.schedule.time_of_alpha(alpha.double())

    # --- forward ----------------------------------------------------------------------------------------------------

    def shown(self, z: Tensor) -> Tensor:
        """What a reader sees of states ``[...]``: the token that stands there, or the mask."""
        return z

    def corrupt(self, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """Draw z ~ q_t(·|x)."""
        probs = self.marginal(self._one_hot(x), t)
        return draw_categorical(probs, noise.uniform(x.shape[-1], dtype=torch.float64))

    def noise_on(self, z: Tensor, t: Tensor, u: Tensor, noise: Noise) -> Tensor:
        """Draw z_u ~ q_{u|t}(· | z_t = z), more noise on top of ``z``; t ≤ u, both broadcastable to ``[B, L]``."""
        reached = [pick(self.transition(torch.full_like(z, state), u, t), z) for state in range(self.num_states)]
        return draw_categorical(torch.stack(reached, -1), noise.uniform(z.shape[-1], dtype=torch.float64))

    def sample_prior(self, noise: Noise, length: int) -> Tensor:
        """Pure noise, z ~ π at every position: ``[B, length]``, a row per row of ``noise``."""
        # As ``draw_categorical`` inverts a cumulative distribution, which all positions share here.
        uniform = noise.uniform(length, dtype=torch.float64)
        cumulative = self.stationary().to(uniform.device).cumsum(-1)
        return torch.searchsorted(cumulative, uniform * cumulative[-1], right=True)

    def likelihood(self, z: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """q_t(z|x): ``[B, L]`` float64."""
        return pick(self.transition(z, t, torch.zeros_like(t)), x)

    def log_likelihood(self, z: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """log q_t(z|x): ``[B, L]`` float64."""
        return self.likelihood(z, x, t).log()

    def log_evidence(self, z: Tensor, t: Tensor) -> Tensor:
        """log q_t(z|x) for every state x, up to a constant over x: ``[B, L, S]`` float64."""
        return self.transition(z, t, torch.zeros_like(t)).log()

    def between(self, x: Tensor, z: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """q(z_s = y | z_t = z, x) for s < t, up to a factor: ``[B, L, S]`` float64, 0 everywhere where x cannot have
        led to z."""
        clean = torch.zeros(*x.shape, self.num_states, dtype=torch.float64, device=x.device)
        return self.marginal(clean.scatter_(-1, x.unsqueeze(-1), 1.0), s).mul_(self.transition(z, t, s))

    # --- the denoiser -----------------------------------------------------------------------------------------------

    def predict(self, denoiser: DenoiserFunction, given: DenoiserInput, level: Tensor) -> Tensor:
        """Logits of the leave-one-out posterior at z = ``given.tokens`` ``[B, L]``, whatever the denoiser's own mean:
        ``[B, L, S]``. level: t of every position, broadcastable to ``[B, L]``."""
        return self.leave_one_out(denoiser(given).logits(), given.tokens, level)

    def leave_one_out(self, logits: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """The same from the denoiser's own logits ``[B, L, S]`` at z ``[B, L]``."""
        return self.parameterisation.leave_one_out(logits, self._evidence_of_rows(z, t))

    def log_denoiser(self, logits: Tensor) -> Tensor:
        """log x_θ: log-softmax over tokens, −∞ on states that are not tokens. float32 (float64 for float64)."""
        return self.token_logits(logits).log_softmax(-1)

    def denoiser(self, logits: Tensor) -> Tensor:
        """x_θ, the exponential of ``log_denoiser``."""
        return self.token_logits(logits).softmax(-1)

    def log_total(self, logits: Tensor) -> Tensor:
        """log Σ exp over tokens, a chunk of rows at a time: ``[..., S]`` → ``[...]``, float32 (float64 for float64)."""
        rows = logits.reshape(-1, logits.shape[-1])
        parts = [rows[own, : self.num_tokens].to(precision_of(rows)).logsumexp(-1) for own in chunks_of(rows, None)]
        return torch.cat(parts).view(logits.shape[:-1])

    def log_posterior(self, logits: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """log p_θ(x_i | z): the leave-one-out prediction joined with its own token, ``[B, L, S]`` float64."""
        return self.log_joint(logits, z, t).log_softmax(-1)

    def log_joint(self, logits: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """The same up to a constant over x_i, in a table of its own: ``[B, L, S]`` float64."""
        return self.log_evidence(z, t).add_(self.token_logits(logits))

    def noise_chance(self, p: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """The chance that what stands at a position is noise, given all the others: 1 − α p(z)/q_θ(z) for leave-one-out
        predictions p ``[B, L, S]`` of the clean token, ``[B, L]`` float64. A token that only it can be has none."""
        p = p.double()
        standing = pick(self.marginal(p, t.expand(z.shape)), z)
        return torch.where(standing > 0, 1 - self.alpha(t) * pick(p, z) / standing, 0.0).clamp(0, 1)

    def belief(self, logits: Tensor, z: Tensor, t: Tensor, token: Tensor) -> Tensor:
        """p_θ(x_i = ``token`` | z) of one state at every position, ``[B, L]`` float64, a chunk of rows at a time."""
        rows, places = logits.reshape(-1, logits.shape[-1]), z.reshape(-1)
        levels, wanted, found = t.expand(z.shape).reshape(-1), token.reshape(-1), []
        for own in chunks_of(rows, None):  # at large V this is part of what a sampling step costs beside the network
            table = self.log_evidence(places[own][None], levels[own][None])[0]
            table += self.token_logits(rows[own])
            found.append(pick(table.log_softmax(-1), wanted[own]))
        return torch.cat(found).exp().reshape(z.shape)

    # --- the bound: −log p(x) ≤ Σ_i [∫ bound_integrand dt + reconstruction + prior] ---------------------------------

    def supervised(self, z: Tensor, t: Tensor) -> Tensor:
        """At which positions the bound depends on what is predicted there, bool ``[B, L]``."""
        return torch.ones_like(z, dtype=torch.bool)

    def bound_loss(self, x: Tensor, z: Tensor, t: Tensor) -> RowLoss:
        """The bound as a loss of the denoiser's own logits: nats per unit t at every position, rows in the order of
        ``[B, L]``. Whoever holds hidden states or logits applies it."""
        return self.parameterisation.wrap(self.leave_one_out_loss(x, z, t), self._evidence_of_rows(z, t))

    def leave_one_out_loss(self, x: Tensor, z: Tensor, t: Tensor) -> RowLoss:
        """The bound as a loss of leave-one-out logits: the tight continuous-time NELBO's integrand at
        (t, z ~ q_t(·|x)), nats per unit t at each position.

        The generalised KL divergence between true and predicted reverse rates (Campbell et al., 2205.14987;
        docs/mathematics.md 4):
            Σ_{y≠z} R(y→z) · [ρ_θ(y) − A(y) + A(y) log(A(y) / ρ_θ(y))],  A = q(y|x)/q(z|x),  ρ_θ = q_θ(y)/q_θ(z).
        """
        clean, places, levels = x.reshape(-1), z.reshape(-1), t.expand(z.shape).reshape(-1)

        def divergence(chunk: Tensor, rows: Rows) -> Tensor:
            x, z, t = (part[rows][None] for part in (clean, places, levels))
            p = self.denoiser(chunk[None])
            model = self.marginal(p, t)
            true = self.marginal(self._one_hot(x).to(p), t)
            rates = self.jump_rates(z, t).to(p).scatter(-1, z.unsqueeze(-1), 0.0)
            at_z = z.unsqueeze(-1)
            ratio_model = model / model.gather(-1, at_z)
            ratio_true = true / true.gather(-1, at_z)
            gap = ratio_model - ratio_true + torch.xlogy(ratio_true, ratio_true) - torch.xlogy(ratio_true, ratio_model)
            # Where nothing jumps into z the ratios may be 0/0 and mean nothing.
            return torch.where(rates > 0, rates * gap, torch.zeros_like(gap)).sum(-1)[0]

        return Differentiated(divergence)

    def bound_integrand(self, logits: Tensor, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """``leave_one_out_loss`` of logits ``[B, L, S]``: ``[B, L]``."""
        return self.leave_one_out_loss(x, z, t).of(logits)

    def reconstruction(self, logits: Tensor, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """The clean end: −log p_θ(x|z_t) in nats at the smallest level, each position given all of z, ``[B, L]``."""
        return -pick(self.log_posterior(logits, z, t), x)

    def prior(self, x: Tensor, t: Tensor) -> Tensor:
        """The noisy end: KL(q_t(·|x) ‖ p_t) in nats at the largest level, ``[B, L]`` float64.

        p_t is where the model starts at level t: q_t of a uniformly guessed text, which tends to π as t → 1. For
        uniform noise p_t = π at every t. For absorbing noise KL(q_t ‖ π) would be infinite, since at any t < 1 some
        token may still stand where π has only the mask; this p_t charges α log V for it, and the sum is a bound.
        """
        reached = self.marginal(self._one_hot(x), t)
        start = self.marginal(self._uniform_tokens(x.device).expand_as(reached), t)
        return (torch.xlogy(reached, reached) - torch.xlogy(reached, start)).sum(-1)

    # --- reverse ----------------------------------------------------------------------------------------------------

    def reverse(self, logits: Tensor, z: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """p_θ(z_s = y | z_t = z) for s < t: ``[B, L, S]`` float64, rows sum to one. For sampling: no gradient.

        q_{t|s}(z|y) q_s^θ(y) / q_t^θ(z) (docs/mathematics.md 7). At s = 0 this is the posterior over clean tokens.
        """
        p = self.denoiser(logits.double())
        joint = self.marginal(p, s).mul_(self.transition(z, t, s))
        total = joint.sum(-1)
        # Nothing arrives at z and the denoiser rules it out: it stands since t = 0 and stays (0/0 in the formula).
        put_add(joint, z, (total == 0).to(joint))
        return joint.div_(torch.where(total == 0, 1.0, total).unsqueeze(-1))

    # --- helpers ----------------------------------------------------------------------------------------------------

    def token_logits(self, logits: Tensor) -> Tensor:
        """Logits ``[..., S]`` with −∞ on states that are not tokens. float32 (float64 for float64)."""
        logits = logits.to(precision_of(logits))
        if self.num_states > self.num_tokens:
            no_token = torch.arange(self.num_states, device=logits.device) >= self.num_tokens
            logits = logits.masked_fill(no_token, -torch.inf)
        return logits

    def _evidence_of_rows(self, z: Tensor, t: Tensor) -> Callable[[Rows], Tensor]:
        """``log_evidence`` of some rows, in the order of z ``[B, L]``: ``[n, S]``."""
        places, levels = z.reshape(-1), t.expand(z.shape).reshape(-1)
        return lambda rows: self.log_evidence(places[rows][None], levels[rows][None])[0]

    def _one_hot(self, x: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(x, self.num_states).to(torch.float64)

    def _uniform_tokens(self, device: torch.device) -> Tensor:
        guess = torch.zeros(self.num_states, dtype=torch.float64, device=device)
        guess[: self.num_tokens] = 1 / self.num_tokens
        return guess
