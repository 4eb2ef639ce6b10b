"""What a layout is: the slots in which a text in noise is shown to the denoiser.

Objectives and the bound see a function from (z, level) to logits of z's own tokens, whatever else stands beside z in
the forward pass. So a loss, a parameterisation and a process are the same under every layout.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import Field

from sumi_core.base.options import later
from sumi_core.base.registry import Part
from sumi_core.data.noise import address_generator
from sumi_core.models.attention import AttentionPattern, Explicit
from sumi_core.models.interface import DenoiserFunction, DenoiserInput, DenoiserOutput

if TYPE_CHECKING:
    from torch import Tensor


class Layout(Part, ABC):
    """The slots of a forward pass over a text in noise."""

    #: Whether a position of the model may see only what stands before it; None: as the objective demands.
    causal: ClassVar[bool | None] = None
    reading: ClassVar[str] = "diffusion"  # the name of the bound that a model has under this layout
    #: The sampler that writes under this layout, None: the objective's own.
    default_sampler: ClassVar[dict[str, Any] | None] = None
    level_per_slot: ClassVar[bool] = False  # whether the denoiser is given a level for each slot in any case
    #: Whether clean text is read causally beside the noise, so that the model can be an autoregressive one too.
    reads_causally: ClassVar[bool] = False

    def __init__(self, options: Any = None, *, steps: int | None = None, seed: int = 0) -> None:
        """steps, seed: of the training that shows texts so; no steps: what a finished model is shown."""
        super().__init__(options)
        self.steps, self.seed = steps, seed

    @classmethod
    def bound_name(cls, own: Mapping[str, Any], source: str = "") -> str:
        """The name of the bound as tables of readings have it. own: the resolved component; source: the feedback that
        the denoiser is given."""
        return "_".join(filter(None, (cls.reading, source)))

    def at(self, step: int) -> Layout:
        """The layout of one training step, counted from 0. A function of the step alone, so that training resumes."""
        return self

    @abstractmethod
    def of(self, denoiser: DenoiserFunction, x: Tensor, eos_id: int) -> DenoiserFunction:
        """The denoiser of texts ``x`` ``[B, L]`` in noise: it is given z, levels ``[B, L]`` and maybe feedback, and
        returns the hidden states that predict each token, ``[B, L, D]``. eos_id: what stands before a text."""

    @abstractmethod
    def times(self, uniform: Tensor, length: int) -> Tensor:
        """Where in (0, 1) the times of a text's tokens lie in training, ``[B, 1]`` or ``[B, L]``, made of one uniform
        number a text, ``[B, 1]`` float64. Each of them is uniform."""

    @abstractmethod
    def parts(self, length: int) -> Tensor:
        """Which part of a text each position is denoised with, numbers from 0 on that rise: ``[1]`` or ``[L]`` int64.
        Parts are noised apart from each other."""

    @abstractmethod
    def slots(self, length: int) -> float:
        """Slots of a forward pass over a text of ``length`` tokens, the mean over the steps of training."""

    @abstractmethod
    def keys(self, length: int, pattern: AttentionPattern) -> float:
        """Keys that all slots of a token together see on average, the mean over the steps of training. pattern: the
        model's own."""


class Whole(Layout):
    """The text in noise and nothing else, in the model's own attention pattern.

    anneal: in the first part of a training, a position sees what follows it with a chance that rises evenly from
    0 to 1, drawn anew in every step for each pair of positions: a causal model becomes a bidirectional one by degrees
    (DiffuLLaMA, 2410.17891). Which pairs is a function of seed and step.
    """

    description = "all positions of a text are denoised together"

    @dataclass
    class Options(Part.Options):
        anneal: Annotated[
            float,
            Field(
                ge=0.0, le=1.0, description="share of the training's steps in which a causal pattern opens by degrees"
            ),
        ] = later(0.0)

    options: Options

    @classmethod
    def incompatibility(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, str] | None:
        pattern = others["model"]["attention"]["name"]
        if own["anneal"] and pattern != "bidirectional":
            problem = f"opens what a causal pattern hides, and {pattern} attention would hide it again; write model: "
            return "layout.anneal", f"{problem}{{attention: bidirectional}}, or leave anneal out"
        return None

    def at(self, step: int) -> Layout:
        opening = 0.0 if self.steps is None else self.options.anneal * self.steps
        return self if step >= opening else Opening(step / opening, self.seed, step)

    def of(self, denoiser: DenoiserFunction, x: Tensor, eos_id: int) -> DenoiserFunction:
        return denoiser

    def times(self, uniform: Tensor, length: int) -> Tensor:
        return uniform

    def parts(self, length: int) -> Tensor:
        return torch.zeros(1, dtype=torch.int64)

    def slots(self, length: int) -> float:
        return length

    def keys(self, length: int, pattern: AttentionPattern) -> float:
        return pattern.attended(length) * (1 - self.options.anneal / 4)  # while it opens, three quarters on average


class Opening(Whole):
    """The text in noise, each position of which sees itself, what stands before it, and the share ``open`` of what
    follows it. seed, step: the address at which the pairs are drawn."""

    def __init__(self, open_: float, seed: int, step: int) -> None:
        super().__init__()
        self.open, self.address = open_, (seed, "anneal", step)

    def of(self, denoiser: DenoiserFunction, x: Tensor, eos_id: int) -> DenoiserFunction:
        pattern = Explicit(self.mask(x.shape[1]).to(x.device))

        def opened(given: DenoiserInput) -> DenoiserOutput:
            return denoiser(replace(given, pattern=pattern))

        return opened

    def mask(self, length: int) -> Tensor:
        """Who sees whom, ``[L, L]`` bool."""
        drawn = torch.from_numpy(address_generator(*self.address).random((length, length)))
        return (drawn < self.open) | torch.ones(length, length, dtype=torch.bool).tril()
