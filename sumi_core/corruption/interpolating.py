"""Interpolating processes: a token that is hit by noise is redrawn from a fixed distribution π.

    q_t(y|x) = α δ_{xy} + (1 − α) π(y),    jump rate y→z:  r(t) π(z),   r = −α′/α

π uniform, all on a mask, or the corpus frequencies give uniform, absorbing and unigram diffusion (D3PM, 2107.03006;
GIDD, 2503.04482). Design: math.md 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.noise import Noise
from sumi_core.rowwise import pick, put_add


class Interpolating(ForwardProcess):
    """Everything for any α and π. Subclasses give ``stationary`` and, where cheaper, closed forms."""

    def mass(self, state: Tensor) -> Tensor:
        """π(state): ``[...]`` float64."""
        return self.stationary().to(state.device)[state]

    # --- forward ----------------------------------------------------------------------------------------------------

    def corrupt(self, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        kept = noise.uniform(x.shape[-1], dtype=torch.float64) < self.alpha(t)
        return torch.where(kept, x, self.sample_prior(noise, x.shape[-1]))

    def marginal(self, p: Tensor, t: Tensor) -> Tensor:
        alpha = self.alpha(t).unsqueeze(-1)
        return alpha.to(p.dtype) * p + ((1 - alpha) * self.stationary().to(p.device)).to(p.dtype)

    def transition(self, z: Tensor, t: Tensor, s: Tensor) -> Tensor:
        survived = (self.alpha(t) / self.alpha(s)).expand(z.shape)
        table = ((1 - survived) * self.mass(z)).unsqueeze(-1).repeat(1, 1, self.num_states)
        put_add(table, z, survived)
        return table

    def jump_rates(self, z: Tensor, t: Tensor) -> Tensor:
        rate = self.rate(t) * self.mass(z)
        return rate.unsqueeze(-1).expand(*z.shape, self.num_states)

    def likelihood(self, z: Tensor, x: Tensor, t: Tensor) -> Tensor:
        alpha = self.alpha(t)
        return alpha * (z == x) + (1 - alpha) * self.mass(z)

    def log_evidence(self, z: Tensor, t: Tensor) -> Tensor:
        # Over x, q_t(z|x) is (1 − α) π(z) but for x = z; where π(z) is nothing, only x = z can have led to z.
        by_noise = (1 - self.alpha(t)) * self.mass(z)
        own = torch.where(by_noise > 0, (self.alpha(t) / by_noise).log1p(), 0.0)
        others = torch.where(by_noise > 0, 0.0, -torch.inf).to(own)
        table = others.unsqueeze(-1).repeat(1, 1, self.num_states)
        return table.scatter_(-1, z.unsqueeze(-1), own.unsqueeze(-1))

    # --- the bound --------------------------------------------------------------------------------------------------

    def weight(self, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """r π(z) / q_t(z|x), what multiplies the divergences of ``bound_integrand``: ``[B, L]`` float64."""
        return self.rate(t) * self.mass(z) / self.likelihood(z, x, t)

    def bound_integrand(self, logits: Tensor, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """weight · [KL(q_t(·|x) ‖ q_θ) + ρ − log ρ − 1],  ρ = q_t(z|x) / q_θ(z)  (GIDD, Thm. 1; design: math.md 1)."""
        p = self.denoiser(logits)
        true = self.marginal(self._one_hot(x).to(p), t)
        model = self.marginal(p, t)
        divergence = (torch.xlogy(true, true) - torch.xlogy(true, model)).sum(-1)
        ratio = pick(true, z) / pick(model, z)
        return self.weight(x, z, t).to(p.dtype) * (divergence + ratio - ratio.log() - 1)

    def reconstruction(self, logits: Tensor, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
        log_p = self.log_denoiser(logits)
        alpha = self.alpha(t)
        at_z = alpha * pick(log_p, z).double().exp() + (1 - alpha) * self.mass(z)  # q_θ(z)
        return (at_z.log() - self.log_likelihood(z, x, t) - pick(log_p, x).double()).to(log_p.dtype)

    def prior(self, x: Tensor, t: Tensor) -> Tensor:
        alpha = self.alpha(t)
        hit = (1 - alpha).unsqueeze(-1) * self.stationary().to(x.device)  # q_t(y|x) at y ≠ x
        start = self.marginal(self._uniform_tokens(x.device).expand_as(hit), t)
        elsewhere = torch.xlogy(hit, hit) - torch.xlogy(hit, start)
        hit_x, start_x = (pick(table.expand(*x.shape, -1), x) for table in (hit, start))
        at_x = hit_x + alpha
        here = torch.xlogy(at_x, at_x) - torch.xlogy(at_x, start_x)
        return elsewhere.sum(-1) - pick(elsewhere.expand(*x.shape, -1), x) + here

    # --- reverse ----------------------------------------------------------------------------------------------------

    def reverse(self, logits: Tensor, z: Tensor, t: Tensor, s: Tensor) -> Tensor:
        # q_{t|s}(z|y) = hit + survived·1[y = z] times q_s^θ(y) = α_s x_θ(y) + (1 − α_s) π(y), in one table:
        # at large V this is what a sampling step costs beside the network.
        alpha_s = self.alpha(s).expand(z.shape)
        survived = self.alpha(t) / alpha_s
        hit = (1 - survived) * self.mass(z)
        table = self.denoiser(logits.double())
        at_z = survived * (alpha_s * pick(table, z) + (1 - alpha_s) * self.mass(z))
        table.mul_((hit * alpha_s).unsqueeze(-1))
        table.addcmul_((hit * (1 - alpha_s)).unsqueeze(-1), self.stationary().to(z.device))
        put_add(table, z, at_z)
        return table.div_(table.sum(-1, keepdim=True))
