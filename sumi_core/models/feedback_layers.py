"""The modules behind the forms of feedback, and the mean embedding that they read."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sumi_core.kernels.chunks import slices_of
from sumi_core.models.config import ModelConfig
from sumi_core.models.interface import Belief, Feedback
from sumi_core.models.layers import RMSNorm, SwiGLU, ZeroLinear


class Residual(nn.Module):
    """(1 − ρ a) E + ρ a Δ."""

    def __init__(self, rho: float) -> None:
        super().__init__()
        self.rho = rho

    def forward(self, embedded: Tensor, feedback: Feedback) -> Tensor:
        share = (self.rho * feedback.weight).unsqueeze(-1).to(embedded.dtype)
        return embedded + share * (feedback.mean - embedded)


class Gated(SwiGLU):
    """E + down(silu(gate(n(Δ))) · up(n(Δ)))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.down_proj = ZeroLinear(config.intermediate_size, config.hidden_size)

    def forward(self, embedded: Tensor, feedback: Feedback) -> Tensor:  # type: ignore[override]
        return embedded + super().forward(self.norm(feedback.mean))


def mean_embedding(belief: Belief, table: Tensor, reading: str) -> Feedback:
    """Δ and a of a belief, its logits held for a few rows at a time. table: ``[S, D]``, the states' embeddings."""
    hidden = belief.output.hidden
    rows, width = hidden.shape[:-1], table.shape[-1]
    flat = hidden.reshape(-1, hidden.shape[-1])
    mean = table.new_zeros(len(flat), width)
    weight = table.new_zeros(len(flat))
    for chunk in slices_of(len(flat), len(table), table.device):
        p, share = belief.read(belief.output.head(flat[chunk]), chunk, reading)  # type: ignore[arg-type]
        mean[chunk] = (p.to(table.dtype) @ table[: p.shape[-1]]).to(table.dtype)
        weight[chunk] = (share * torch.special.entr(p).sum(-1) / math.log(p.shape[-1])).to(table.dtype)
    where = belief.where.expand(rows)
    return Feedback(
        torch.where(where.unsqueeze(-1), mean.view(*rows, width), 0.0), torch.where(where, weight.view(rows), 0.0)
    )
