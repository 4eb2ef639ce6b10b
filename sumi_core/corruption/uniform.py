"""Uniform noise: a token that is hit becomes any token, π = 1/V (D3PM 2107.03006; UDLM 2412.10193; Sumi 2606.19005).

Nothing marks a token as noise, so any token may change at any step of the reverse process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sumi_core.corruption.interpolating import Interpolating
from sumi_core.data.noise import Noise
from sumi_core.kernels.row_loss import RowLoss, Rows, pick, put_add

if TYPE_CHECKING:
    from torch import Tensor

_MOST_SIGNAL = 1e30  # of α over (1 − α)/V: leaves float32 room for a loss's scale


class Uniform(Interpolating):
    """π = 1/V over the tokens; no further states."""

    def stationary(self) -> Tensor:
        return torch.full((self.num_tokens,), 1 / self.num_tokens, dtype=torch.float64)

    def mass(self, state: Tensor) -> Tensor:
        return torch.full(state.shape, 1 / self.num_tokens, dtype=torch.float64, device=state.device)

    def sample_prior(self, noise: Noise, length: int) -> Tensor:
        return noise.integers(self.num_tokens, length)

    def leave_one_out_loss(self, x: Tensor, z: Tensor, t: Tensor) -> RowLoss:
        alpha = self.alpha(t).expand(x.shape).reshape(-1)
        # Noise too little to be set against α in float32 is taken for as little as can be.
        noise = self.noise_fraction(t).expand(x.shape).reshape(-1) / self.num_tokens
        per_state = noise.clamp(min=alpha / _MOST_SIGNAL)
        divergence = UniformDivergence(x.reshape(-1), z.reshape(-1), alpha, per_state, alpha / per_state)
        return divergence.times(self.weight(x, z, t))


@dataclass
class UniformDivergence(RowLoss):
    """KL(q_t(·|x) ‖ q_θ) + ρ − log ρ − 1 for π = 1/V (docs/mathematics.md 8), every quantity ``[N]``, float64.

    With b = (1−α)/V, c = α/b, p = softmax(logits) and q_θ = b (1 + c p):
        KL = (α+b) log(1+c) − α log(1 + c p_x) − b Σ_y log(1 + c p_y)
        ρ − 1 = c (1[z=x] − p_z) / (1 + c p_z)
    Taking b out of every logarithm leaves terms that are all O(α): near pure noise, where the bound's weight is 1/α,
    nothing of the size of log V has to cancel, and float32 suffices.
    """

    x: Tensor
    z: Tensor
    alpha: Tensor
    b: Tensor
    c: Tensor

    def value(self, chunk: Tensor, rows: Rows) -> Tensor:
        x, z = self.x[rows], self.z[rows]
        alpha, b, c = (part[rows].to(chunk) for part in (self.alpha, self.b, self.c))
        p = chunk.softmax(-1)
        p_x, p_z = pick(p, x), pick(p, z)
        total = p.mul_(c[:, None]).log1p_().sum(-1)
        kl = (alpha + b) * c.log1p() - alpha * (c * p_x).log1p() - b * total
        # −log ρ of a noise token is log(1 + c p_z); by way of ρ − 1, all but −1, it would be lost.
        excess = c * ((x == z).to(c) - p_z) / (1 + c * p_z)
        return kl + excess - torch.where(x == z, excess.log1p(), -(c * p_z).log1p())

    def gradient(self, chunk: Tensor, rows: Rows, scale: Tensor) -> Tensor:
        # With v = p / (1 + c p), so that αp/q_θ = c v:
        # p_j (α c v_x + b c Σv + e c v_z) − b c v_j − α c v_x δ_jx − e c v_z δ_jz,   e = ρ − 1
        x, z = self.x[rows], self.z[rows]
        alpha, b, c = (part[rows].to(chunk) for part in (self.alpha, self.b, self.c))
        p = chunk.softmax(-1)
        p_x, p_z = pick(p, x), pick(p, z)
        v = p * c[:, None]
        torch.div(p, v.add_(1), out=v)
        excess = c * ((x == z).to(c) - p_z) / (1 + c * p_z)
        scale = scale * c
        at_x = scale * alpha * p_x / (1 + c * p_x)
        at_z = scale * excess * p_z / (1 + c * p_z)
        spread = scale * b
        p.mul_((at_x + at_z + spread * v.sum(-1))[:, None]).addcmul_(v, -spread[:, None])
        put_add(p, x, -at_x)
        put_add(p, z, -at_z)
        return p
