"""Drawing states from probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def draw_categorical(probs: Tensor, uniform: Tensor) -> Tensor:
    """One state per position by inverting the cumulative distribution in float64.

    Low-precision draws act like a lower temperature and flatter sample quality (2409.02908), hence float64. States of
    probability 0 are never drawn: the threshold lies strictly below the total, and only a state that lifts the
    cumulative sum above it is chosen.

    probs: ``[..., S]``, need not be normalised. uniform: ``[...]`` float64 in [0, 1). Returns ``[...]`` int64.
    Raises ValueError where they are NaN or add up to nothing, which a search would turn into a state that is none.
    """
    cumulative = probs.to(torch.float64).cumsum(-1)
    if not ((cumulative[..., -1] > 0) & cumulative[..., -1].isfinite()).all():
        raise ValueError(
            "cannot draw a state: the probabilities are NaN or all zero; does the denoiser give NaN logits?"
        )
    threshold = uniform.to(torch.float64).unsqueeze(-1) * cumulative[..., -1:]
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)
