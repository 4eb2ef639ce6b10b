"""The squared log-partition of logits, whose mean keeps them from drifting (z-loss: PaLM, 2204.02311, Sec. 5)."""

from __future__ import annotations

from torch import Tensor

from sumi_core.kernels.row_loss import RowLoss, Rows, rowwise


class SquaredLogPartition(RowLoss):
    """(log Σ_y exp logit_y)², with gradient 2 log Σ · softmax."""

    def value(self, chunk: Tensor, rows: Rows) -> Tensor:
        return chunk.logsumexp(-1) ** 2

    def gradient(self, chunk: Tensor, rows: Rows, scale: Tensor) -> Tensor:
        return chunk.softmax(-1).mul_((2 * scale * chunk.logsumexp(-1))[:, None])


def squared_log_partition(logits: Tensor, num_tokens: int) -> Tensor:
    """Of the first ``num_tokens`` states at each position: ``[..., S]`` → ``[...]``."""
    return rowwise(SquaredLogPartition(), logits.reshape(-1, logits.shape[-1]), width=num_tokens).view(
        logits.shape[:-1]
    )
