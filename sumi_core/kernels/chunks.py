"""The rows of logits that are computed at a time, and in which type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch

if TYPE_CHECKING:
    from torch import Tensor

Rows: TypeAlias = "slice | Tensor"  # a range of rows, or their indices
Tile: TypeAlias = "tuple[slice, slice]"  # rows of a table, and places of them

# Entries of one chunk. On a CPU, 4 MiB of float32 keeps the passes over it in cache without paying for many calls.
_CHUNK_ENTRIES = {"cpu": 2**20}
_CHUNK_ENTRIES_ACCELERATOR = 2**26


def precision_of(logits: Tensor) -> torch.dtype:
    """The type a loss computes in: bfloat16 and float16 logits are lifted to float32."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def chunks_of(logits: Tensor, rows: Tensor | None) -> list[Rows]:
    """The rows of ``[N, S]`` logits, or those that ``rows`` names, in pieces that fit the cache."""
    if rows is not None:
        return list(rows.split(_rows_of(logits.shape[-1], logits.device)))
    return list(slices_of(logits.shape[0], logits.shape[-1], logits.device))


def slices_of(count: int, width: int, device: torch.device) -> list[slice]:
    """``count`` rows of ``width`` entries in pieces that fit the cache."""
    size = _rows_of(width, device)
    return [slice(start, start + size) for start in range(0, count, size)]


def tiles_of(table: Tensor) -> list[Tile]:
    """The rows and places of a table ``[B, L, S]`` in pieces that fit the cache: whole rows, as many as do, or some
    places of one row."""
    (rows, length, width), device = table.shape, table.device
    together = _rows_of(width * max(length, 1), device)
    if together > 1 or length * width <= _entries(device):
        return [(slice(first, min(first + together, rows)), slice(0, length)) for first in range(0, rows, together)]
    parts = [slice(part.start, min(part.stop, length)) for part in slices_of(length, width, device)]
    return [(slice(row, row + 1), part) for row in range(rows) for part in parts]


def by_tiles(table: Tensor, read: Callable[[Tile], Sequence[Tensor]]) -> list[Tensor]:
    """What ``read`` finds in each piece of a table ``[B, L, S]``, tensors of the rows and places of the piece, put
    together: ``[B, L]`` each."""
    whole: list[Tensor] = []
    for tile in tiles_of(table):
        found = read(tile)
        whole = whole or [part.new_empty(table.shape[:2]) for part in found]
        for own, part in zip(whole, found, strict=True):
            own[tile] = part
    return whole


def _rows_of(width: int, device: torch.device) -> int:
    return max(1, _entries(device) // width)


def _entries(device: torch.device) -> int:
    return _CHUNK_ENTRIES.get(device.type, _CHUNK_ENTRIES_ACCELERATOR)
