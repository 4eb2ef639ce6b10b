"""Noise clocks: how the noise level runs along a sequence while time t goes from 0 (clean) to 1 (noise).

A clock gives every position a level that never falls as t rises; given the clocks, positions are corrupted
independently. Clocks are drawn independently of the data, so the bound, averaged over them, is a bound on the
likelihood whether or not the denoiser is given their levels (docs/mathematics.md 5).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.data.noise import Noise

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ClockReading:
    """Where clocks stand at a time. All float64, broadcastable to ``[B, L]``.

    level: in [0, 1]. speed: dlevel/dt ≥ 0. conditioning_level: what the denoiser is given, ``[B]`` or ``[B, L]``.
    """

    level: Tensor
    speed: Tensor
    conditioning_level: Tensor


class Clocks(ABC):
    """The clocks of B sequences, drawn once and read at any time."""

    @abstractmethod
    def at(self, t: Tensor) -> ClockReading:
        """Their reading at times t ``[B]`` float64 in [0, 1]."""


class Clock(Part, ABC):
    """How clocks are drawn."""

    one_level: ClassVar[bool] = False  # whether all positions of a text stand at its time
    description = "positions of a text may stand at levels of their own"

    @property
    def level_per_token(self) -> bool:
        """Whether the denoiser is given a level for each token, ``[B, L]``, rather than one for each text."""
        return True

    def running(self, length: int) -> float:
        """The share of the positions of a text of ``length`` tokens whose level moves, a mean over t."""
        return 1.0

    @abstractmethod
    def draw(self, noise: Noise, length: int) -> Clocks:
        """Clocks for sequences of ``length``, one row per row of ``noise``."""


class _Shared(Clocks):
    def at(self, t: Tensor) -> ClockReading:
        return ClockReading(t.unsqueeze(-1), torch.ones_like(t).unsqueeze(-1), t)


class Shared(Clock):
    """One clock for all positions: the level is t itself, as in every published likelihood of a diffusion model."""

    one_level = True
    description = "all positions of a text stand at one noise level"

    @property
    def level_per_token(self) -> bool:
        return False

    def draw(self, noise: Noise, length: int) -> Clocks:
        return _Shared()


@dataclass(frozen=True)
class _Spans(Clocks):
    start: Tensor  # u of each position's span, [B, L]
    window: float | Tensor  # of all spans, or of those of each row, [B, 1]
    conditioned: bool

    def at(self, t: Tensor) -> ClockReading:
        ran = (t.unsqueeze(-1) - self.start) / self.window
        moving = (ran >= 0) & (ran <= 1)
        level = ran.clamp(0, 1)
        return ClockReading(level, moving.to(level) / self.window, level if self.conditioned else t)


class Spans(Clock):
    """A clock per span: τ(t) = clip((t − u)/w, 0, 1) with u ~ U(0, 1 − w) (docs/mathematics.md 5).

    mean_length: spans are cut at each position with probability 1 / mean_length, so lengths are geometric. window: w;
    1 gives every span the ordinary clock, a small one corrupts one stretch after another and leaves whole stretches
    readable. conditioning_level: a denoiser with time conditioning is given every position's own level, else only t.
    """

    description = "each span of a few tokens has a noise level of its own"

    @dataclass
    class Options(Part.Options):
        mean_length: Annotated[
            float, Field(ge=1.0, description="mean length of a span in tokens; lengths are geometric")
        ] = 8.0
        window: Annotated[
            float,
            Field(
                gt=0.0,
                le=1.0,
                description="share of the time over which one span goes from clean to noise; 1: all of it",
            ),
        ] = 0.5
        conditioned: Annotated[
            bool,
            Field(description="give a denoiser with time conditioning every position's own level, instead of t alone"),
        ] = True

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.mean_length, self.window = options.mean_length, options.window

    @property
    def level_per_token(self) -> bool:
        return bool(self.options.conditioned)

    def running(self, length: int) -> float:
        return self.window

    def draw(self, noise: Noise, length: int) -> Clocks:
        cut = noise.uniform(length, dtype=torch.float64) < 1 / self.mean_length
        cut[:, 0] = False  # the first position starts the first span anyway
        starts = (1 - self.window) * noise.uniform(length, dtype=torch.float64)  # as many as there can be spans
        return _Spans(starts.gather(1, cut.cumsum(1)), self.window, self.options.conditioned)


class Staircase(Clock):
    """A clock per block of ``length`` tokens: τ_k(t) = clip(Kt − (K − 1 − k), 0, 1) for block k of K.

    Blocks turn to noise one after the other, the last one first: while one is on its way, those before it are clean and
    those after it pure noise. One bidirectional stream that is given the levels then has the bound of the layout of
    blocks (docs/mathematics.md 5), and the ancestral sampler writes a text block after block if its steps are a
    multiple of the blocks; a draw measures one block where two streams measure them all. conditioning_level: a denoiser
    with time conditioning is given every position's own level.
    """

    description = "blocks of a text turn to noise one after the other, the last one first"

    @dataclass
    class Options(Part.Options):
        length: Annotated[int, Field(ge=1, le=2**20, description="tokens of a block")] = 16

    def running(self, length: int) -> float:
        return 1 / math.ceil(length / self.options.length)

    def draw(self, noise: Noise, length: int) -> Clocks:
        lengths = torch.tensor(noise.lengths or [length], device=noise.device).double()[:, None]
        blocks = (lengths / self.options.length).ceil()  # of each row, whatever the longest one is
        block = torch.arange(length, device=noise.device) // self.options.length
        return _Spans((blocks - 1 - block) / blocks, 1 / blocks, conditioned=True)
