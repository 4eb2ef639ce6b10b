"""What a layout is: the slots in which a text in noise is shown to the denoiser.

Objectives and the bound see a function from (z, level) to logits of z's own tokens, whatever else stands beside z in
the forward pass. So a loss, a parameterisation and a process are the same under every layout.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from sumi_core.base.registry import Part
from sumi_core.models.attention import AttentionPattern
from sumi_core.models.interface import DenoiserFunction

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

    def __init__(self, options: Any = None, *, steps: int | None = None) -> None:
        """steps: of the training that shows texts so; None: what a finished model is shown."""
        super().__init__(options)
        self.steps = steps

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
    def slots(self, length: int) -> float:
        """Slots of a forward pass over a text of ``length`` tokens, the mean over the steps of training."""

    @abstractmethod
    def keys(self, length: int, pattern: AttentionPattern) -> float:
        """Keys that all slots of a token together see on average, the mean over the steps of training. pattern: the
        model's own."""


class Whole(Layout):
    """The text in noise and nothing else, in the model's own attention pattern."""

    description = "all positions of a text are denoised together"

    def of(self, denoiser: DenoiserFunction, x: Tensor, eos_id: int) -> DenoiserFunction:
        return denoiser

    def times(self, uniform: Tensor, length: int) -> Tensor:
        return uniform

    def slots(self, length: int) -> float:
        return length

    def keys(self, length: int, pattern: AttentionPattern) -> float:
        return pattern.attended(length)
