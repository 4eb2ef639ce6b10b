"""Masks and random tokens together: a token that is hit becomes the mask or any token.

A mask shows which positions are corrupted, a random token does not: between absorbing and uniform noise. In a mixture
their proportion is fixed; in the hybrid it moves with the noise level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.corruption.interpolating import WithMask
from sumi_core.data.noise import Noise

if TYPE_CHECKING:
    from torch import Tensor


class Mixture(WithMask):
    """π = share · 1/V over the tokens + (1 − share) · δ_mask (XDLM, 2602.01362).

    share 0 is absorbing noise, share 1 uniform noise beside a mask that never occurs. XDLM counts the mask among the
    states that its uniform part draws: its k₁ is share · (V + 1)/V.
    """

    @dataclass
    class Options(Part.Options):
        share: Annotated[
            float, Field(ge=0.0, le=1.0, description="share of the noise that is random tokens; the rest is masks")
        ] = 0.1

    @classmethod
    def expected_supervision(cls, own: Mapping[str, Any], noise_fraction: float) -> float:
        return 1.0 if own["share"] else noise_fraction

    def __init__(self, options: Options, **context: Any) -> None:
        super().__init__(options, **context)
        self.share = options.share

    def stationary(self) -> Tensor:
        pi = torch.full((self.num_states,), self.share / self.num_tokens, dtype=torch.float64)
        pi[self.mask_id] = 1 - self.share
        return pi


class Hybrid(WithMask):
    """GIDD's hybrid noise (2503.04482, Sec. 4; γ = 1): random tokens while noise is low, masks as it grows.

    p_uniform: share of random tokens in a text of which as much is left as is masked (GIDD's t = ½). 0 is absorbing
    noise. GIDD fixes the level too, with c = B √(t(1−t)), B = 2 p_uniform/(1 − p_uniform):
        α = (1 − t)/(1 + c),   masked t/(1 + c),   random tokens c/(1 + c)
    Of t only the curve that these three run along matters to the bound. With μ the square root of the masked share,
        α + B √α μ + μ² = 1,   random tokens B √α μ,
    so α alone decides, any schedule composes, and GIDD's own one is α(t) above. As 2512.10858 has π as a function of
    the log-SNR λ = log(α/(1−α)): π = h/V over tokens and 1 − h on the mask, h = 2y/(1 + y), y = B/√(B² + 4e^{−λ});
    of all jumps the share h − dh/dλ = y leads to a random token, which lies in [0, 1]: no rate is negative.
    """

    @dataclass
    class Options(Part.Options):
        p_uniform: Annotated[
            float,
            Field(
                ge=0.0,
                lt=1.0,
                description="share of random tokens in a text of which as much is left as is masked; 0: absorbing",
            ),
        ] = 0.1

    @classmethod
    def expected_supervision(cls, own: Mapping[str, Any], noise_fraction: float) -> float:
        return 1.0 if own["p_uniform"] else noise_fraction

    def __init__(self, options: Options, **context: Any) -> None:
        super().__init__(options, **context)
        self.odds = 2 * options.p_uniform / (1 - options.p_uniform)  # B

    def stationary(self) -> Tensor:
        return (torch.arange(self.num_states) == self.mask_id).to(torch.float64)

    # --- the noise --------------------------------------------------------------------------------------------------

    def _root_signal(self, t: Tensor) -> Tensor:
        """B √α."""
        return self.odds * self.alpha(t).sqrt()

    def _root_masked(self, t: Tensor) -> Tensor:
        """μ ≥ 0 with μ² + B √α μ = 1 − α, in the form that does not cancel where α is near 1."""
        signal, hit = self._root_signal(t), self.noise_fraction(t)
        return 2 * hit / (signal + (signal**2 + 4 * hit).sqrt()).clamp(min=torch.finfo(hit.dtype).tiny)

    def arrived(self, z: Tensor, t: Tensor, s: Tensor) -> Tensor:
        # noise(t) − (α_t/α_s) noise(s) with δ = μ_t − √(α_t/α_s) μ_s taken out: B √α_t δ on tokens,
        # δ (μ_t + √(α_t/α_s) μ_s) on the mask.
        before = (self.alpha(t) / self.alpha(s)).sqrt() * self._root_masked(s)
        now = self._root_masked(t)
        grown = (now - before).clamp(min=0)
        return grown * torch.where(z == self.mask_id, now + before, self._root_signal(t) / self.num_tokens)

    def inflow(self, z: Tensor, t: Tensor) -> Tensor:
        signal = self._root_signal(t)
        root = (signal**2 + 4 * self.noise_fraction(t)).sqrt()  # B √α + 2μ, so y = B √α / root
        masked = 2 * self._root_masked(t) / root
        return self.rate(t) * torch.where(z == self.mask_id, masked, signal / root / self.num_tokens)

    def token_noise(self, t: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        flat = torch.full((self.num_tokens,), 1 / self.num_tokens, dtype=torch.float64, device=device)
        return self._root_signal(t) * self._root_masked(t), flat

    def add_noise(self, table: Tensor, t: Tensor, scale: Tensor) -> None:
        masked = self._root_masked(t)
        table[..., : self.mask_id] += (scale * self._root_signal(t) * masked / self.num_tokens).to(table).unsqueeze(-1)
        table[..., self.mask_id] += (scale * masked**2).to(table)

    # --- drawing it -------------------------------------------------------------------------------------------------

    def drawn_between(self, t: Tensor, u: Tensor, noise: Noise, length: int) -> Tensor:
        where = noise.uniform(length, dtype=torch.float64)
        token = noise.integers(self.num_tokens, length)
        masked, one = (self.arrived(torch.tensor(state, device=token.device), u, t) for state in (self.mask_id, 0))
        return torch.where(where * (masked + self.num_tokens * one) < masked, self.mask_id, token)

    def corrupt(self, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        where = noise.uniform(x.shape[-1], dtype=torch.float64)
        token = noise.integers(self.num_tokens, x.shape[-1])
        masked = where >= 1 - self._root_masked(t) ** 2
        return torch.where(where < self.alpha(t), x, torch.where(masked, self.mask_id, token))

    def sample_prior(self, noise: Noise, length: int) -> Tensor:
        return noise.integers(1, length) + self.mask_id
