"""What an objective is: a loss to train with, and the likelihood a model is reported with.

The two are kept apart on purpose: whatever a model was trained with, ``likelihood`` is exact or the tight bound, so
that numbers of different objectives may stand side by side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sumi_core.base.registry import Part
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.batch import Batch
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.models.interface import DenoiserFunction


@dataclass(frozen=True)
class Loss:
    """``value``: a scalar to minimise, nats per token, with gradient. ``metrics``: scalars to log, without."""

    value: Tensor
    metrics: dict[str, Tensor]


@dataclass(frozen=True)
class Likelihood:
    """An estimate of −log p(x) of each sequence in nats, all fields ``[B]`` float64.

    −log p(x) = or ≤ E[diffusion + reconstruction + prior]. An exact likelihood has all of it in ``diffusion``.

    The last four say how the loss depends on the noise: at ``time`` in [0, 1], when the noise level is ``level`` (t, in
    [ε, 1 − ε]) and a share ``alpha`` of the tokens survives, a token costs ``nats_per_alpha`` nats per unit of α.
    Plotted against 1 − α its area is the bound's diffusion term per token, whatever the schedule. Where positions have
    levels of their own, level and alpha are their means, and nats_per_alpha is that of the positions whose clock runs
    (NaN when none does). An exact likelihood has time and level 0, alpha 1, nats_per_alpha 0.
    """

    diffusion: Tensor
    reconstruction: Tensor
    prior: Tensor
    time: Tensor
    level: Tensor
    alpha: Tensor
    nats_per_alpha: Tensor

    @property
    def total(self) -> Tensor:
        """Nats per sequence: the three terms together."""
        return self.diffusion + self.reconstruction + self.prior


class Objective(Part, ABC):
    """A training loss, and how to read a likelihood off the model it trains."""

    needs_process: ClassVar[bool] = True
    #: Whether a position of the model may see only what stands before it; None: either will do.
    causal: ClassVar[bool | None] = False
    exact: ClassVar[bool] = False  # is likelihood() the likelihood itself, or an upper bound on −log p
    default_sampler: ClassVar[dict[str, Any]] = {"name": "ancestral"}

    def __init__(self, options: Any, *, process: ForwardProcess | None, vocabulary: Vocabulary) -> None:
        super().__init__(options)
        if self.needs_process:
            if process is None:
                raise ValueError(
                    f"objective {type(self).__name__} needs a corruption process; name one under 'process'"
                )
            self.process = process
        self.num_tokens = vocabulary.size
        self.eos_id = vocabulary.eos_id

    @abstractmethod
    def loss(self, denoiser: DenoiserFunction, batch: Batch) -> Loss:
        """The training loss of one (micro-)batch: a mean over its tokens."""

    @abstractmethod
    def likelihood(self, denoiser: DenoiserFunction, batch: Batch, epsilon: float) -> Likelihood:
        """An unbiased estimate of the exact −log p or of its tight upper bound, one noise level per row.

        ``epsilon``: the bound integrates t over [ε, 1 − ε] and adds both ends. Average several steps of a batch (each
        draws new levels and noise) for a better estimate. No gradient.
        """


def per_sequence(nats: Tensor) -> Tensor:
    """Sum over positions in float64: ``[B, L]`` → ``[B]``."""
    return nats.to(torch.float64).sum(-1)
