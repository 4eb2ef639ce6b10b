"""Losses that are one number per row of logits, computed a few rows at a time.

With a large vocabulary the logits ``[N, S]`` are the largest tensor of a training step, and a loss written in plain
tensor algebra keeps three to eight copies of them for its gradient. Here a loss gives its value *and its gradient in
closed form*, both for a chunk of rows that fits the cache; the backward pass recomputes the chunk's softmax instead of
remembering it. Alive at once: the logits, their gradient, and a chunk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Rows = slice | Tensor  # a range of rows, or their indices

# Entries of one chunk. On a CPU, 4 MiB of float32 keeps the passes over it in cache without paying for many calls.
_CHUNK_ENTRIES = {"cpu": 2**20}
_CHUNK_ENTRIES_ACCELERATOR = 2**26


class RowLoss(ABC):
    """One number per row of logits, and its gradient in closed form.

    ``rows`` says which rows of the batch the chunk holds, to pick this term's own per-row quantities with. The chunk
    comes in float32 (float64 if the logits are) and may share memory with the logits: it is read only.
    """

    @abstractmethod
    def value(self, chunk: Tensor, rows: Rows) -> Tensor:
        """``[n, W]`` logits → ``[n]``."""

    @abstractmethod
    def gradient(self, chunk: Tensor, rows: Rows, scale: Tensor) -> Tensor:
        """``[n, W]`` logits and ``scale [n]`` → ``[n, W]``, ``scale`` × the gradient of the value."""


def rowwise(term: RowLoss, logits: Tensor, *, width: int | None = None, rows: Tensor | None = None) -> Tensor:
    """Apply a term to ``[N, S]`` logits of any float type: ``[N]`` in float32 or, for float64 logits, float64.

    With ``width`` W only the first W states take part; with ``rows`` (int64 indices) only those rows are computed, the
    others are 0. What takes no part gets no gradient. Differentiable once.
    """
    value: Tensor = _Rowwise.apply(logits, term, width or logits.shape[-1], rows)
    return value


def precision_of(logits: Tensor) -> torch.dtype:
    """The type a loss computes in: bfloat16 and float16 logits are lifted to float32."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _chunks(logits: Tensor, rows: Tensor | None) -> list[Rows]:
    entries = _CHUNK_ENTRIES.get(logits.device.type, _CHUNK_ENTRIES_ACCELERATOR)
    size = max(1, entries // logits.shape[-1])
    if rows is not None:
        return list(rows.split(size))
    return [slice(start, start + size) for start in range(0, logits.shape[0], size)]


class _Rowwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, term: RowLoss, width: int, rows: Tensor | None) -> Tensor:
        kind = precision_of(logits)
        value = torch.zeros(logits.shape[0], dtype=kind, device=logits.device)
        for chunk in _chunks(logits, rows):
            value[chunk] = term.value(logits[chunk][:, :width].to(kind), chunk)
        ctx.save_for_backward(logits)
        ctx.term, ctx.width, ctx.rows = term, width, rows
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None, None, None]:
        (logits,) = ctx.saved_tensors
        term, width, rows = ctx.term, ctx.width, ctx.rows
        everything = rows is None and width == logits.shape[1]
        gradient = torch.empty_like(logits) if everything else torch.zeros_like(logits)
        for chunk in _chunks(logits, rows):
            part = term.gradient(logits[chunk][:, :width].to(scale.dtype), chunk, scale[chunk])
            gradient[chunk, :width] = part.to(logits.dtype)
        return gradient, None, None, None


@dataclass
class CrossEntropy(RowLoss):
    """−log softmax(logits)[target]. targets: ``[N]`` int64."""

    targets: Tensor

    def value(self, chunk: Tensor, rows: Rows) -> Tensor:
        return chunk.logsumexp(-1) - pick(chunk, self.targets[rows])

    def gradient(self, chunk: Tensor, rows: Rows, scale: Tensor) -> Tensor:
        gradient = chunk.softmax(-1)
        put_add(gradient, self.targets[rows], torch.full_like(scale, -1.0))
        return gradient.mul_(scale[:, None])


def cross_entropy(logits: Tensor, targets: Tensor, num_tokens: int, where: Tensor | None = None) -> Tensor:
    """Cross-entropy in nats at each position, over the first ``num_tokens`` states alone.

    logits: ``[..., S]``. targets: ``[...]`` int64 below ``num_tokens``. Returns ``[...]``. With ``where`` (bool
    ``[...]``) only those positions are computed; the others are exactly 0.
    """
    rows = None if where is None else where.reshape(-1).nonzero().squeeze(1)
    term = CrossEntropy(targets.reshape(-1))
    return rowwise(term, logits.reshape(-1, logits.shape[-1]), width=num_tokens, rows=rows).view(targets.shape)


def pick(table: Tensor, index: Tensor) -> Tensor:
    """``table[..., index]``: ``[..., S]`` and ``[...]`` → ``[...]``."""
    return table.gather(-1, index.unsqueeze(-1)).squeeze(-1)


def put_add(table: Tensor, index: Tensor, value: Tensor) -> None:
    """``table[..., index] += value`` in place: ``[..., S]``, ``[...]``, ``[...]``."""
    table.scatter_add_(-1, index.unsqueeze(-1), value.unsqueeze(-1))
