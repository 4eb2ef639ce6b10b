"""Absorbing noise: a token that is hit becomes the mask and stays it (D3PM 2107.03006; MDLM 2406.07524).

A mask says nothing of what it covers and a token is never wrong, so the bound is a weighted cross-entropy of the
masked positions, and the reverse process fills each mask once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from sumi_core.corruption.interpolating import WithMask
from sumi_core.data.noise import Noise
from sumi_core.kernels.row_loss import RowLoss, cross_entropy, cross_entropy_loss

if TYPE_CHECKING:
    from torch import Tensor


class Absorbing(WithMask):
    """π = δ_mask."""

    description = (
        "replaces tokens by a mask until nothing else is left; the model fills masks in, and a token once written stays"
    )

    @classmethod
    def expected_supervision(cls, own: Mapping[str, Any], noise_fraction: float) -> float:
        return noise_fraction

    def stationary(self) -> Tensor:
        return (torch.arange(self.num_states) == self.mask_id).to(torch.float64)

    def mass(self, state: Tensor) -> Tensor:
        return (state == self.mask_id).to(torch.float64)

    def sample_prior(self, noise: Noise, length: int) -> Tensor:
        return noise.integers(1, length) + self.mask_id

    def leave_one_out_loss(self, x: Tensor, z: Tensor, t: Tensor) -> RowLoss:
        """−α′/(1−α) · 1[z = mask] · (−log x_θ(x)), what the general bound comes to (MDLM, Eq. 10)."""
        weight = -self.dalpha(t) / self.noise_fraction(t)
        loss = cross_entropy_loss(x, self.num_tokens, where=z == self.mask_id)
        return loss.times(weight.expand(x.shape))

    def reconstruction(self, logits: Tensor, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
        return cross_entropy(logits, x, self.num_tokens, where=z == self.mask_id)

    def reverse(self, logits: Tensor, z: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Masks are filled with probability (α_s − α_t)/(1 − α_t); tokens stay, whatever x_θ says of them."""
        hit_t, hit_s = (self.noise_fraction(level).expand(z.shape) for level in (t, s))
        masked = z == self.mask_id
        still = (hit_s / hit_t)[masked]
        filled = logits[masked][:, : self.num_tokens].double().softmax(-1).mul_((1 - still).unsqueeze(-1))
        probs = self._one_hot(z)
        probs[masked] = torch.cat([filled, still.unsqueeze(-1)], -1)
        return probs
