"""Noise schedules: α(t), the probability that a token has not yet been hit by noise at level t.

α falls continuously from α(0) = 1 (clean) to α(1) = 0 (pure noise). The schedule is the only place where α is
written down: the forward process corrupts with it and the bound is weighted by its exact derivative, so the two cannot
disagree.
Both ends are exact and α does not jump, because others lean on it: q_{t|0} is the whole corruption only if level 0 is
clean, samplers start from π at level 1 and read clean tokens at level 0, every α has a level, and the bound's two end
terms vanish as its cut ε does.
The NELBO of an interpolating process does not depend on the schedule; the variance of its estimate and the
quality of few-step sampling do (VDM, 2107.00630, Sec. 5; docs/mathematics.md 6).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from sumi_core.base.registry import Part

if TYPE_CHECKING:
    from torch import Tensor


class NoiseSchedule(Part, ABC):
    """α, its derivative and its inverse. All take and return tensors of one shape, best in float64; t in [0, 1]."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """α(t), exactly 1 at t = 0 and exactly 0 at t = 1."""

    @abstractmethod
    def dalpha(self, t: Tensor) -> Tensor:
        """dα/dt ≤ 0, exact."""

    @abstractmethod
    def time_of_alpha(self, alpha: Tensor) -> Tensor:
        """The level t with α(t) = alpha."""

    def noise_fraction(self, t: Tensor) -> Tensor:
        """1 − α(t), the share of tokens that noise has hit. Overridden where the difference loses digits near t = 0."""
        return 1 - self.alpha(t)

    def noise_fraction_at(self, t: float) -> float:
        """``noise_fraction`` of one level, for checks of a config: a schedule that can has it without torch."""
        return float(self.noise_fraction(torch.tensor(t, dtype=torch.float64)))

    def time_of_noise_fraction(self, noise: float) -> float:
        """The level t with 1 − α(t) = ``noise``, found by halving: for checks of a config, as ``noise_fraction_at``."""
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.noise_fraction_at(middle) < noise else (low, middle)
        return (low + high) / 2

    def rate(self, t: Tensor) -> Tensor:
        """Hits per unit t, −α′/α."""
        return -self.dalpha(t) / self.alpha(t)

    def log_snr(self, t: Tensor) -> Tensor:
        """λ = log(α / (1 − α)), infinite at both ends."""
        return self.alpha(t).log() - self.noise_fraction(t).log()

    def log_snr_rate(self, t: Tensor) -> Tensor:
        """dλ/dt = α′ / (α (1 − α)) < 0; with t uniform, −dλ/dt is one over the density of λ."""
        return self.dalpha(t) / (self.alpha(t) * self.noise_fraction(t))


class Linear(NoiseSchedule):
    """α = 1 − t (MDLM's and SEDD's log-linear schedule: their total noise is −log(1 − t))."""

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def dalpha(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def noise_fraction(self, t: Tensor) -> Tensor:
        return t

    def noise_fraction_at(self, t: float) -> float:
        return t

    def time_of_alpha(self, alpha: Tensor) -> Tensor:
        return 1 - alpha


class Cosine(NoiseSchedule):
    """α = 1 − sin(πt/2) = 1 − cos(π(1 − t)/2) (MaskGIT, 2202.04200; MD4, 2406.04329, Table 1).

    Against ``linear`` it spends more of t at low α, on the noisy side.
    """

    def alpha(self, t: Tensor) -> Tensor:
        # The same function twice: the left form is exact at t = 0, the right one does not cancel near t = 1.
        return torch.where(t < 0.5, 1 - torch.sin(t * math.pi / 2), 2 * torch.sin((1 - t) * math.pi / 4) ** 2)

    def noise_fraction(self, t: Tensor) -> Tensor:
        return torch.sin(t * math.pi / 2)

    def noise_fraction_at(self, t: float) -> float:
        return math.sin(t * math.pi / 2)

    def dalpha(self, t: Tensor) -> Tensor:
        return -math.pi / 2 * torch.sin((1 - t) * math.pi / 2)

    def time_of_alpha(self, alpha: Tensor) -> Tensor:
        near_clean = torch.asin(1 - alpha) * 2 / math.pi
        near_noise = 1 - 4 / math.pi * torch.asin(torch.sqrt(alpha / 2))
        return torch.where(alpha > 0.3, near_clean, near_noise)


class Sqrt(NoiseSchedule):
    """α = 1 − √t (Diffusion-LM, 2205.14217, Sec. 4.2, without its offset): noise comes at once, dα/dt = −∞ at t = 0.

    Against ``linear`` it spends more of t at low α, evenly in √t.
    """

    def alpha(self, t: Tensor) -> Tensor:
        return (1 - t) / (1 + t.sqrt())  # 1 − √t without cancelling near t = 1

    def noise_fraction(self, t: Tensor) -> Tensor:
        return t.sqrt()

    def noise_fraction_at(self, t: float) -> float:
        return math.sqrt(t)

    def dalpha(self, t: Tensor) -> Tensor:
        return -0.5 / t.sqrt()

    def time_of_alpha(self, alpha: Tensor) -> Tensor:
        return (1 - alpha) ** 2


class Polynomial(NoiseSchedule):
    """α = 1 − t^exponent (MD4, 2406.04329, Table 1). Exponents above 1 spend more of t on the clean side, those below
    on the noisy side; 1 is ``linear``, ½ is ``sqrt``."""

    @dataclass
    class Options(Part.Options):
        exponent: Annotated[float, Field(gt=0.0, le=8.0, description="k of α = 1 − t^k")] = 2.0

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.exponent = options.exponent

    def alpha(self, t: Tensor) -> Tensor:
        return -torch.expm1(self.exponent * t.log())  # does not cancel near t = 1; −expm1(−∞) = 1

    def noise_fraction(self, t: Tensor) -> Tensor:
        return t**self.exponent

    def noise_fraction_at(self, t: float) -> float:
        return float(t**self.exponent)

    def dalpha(self, t: Tensor) -> Tensor:
        return -self.exponent * t ** (self.exponent - 1)

    def time_of_alpha(self, alpha: Tensor) -> Tensor:
        return torch.exp(torch.log1p(-alpha) / self.exponent)


class LogSnr(NoiseSchedule):
    """λ = log(α/(1 − α)) falls evenly from ``limit`` to −``limit`` (9: Sumi's range, 2606.19005; 2512.10858).

    A line in λ never reaches α = 1 or 0. Where |λ| would pass the limit, α goes to its end along its tangent instead:
    α stays continuously differentiable and the ends are exact. The slope of λ in t is −2 (limit + 1/σ(limit)), and
    each tail takes δ = 1 / (2 (1 + limit · σ(limit))) of t (0.05 for 9) for a share 1 − σ(limit) of α (1.2e-4).
    """

    @dataclass
    class Options(Part.Options):
        limit: Annotated[
            float,
            Field(
                gt=0.0, le=30.0, description="largest |log-SNR| of the even fall; beyond it α goes to its end in a line"
            ),
        ] = 9.0

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        near_one = 1 / (1 + math.exp(-options.limit))
        self.fall = 2 * (options.limit + 1 / near_one)
        self.tail = 0.5 / (1 + options.limit * near_one)
        self.beyond = 1 / (1 + math.exp(options.limit))  # the share of α in each tail
        self.slope = self.beyond / self.tail

    def alpha(self, t: Tensor) -> Tensor:
        line = torch.sigmoid(self.fall * (0.5 - t))
        straight = torch.where(t < 0.5, 1 - self.slope * t, self.slope * (1 - t))
        return torch.where(self._in_tail(t), straight, line)

    def noise_fraction(self, t: Tensor) -> Tensor:
        line = torch.sigmoid(self.fall * (t - 0.5))
        straight = torch.where(t < 0.5, self.slope * t, 1 - self.slope * (1 - t))
        return torch.where(self._in_tail(t), straight, line)

    def dalpha(self, t: Tensor) -> Tensor:
        on_line = -self.fall * self.alpha(t) * self.noise_fraction(t)
        return torch.where(self._in_tail(t), -self.slope, on_line)

    def time_of_alpha(self, alpha: Tensor) -> Tensor:
        on_line = 0.5 - torch.logit(alpha) / self.fall
        straight = torch.where(alpha > 0.5, (1 - alpha) / self.slope, 1 - alpha / self.slope)
        return torch.where((alpha < self.beyond) | (1 - alpha < self.beyond), straight, on_line)

    def _in_tail(self, t: Tensor) -> Tensor:
        return (t < self.tail) | (1 - t < self.tail)
