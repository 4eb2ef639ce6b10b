"""Rules on what a sampler may draw. A constraint sees the canvas, so it may depend on what stands there."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from sumi_core.sampling.canvas import Canvas


class ForbiddenTokens:
    """Tokens that are never drawn: the others' probabilities keep their proportions."""

    def __init__(self, tokens: Iterable[int]) -> None:
        self.tokens = torch.tensor(sorted(set(tokens)), dtype=torch.int64)

    def __call__(self, probs: Tensor, canvas: Canvas, positions: Tensor) -> Tensor:
        return probs.index_fill(-1, self.tokens.to(probs.device), 0.0)
