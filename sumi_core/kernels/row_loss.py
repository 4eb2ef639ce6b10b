"""Losses that are one number per row of logits, computed a few rows at a time.

With a large vocabulary the logits ``[N, S]`` are the largest tensor of a training step, and a loss written in plain
tensor algebra keeps three to eight copies of them for its gradient. Here a loss gives its value *and its gradient in
closed form*, both for a chunk of rows that fits the cache; the backward pass recomputes the chunk's softmax instead of
remembering it. Alive at once: the logits, their gradient, and a chunk. Since a loss asks for a chunk of logits only, a
head that computes logits chunk by chunk can apply the same loss without ever holding them all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sumi_core.kernels.chunks import Rows

if TYPE_CHECKING:
    from torch import Tensor


class RowLoss(ABC):
    """One number per row of logits, and its gradient in closed form.

    width: only the first W states take part; None: all. rows: int64 indices of the rows that are computed, the others
    being exactly 0; None: all. What takes no part gets no gradient.

    In both methods ``rows`` says which rows of the batch the chunk holds, to pick the loss's own per-row quantities
    with. The chunk comes in float32 (float64 if the logits are) and may share memory with the logits: it is read only.
    """

    width: int | None = None
    rows: Tensor | None = None

    @abstractmethod
    def value(self, chunk: Tensor, rows: Rows) -> Tensor:
        """``[n, W]`` logits → ``[n]``."""

    @abstractmethod
    def gradient(self, chunk: Tensor, rows: Rows, scale: Tensor) -> Tensor:
        """``[n, W]`` logits and ``scale [n]`` → ``[n, W]``, ``scale`` × the gradient of the value."""

    def of(self, logits: Tensor) -> Tensor:
        """The loss of every row: ``[..., S]`` logits of any float type → ``[...]`` in float32 or, for float64 logits,
        float64. Rows are counted over all leading dimensions. Differentiable once."""
        from sumi_core.kernels.rowwise import Rowwise  # whose base class is torch's: importing it runs torch

        value: Tensor = Rowwise.apply(logits.reshape(-1, logits.shape[-1]), self)
        return value.view(logits.shape[:-1])

    def times(self, weight: Tensor) -> RowLoss:
        """This loss times a number per row; weight: of as many entries as there are rows, in any shape."""
        return Weighted(self, weight.reshape(-1))


class Wrapper(RowLoss):
    """A loss made of another one, over the same rows and states."""

    def __init__(self, inner: RowLoss) -> None:
        self.inner, self.width, self.rows = inner, inner.width, inner.rows


class Weighted(Wrapper):
    """weight · inner. Value and gradient are 0 where the weight is 0, even if the inner ones are not finite.
    weight: ``[N]``."""

    def __init__(self, inner: RowLoss, weight: Tensor) -> None:
        super().__init__(inner)
        self.weight = weight

    def value(self, chunk: Tensor, rows: Rows) -> Tensor:
        value = self.inner.value(chunk, rows)
        weight = self.weight[rows].to(value.dtype)
        return torch.where(weight != 0, weight * value, 0.0)

    def gradient(self, chunk: Tensor, rows: Rows, scale: Tensor) -> Tensor:
        weight = self.weight[rows].to(scale.dtype)
        gradient = self.inner.gradient(chunk, rows, scale * weight)
        return torch.where((weight != 0)[:, None], gradient, 0.0)


class Shifted(Wrapper):
    """inner at logits less a constant per entry. shift: the constants of some rows, ``[n, S]`` in any float type."""

    def __init__(self, inner: RowLoss, shift: Callable[[Rows], Tensor]) -> None:
        super().__init__(inner)
        self.shift = shift

    def value(self, chunk: Tensor, rows: Rows) -> Tensor:
        return self.inner.value(self._moved(chunk, rows), rows)

    def gradient(self, chunk: Tensor, rows: Rows, scale: Tensor) -> Tensor:
        return self.inner.gradient(self._moved(chunk, rows), rows, scale)

    def _moved(self, chunk: Tensor, rows: Rows) -> Tensor:
        return chunk - self.shift(rows)[:, : chunk.shape[-1]].to(chunk.dtype)


class Differentiated(RowLoss):
    """A function of a chunk in plain tensor algebra, whose gradient autograd computes chunk by chunk."""

    def __init__(self, function: Callable[[Tensor, Rows], Tensor], width: int | None = None) -> None:
        self.function, self.width = function, width

    def value(self, chunk: Tensor, rows: Rows) -> Tensor:
        return self.function(chunk, rows)

    def gradient(self, chunk: Tensor, rows: Rows, scale: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = chunk.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.function(leaf, rows), leaf, scale)
        return gradient


@dataclass
class CrossEntropy(RowLoss):
    """−log softmax(logits)[target] in nats, over the first ``width`` states. targets: ``[N]`` int64."""

    targets: Tensor
    width: int | None = None
    rows: Tensor | None = None

    def value(self, chunk: Tensor, rows: Rows) -> Tensor:
        return chunk.logsumexp(-1) - pick(chunk, self.targets[rows])

    def gradient(self, chunk: Tensor, rows: Rows, scale: Tensor) -> Tensor:
        gradient = chunk.softmax(-1)
        put_add(gradient, self.targets[rows], torch.full_like(scale, -1.0))
        return gradient.mul_(scale[:, None])


def cross_entropy_loss(targets: Tensor, num_tokens: int, where: Tensor | None = None) -> CrossEntropy:
    """Cross-entropy of each position over the first ``num_tokens`` states alone.

    targets: ``[...]`` int64 below ``num_tokens``. where: bool ``[...]``, the positions to compute; others are 0.
    """
    rows = None if where is None else where.reshape(-1).nonzero().squeeze(1)
    return CrossEntropy(targets.reshape(-1), num_tokens, rows)


def cross_entropy(logits: Tensor, targets: Tensor, num_tokens: int, where: Tensor | None = None) -> Tensor:
    """``cross_entropy_loss`` of logits ``[..., S]``: ``[...]``, in nats."""
    return cross_entropy_loss(targets, num_tokens, where).of(logits)


def pick(table: Tensor, index: Tensor) -> Tensor:
    """``table[..., index]``: ``[..., S]`` and ``[...]`` → ``[...]``."""
    return table.gather(-1, index.unsqueeze(-1)).squeeze(-1)


def put_add(table: Tensor, index: Tensor, value: Tensor) -> None:
    """``table[..., index] += value`` in place: ``[..., S]``, ``[...]``, ``[...]``."""
    table.scatter_add_(-1, index.unsqueeze(-1), value.unsqueeze(-1))
