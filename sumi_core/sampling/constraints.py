"""Rules on what a text may hold. A constraint sees the canvas, so it may depend on what stands there.

It acts on what the network predicts of the clean text, not on the noise: masks and noise tokens come and go as they
would without it, and a text that is finished holds only what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from sumi_core.sampling.canvas import Canvas


class ForbiddenTokens:
    """Tokens that no text holds: the predicted probabilities of the others keep their proportions."""

    def __init__(self, tokens: Iterable[int]) -> None:
        self.tokens = torch.tensor(sorted(set(tokens)), dtype=torch.int64)

    def __call__(self, probs: Tensor, canvas: Canvas, positions: Tensor) -> Tensor:
        return probs.index_fill(-1, self.tokens.to(probs.device), 0.0)
