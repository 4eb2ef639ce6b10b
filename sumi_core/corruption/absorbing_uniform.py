"""Uniform noise reformulated as an absorbing one (AUDM; Gourevitch et al., 2605.22765).

Each position has a token u that it becomes when noise hits it, drawn uniformly before anything happens, and the
denoiser is shown where a position stands at its u. Without that mark a text at one level is one under uniform noise.
With it, a token that is not u is certain, and one that is u is noise or happens to be right: as under absorbing noise,
what is marked is filled in, once, and the rest stays.

The token that stands there, and whether it is u, is all that can be known of x, so it is the state: S = 2V, state v a
certain token v, V + u a suspected one. For t > 0

    q_t(v | x) = α (V − 1)/V  at v = x,      q_t(V + u | x) = 1/V  at u = x,  (1 − α)/V  else
    certain y → suspected u ≠ y at the rate r/(V − 1) each,  r = −α′/α;  what is suspected stays as it is

and level 0 is the text. The denoiser's vocabulary, and its embedding, have twice the size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.noise import Noise
from sumi_core.kernels.row_loss import Differentiated, RowLoss, Rows, pick, put_add

if TYPE_CHECKING:
    from torch import Tensor


class AbsorbingUniform(ForwardProcess):
    """Uniform noise that shows which positions it may have hit."""

    description = (
        "replaces tokens by other tokens and marks where one may be noise; the model reads which tokens are certain "
        "and fills in the others, and a token once written stays"
    )

    @classmethod
    def expected_supervision(cls, own: Mapping[str, Any], noise_fraction: float) -> float:
        return noise_fraction  # and one in V of the others, which is what x is anyway

    @property
    def num_states(self) -> int:
        return 2 * self.num_tokens

    def stationary(self) -> Tensor:
        return (torch.arange(self.num_states) >= self.num_tokens).to(torch.float64) / self.num_tokens

    # --- forward ----------------------------------------------------------------------------------------------------

    def shown(self, z: Tensor) -> Tensor:
        return z % self.num_tokens

    def corrupt(self, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        kept = noise.uniform(x.shape[-1], dtype=torch.float64) < self.alpha(t)
        token = noise.integers(self.num_tokens, x.shape[-1])
        return torch.where(t == 0, x, torch.where(kept & (token != x), x, token + self.num_tokens))

    def noise_on(self, z: Tensor, t: Tensor, u: Tensor, noise: Noise) -> Tensor:
        stays = noise.uniform(z.shape[-1], dtype=torch.float64) * self.alpha(t) < self.alpha(u)
        other = (z + 1 + noise.integers(self.num_tokens - 1, z.shape[-1])) % self.num_tokens  # any but its own
        moved = torch.where(stays | (t == u) | (z >= self.num_tokens), z, other + self.num_tokens)
        return torch.where((t == 0) & (u > 0), self.corrupt(z, u, noise), moved)

    def sample_prior(self, noise: Noise, length: int) -> Tensor:
        return noise.integers(self.num_tokens, length) + self.num_tokens

    def marginal(self, p: Tensor, t: Tensor) -> Tensor:
        tokens, count = p[..., : self.num_tokens], self.num_tokens
        alpha, hit = (level.unsqueeze(-1).to(p) for level in (self.alpha(t), self.noise_fraction(t)))
        certain = alpha * (count - 1) / count * tokens
        suspected = (hit * tokens.sum(-1, keepdim=True) + alpha * tokens) / count + p[..., count:]
        moved = torch.cat([certain, suspected], -1)
        return torch.where((t == 0).unsqueeze(-1), p, moved)

    def transition(self, z: Tensor, t: Tensor, s: Tensor) -> Tensor:
        count = self.num_tokens
        t, s = t.expand(z.shape).double(), s.expand(z.shape).double()
        suspected, token, clean = z >= count, z % count, s == 0
        survived = self.alpha(t) / self.alpha(s)
        lost = torch.where(clean, self.noise_fraction(t), (self.alpha(s) - self.alpha(t)) / self.alpha(s))
        from_other = torch.where(suspected, lost / torch.where(clean, count, count - 1), 0.0)
        itself = torch.where(clean, survived * (count - 1) / count, survived)
        from_own = torch.where(suspected, clean.double() / count, itself)
        table = torch.zeros(*z.shape, self.num_states, dtype=torch.float64, device=z.device)
        table[..., :count] = from_other.unsqueeze(-1)
        put_add(table, token, from_own - from_other)
        put_add(table, token + count, suspected.double())
        return table

    def jump_rates(self, z: Tensor, t: Tensor) -> Tensor:
        count = self.num_tokens
        rate = torch.where(z >= count, self.rate(t) / (count - 1), 0.0)
        table = torch.zeros(*z.shape, self.num_states, dtype=torch.float64, device=z.device)
        table[..., :count] = rate.unsqueeze(-1)
        return table.scatter(-1, (z % count).unsqueeze(-1), 0.0)

    def likelihood(self, z: Tensor, x: Tensor, t: Tensor) -> Tensor:
        count, same = self.num_tokens, z % self.num_tokens == x
        certain = self.alpha(t) * same * (count - 1) / count
        suspected = torch.where(same, 1.0, self.noise_fraction(t)) / count
        return torch.where(t == 0, (z == x).double(), torch.where(z >= count, suspected, certain))

    def log_evidence(self, z: Tensor, t: Tensor) -> Tensor:
        # Of a suspected u, 1/V at x = u and (1 − α)/V elsewhere; of a certain token all at itself.
        count, suspected = self.num_tokens, z >= self.num_tokens
        lift = -self.noise_fraction(t).log()
        own = torch.where(suspected, lift, 0.0)
        stood = torch.where(suspected, lift + math.log(count), -torch.inf)  # of the state itself, which no text holds
        table = torch.full((*z.shape, self.num_states), -torch.inf, dtype=torch.float64, device=z.device)
        table[..., :count] = torch.where(suspected, 0.0, -torch.inf).unsqueeze(-1)
        table.scatter_(-1, (z % count).unsqueeze(-1), own.unsqueeze(-1))
        return table.scatter_(-1, (z % count + count).unsqueeze(-1), stood.unsqueeze(-1))

    def belief(self, logits: Tensor, z: Tensor, t: Tensor, token: Tensor) -> Tensor:
        return super().belief(logits, z, t, self.shown(token))

    def noise_chance(self, p: Tensor, z: Tensor, t: Tensor) -> Tensor:
        # What is certain was never hit; a suspected u was hit, or is what x is anyway.
        hit, token = self.noise_fraction(t), z % self.num_tokens
        return torch.where(z >= self.num_tokens, hit / (hit + self.alpha(t) * pick(p, token).double()), 0.0)

    # --- the bound --------------------------------------------------------------------------------------------------

    def supervised(self, z: Tensor, t: Tensor) -> Tensor:
        """Where a token is suspected: nothing jumps to one that is certain."""
        return z >= self.num_tokens

    def leave_one_out_loss(self, x: Tensor, z: Tensor, t: Tensor) -> RowLoss:
        """−α′/(1−α) · [1 − P(u) − 1[x ≠ u] (1 + log P(x))] at a suspected u, P the posterior p(x_i | z), u included.

        What the general bound comes to with ρ_θ(y) = (V − 1) α x_θ(y)/(1 − α + α x_θ(u)) = (V − 1) α/(1 − α) · P(y) at
        a certain y ≠ u."""
        clean, token = x.reshape(-1), (z % self.num_tokens).reshape(-1)
        lift = -self.noise_fraction(t).log().expand(x.shape).reshape(-1)

        def bound(chunk: Tensor, rows: Rows) -> Tensor:
            own, wanted = token[rows].unsqueeze(-1), clean[rows]
            shift = torch.zeros_like(chunk).scatter(-1, own, lift[rows].unsqueeze(-1).to(chunk))
            log_p = (chunk + shift).log_softmax(-1)
            others = log_p.exp().scatter(-1, own, 0.0).sum(-1)  # 1 − P(u), with its digits near the clean end
            return torch.where(wanted == own.squeeze(-1), others, others - 1 - pick(log_p, wanted))

        loss = Differentiated(bound, self.num_tokens)
        loss.rows = (z >= self.num_tokens).reshape(-1).nonzero().squeeze(1)
        return loss.times((-self.dalpha(t) / self.noise_fraction(t)).expand(x.shape))

    def prior(self, x: Tensor, t: Tensor) -> Tensor:
        count, hit = self.num_tokens, self.noise_fraction(t)
        spread = hit + self.alpha(t) / count  # V times what a uniform guess leads to at each suspected state
        certain = self.alpha(t) * (count - 1) / count * torch.full_like(hit, count).log()
        suspected = (hit * (count - 1) * (hit / spread).log() - spread.log()) / count
        return (certain + suspected).expand(x.shape)

    # --- reverse ----------------------------------------------------------------------------------------------------

    def reverse(self, logits: Tensor, z: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """A suspected u becomes another token v, certain then, with (α_s − α_t) x_θ(v)/(1 − α_t + α_t x_θ(u)), and else
        stays suspected; in the step to s = 0 it becomes u itself with what is left. What is certain stays."""
        count, suspected, own = self.num_tokens, z >= self.num_tokens, (z % self.num_tokens).unsqueeze(-1)
        p = self.denoiser(logits.double())[..., :count]
        at_own = p.gather(-1, own)
        (alpha_t, hit_t), (alpha_s, hit_s) = (
            (self.alpha(level).expand(z.shape).unsqueeze(-1), self.noise_fraction(level).expand(z.shape).unsqueeze(-1))
            for level in (t, s)
        )
        total = hit_t + alpha_t * at_own
        clean = hit_s == 0
        left = (hit_s + alpha_s * at_own) / total
        filled = ((hit_t - hit_s) * p / total).scatter(-1, own, torch.where(clean, left, 0.0))
        probs = torch.cat([filled, torch.zeros_like(filled).scatter(-1, own, torch.where(clean, 0.0, left))], -1)
        return torch.where(suspected.unsqueeze(-1), probs, self._one_hot(z))
