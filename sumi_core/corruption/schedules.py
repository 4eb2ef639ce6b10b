"""Noise schedules: α(t), the probability that a token has not yet been hit by noise at level t.

α falls from α(0) = 1 (clean) to α(1) = 0 (pure noise). The schedule is the only place where α is written down: the
forward process corrupts with it and the bound is weighted by its exact derivative, so the two cannot disagree.
The NELBO of an interpolating process does not depend on the schedule; the variance of its estimate and the
quality of few-step sampling do (VDM, 2107.00630, Sec. 5; design: math.md 6).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


class NoiseSchedule(ABC):
    """α, its derivative and its inverse. All take and return tensors of one shape, best in float64; t in [0, 1]."""

    @dataclass
    class Options:
        """No options."""

    def __init__(self, options: Options) -> None:
        self.options = options

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """α(t), exactly 1 at t = 0 and exactly 0 at t = 1."""

    @abstractmethod
    def dalpha(self, t: Tensor) -> Tensor:
        """dα/dt ≤ 0, exact."""

    @abstractmethod
    def time_of_alpha(self, alpha: Tensor) -> Tensor:
        """The level t with α(t) = alpha."""

    def rate(self, t: Tensor) -> Tensor:
        """Hits per unit t, −α′/α."""
        return -self.dalpha(t) / self.alpha(t)

    def log_snr(self, t: Tensor) -> Tensor:
        """λ = log(α / (1 − α))."""
        return torch.logit(self.alpha(t))

    def log_snr_rate(self, t: Tensor) -> Tensor:
        """dλ/dt = α′ / (α (1 − α)) < 0; with t uniform, −dλ/dt is one over the density of λ."""
        alpha = self.alpha(t)
        return self.dalpha(t) / (alpha * (1 - alpha))


class Linear(NoiseSchedule):
    """α = 1 − t (MDLM's and SEDD's log-linear schedule: their total noise is −log(1 − t))."""

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def dalpha(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def time_of_alpha(self, alpha: Tensor) -> Tensor:
        return 1 - alpha


class Cosine(NoiseSchedule):
    """α = 1 − sin(πt/2) = 1 − cos(π(1 − t)/2) (MaskGIT, 2202.04200; MD4, 2406.04329, Table 1).

    Against ``linear`` it spends more of t at low α, on the noisy side.
    """

    def alpha(self, t: Tensor) -> Tensor:
        # The same function twice: the left form is exact at t = 0, the right one does not cancel near t = 1.
        return torch.where(t < 0.5, 1 - torch.sin(t * math.pi / 2), 2 * torch.sin((1 - t) * math.pi / 4) ** 2)

    def dalpha(self, t: Tensor) -> Tensor:
        return -math.pi / 2 * torch.sin((1 - t) * math.pi / 2)

    def time_of_alpha(self, alpha: Tensor) -> Tensor:
        near_clean = torch.asin(1 - alpha) * 2 / math.pi
        near_noise = 1 - 4 / math.pi * torch.asin(torch.sqrt(alpha / 2))
        return torch.where(alpha > 0.3, near_clean, near_noise)
