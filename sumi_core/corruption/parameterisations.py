"""What a denoiser's logits mean: p(x_i | z_{−i}), which the bound needs, or p(x_i | z) (docs/mathematics.md 2).

That the bound of uniform noise is least at p(x_i | z_{−i}) is also shown by Gourevitch et al., 2605.22765.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import torch

from sumi_core.base.registry import Part
from sumi_core.kernels.chunks import Rows, chunks_of, precision_of
from sumi_core.kernels.row_loss import RowLoss, Shifted

if TYPE_CHECKING:
    from torch import Tensor


class Parameterisation(Part, ABC):
    """How to read a denoiser's logits."""

    description = "the logits mean what this parameterisation says"
    reading: ClassVar[str]  # how predictions are read that are fed back: ``posterior`` or ``leave_one_out``

    @abstractmethod
    def leave_one_out(self, logits: Tensor, log_evidence: Callable[[Rows], Tensor]) -> Tensor:
        """Logits of p(x_i | z_{−i}) from the denoiser's own, both ``[B, L, S]``.

        log_evidence: computes log q_t(z_i | x_i) of every state x_i, up to a constant, of some rows in the order of
        ``[B, L]``: ``[n, S]`` float64."""

    @abstractmethod
    def wrap(self, loss: RowLoss, log_evidence: Callable[[Rows], Tensor]) -> RowLoss:
        """A loss of leave-one-out logits as one of the denoiser's own. log_evidence: of some rows, ``[n, S]``."""


class LeaveOneOut(Parameterisation):
    """The logits are log p(x_i | z_{−i}): what the bound is minimised by."""

    description = "the logits at a position predict its clean token from all the others, its own noisy token left out"
    reading = "leave_one_out"

    def leave_one_out(self, logits: Tensor, log_evidence: Callable[[Rows], Tensor]) -> Tensor:
        return logits

    def wrap(self, loss: RowLoss, log_evidence: Callable[[Rows], Tensor]) -> RowLoss:
        return loss


class Posterior(Parameterisation):
    """The logits are log p(x_i | z), the own token seen: log p(x_i | z_{−i}) = logits − log q_t(z_i | x_i) + constant.

    Where z_i rules tokens out (an unmasked position), they keep their logits: the posterior says nothing of them.
    """

    description = "the logits at a position predict its clean token from the noisy text, its own noisy token included"
    reading = "posterior"

    def leave_one_out(self, logits: Tensor, log_evidence: Callable[[Rows], Tensor]) -> Tensor:
        rows = logits.reshape(-1, logits.shape[-1]).to(precision_of(logits))  # bfloat16 would round the evidence away
        parts = [rows[own] - _finite(log_evidence(own)).to(rows.dtype) for own in chunks_of(rows, None)]
        return torch.cat([rows[:0], *parts]).view(logits.shape)

    def wrap(self, loss: RowLoss, log_evidence: Callable[[Rows], Tensor]) -> RowLoss:
        return Shifted(loss, lambda rows: _finite(log_evidence(rows)))


def _finite(evidence: Tensor) -> Tensor:
    return torch.where(evidence.isfinite(), evidence, 0.0)
