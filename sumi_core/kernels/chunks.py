"""The rows of logits that are computed at a time, and in which type."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch

if TYPE_CHECKING:
    from torch import Tensor

Rows: TypeAlias = "slice | Tensor"  # a range of rows, or their indices

# Entries of one chunk. On a CPU, 4 MiB of float32 keeps the passes over it in cache without paying for many calls.
_CHUNK_ENTRIES = {"cpu": 2**20}
_CHUNK_ENTRIES_ACCELERATOR = 2**26


def precision_of(logits: Tensor) -> torch.dtype:
    """The type a loss computes in: bfloat16 and float16 logits are lifted to float32."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def chunks_of(logits: Tensor, rows: Tensor | None) -> list[Rows]:
    """The rows of ``[N, S]`` logits, or those that ``rows`` names, in pieces that fit the cache."""
    entries = _CHUNK_ENTRIES.get(logits.device.type, _CHUNK_ENTRIES_ACCELERATOR)
    size = max(1, entries // logits.shape[-1])
    if rows is not None:
        return list(rows.split(size))
    return [slice(start, start + size) for start in range(0, logits.shape[0], size)]
