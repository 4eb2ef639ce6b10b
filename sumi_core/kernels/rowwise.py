"""A loss per row of logits as one step of autograd: value and gradient in closed form, a chunk of rows at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sumi_core.kernels.chunks import chunks_of, precision_of


class Rowwise(torch.autograd.Function):
    """``[N, S]`` logits and a ``RowLoss`` → ``[N]``."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, loss: Any) -> Tensor:
        kind = precision_of(logits)
        value = torch.zeros(logits.shape[0], dtype=kind, device=logits.device)
        for chunk in chunks_of(logits, loss.rows):
            value[chunk] = loss.value(logits[chunk][:, : loss.width].to(kind), chunk).to(kind)
        ctx.save_for_backward(logits)
        ctx.loss = loss
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None]:
        (logits,), loss = ctx.saved_tensors, ctx.loss
        width = logits.shape[1] if loss.width is None else loss.width
        everything = loss.rows is None and width == logits.shape[1]
        gradient = torch.empty_like(logits) if everything else torch.zeros_like(logits)
        for chunk in chunks_of(logits, loss.rows):
            part = loss.gradient(logits[chunk][:, :width].to(scale.dtype), chunk, scale[chunk])
            gradient[chunk, :width] = part.to(logits.dtype)
        return gradient, None
