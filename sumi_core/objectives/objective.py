"""What an objective is: a loss to train with, and the likelihood a model is reported with.

The two are kept apart on purpose: whatever a model was trained with, ``likelihood`` is exact or the tight bound, so
that numbers of different objectives may stand side by side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sumi_core.base.registry import Part
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.batch import Batch
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.layouts import LAYOUTS
from sumi_core.layouts.layout import Layout, Whole
from sumi_core.models.interface import DenoiserFunction
from sumi_core.objectives.likelihood import Likelihood, Reading

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """``value``: a scalar to minimise, nats per token, with gradient. ``metrics``: scalars to log, without."""

    value: Tensor
    metrics: dict[str, Tensor]


class Objective(Part, ABC):
    """A training loss, and how to read a likelihood off the model it trains."""

    needs_process: ClassVar[bool] = True
    #: Whether a position of the model may see only what stands before it; None: either will do.
    causal: ClassVar[bool | None] = False
    exact: ClassVar[bool] = False  # whether the likelihood of ``readings`` that comes first is exact, as a rule
    logits_per_token: ClassVar[int] = 1  # rows of logits that training computes for each token
    default_sampler: ClassVar[dict[str, Any]] = {"name": "ancestral"}

    def __init__(
        self,
        options: Any = None,
        *,
        process: ForwardProcess | None,
        vocabulary: Vocabulary,
        layout: Layout | None = None,
    ) -> None:
        super().__init__(options)
        self.layout = layout or Whole()
        if self.needs_process:
            if process is None:
                raise ValueError(
                    f"objective {type(self).__name__} needs a corruption process; name one under 'process'"
                )
            self.process = process
        self.num_tokens = vocabulary.size
        self.eos_id = vocabulary.eos_id

    @classmethod
    def level_per_token(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
        """Whether training gives the denoiser a noise level for each token, rather than one for each text. own, others:
        as for ``incompatibility``."""
        return False

    @classmethod
    def expected_supervision(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> float:
        """The share of the tokens seen that have a loss, the mean over a training of full sequences. own, others: as
        for ``incompatibility``."""
        return 1.0

    @classmethod
    def reports_exactly(cls, own: Mapping[str, Any]) -> bool:
        """Whether a model's main likelihood is exact, or an upper bound on −log p. own: the resolved component."""
        return cls.exact

    @classmethod
    def reported_reading(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> str:
        """The name of a model's main likelihood as tables of readings have it: ``autoregressive``, ``diffusion``,
        ``blocks_16`` … own, others: as for ``incompatibility``."""
        if not cls.needs_process:
            return "autoregressive"
        layout = others["layout"]
        return str(LAYOUTS.get(layout["name"]).bound_name(layout))

    @classmethod
    def modes(cls, own: Mapping[str, Any]) -> dict[str, bool]:
        """What a model of this objective predicts, and whether its loss asks for it: ``next_token``, a token from the
        clean ones before it; ``denoising``, tokens in noise from what stands around them. own: the resolved
        component."""
        return {"denoising": True} if cls.needs_process else {"next_token": True}

    @abstractmethod
    def loss(self, denoiser: DenoiserFunction, batch: Batch) -> Loss:
        """The training loss of one (micro-)batch: a mean over its tokens."""

    @property
    @abstractmethod
    def readings(self) -> dict[str, Reading]:
        """The likelihoods that a model of this objective has, by name; the first is what it is reported with."""

    @property
    def reading(self) -> Reading:
        """The likelihood that a model is reported with, and ranked by."""
        return next(iter(self.readings.values()))

    def likelihood(self, denoiser: DenoiserFunction, batch: Batch, epsilon: float) -> Likelihood:
        """The main reading's estimate of −log p(x) for each sequence; see ``Reading``."""
        return self.reading(denoiser, batch, epsilon)
