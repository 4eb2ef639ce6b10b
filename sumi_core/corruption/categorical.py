"""Drawing states from probabilities."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_categorical(probs: Tensor, uniform: Tensor) -> Tensor:
    """One state per position by inverting the cumulative distribution in float64.

    Low-precision draws act like a lower temperature and flatter sample quality (2409.02908), hence float64. States of
    probability 0 are never drawn: the threshold lies strictly below the total, and only a state that lifts the
    cumulative sum above it is chosen.

    probs: ``[..., S]``, need not be normalised. uniform: ``[...]`` float64 in [0, 1). Returns ``[...]`` int64.
    """
    cumulative = probs.to(torch.float64).cumsum(-1)
    threshold = uniform.to(torch.float64).unsqueeze(-1) * cumulative[..., -1:]
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)
