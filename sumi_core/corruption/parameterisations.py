"""What a denoiser's logits mean: p(x_i | z_{−i}), which the bound needs, or p(x_i | z) (design: math.md 2)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from sumi_core.rowwise import precision_of

if TYPE_CHECKING:
    from sumi_core.corruption.process import ForwardProcess


class Parameterisation(ABC):
    """How to read a denoiser's logits."""

    in_words: ClassVar[str] = "the logits mean what this parameterisation says"  # for readers of a model card

    @dataclass
    class Options:
        """No options."""

    def __init__(self, options: Options) -> None:
        self.options = options

    @abstractmethod
    def leave_one_out(self, process: ForwardProcess, logits: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """Logits of p(x_i | z_{−i}), ``[B, L, S]``, at levels t broadcastable to ``[B, L]``."""


class LeaveOneOut(Parameterisation):
    """The logits are log p(x_i | z_{−i}): what the bound is minimised by."""

    in_words = "the logits at a position predict its clean token from all the others, its own noisy token left out"

    def leave_one_out(self, process: ForwardProcess, logits: Tensor, z: Tensor, t: Tensor) -> Tensor:
        return logits


class Posterior(Parameterisation):
    """The logits are log p(x_i | z), the own token seen: log p(x_i | z_{−i}) = logits − log q_t(z_i | x_i) + constant.

    Where z_i rules tokens out (an unmasked position), they keep their logits: the posterior says nothing of them.
    """

    in_words = (
        "the logits at a position predict its clean token from the noisy text, its own noisy token included"
    )

    def leave_one_out(self, process: ForwardProcess, logits: Tensor, z: Tensor, t: Tensor) -> Tensor:
        evidence = process.log_evidence(z, t)
        logits = logits.to(precision_of(logits))  # bfloat16 would round the evidence away
        return logits - torch.where(evidence.isfinite(), evidence, 0.0).to(logits.dtype)
