"""Zipf's law over token ids."""

from __future__ import annotations

import torch
from torch import Tensor


def zipf_law(size: int, offset: float) -> Tensor:
    """``[size]`` float64, proportional to 1 / (id + offset), of sum 1."""
    weights = 1 / (torch.arange(size, dtype=torch.float64) + offset)
    return weights / weights.sum()
