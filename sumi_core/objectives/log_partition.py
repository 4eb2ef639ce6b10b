"""The squared log-partition of logits, whose mean keeps them from drifting (z-loss: PaLM, 2204.02311, Sec. 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sumi_core.kernels.row_loss import RowLoss, Rows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class SquaredLogPartition(RowLoss):
    """(log Σ_y exp logit_y)² over the first ``width`` states, with gradient 2 log Σ · softmax."""

    width: int | None = None

    def value(self, chunk: Tensor, rows: Rows) -> Tensor:
        return chunk.logsumexp(-1) ** 2

    def gradient(self, chunk: Tensor, rows: Rows, scale: Tensor) -> Tensor:
        return chunk.softmax(-1).mul_((2 * scale * chunk.logsumexp(-1))[:, None])
