"""Keys and values of tokens that a causal model has read, kept so that they are not computed again.

Three uses of one forward pass (``Denoiser`` with a cache): *prefill* or *commit* appends the slots of new clean tokens,
*denoise* lets slots see the cache and themselves and keeps nothing, *crop* shortens rows. Rows accept different numbers
of tokens, so keys are left-aligned and masked by ``lengths``: what a row computes does not depend on the others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sumi_core.models.attention import Slots


class KeyValues:
    """The kept slots of B rows: per layer keys and values ``[B, H_kv, capacity, w]``, rotated already, of which row b
    holds ``lengths[b]``. ``positions`` ``[B, capacity]`` int64: where each kept slot stands in its text.

    capacity grows by doubling, so that a token costs the same however long the text has become.
    """

    def __init__(self, rows: int, capacity: int = 16, device: torch.device | str = "cpu") -> None:
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        self.positions = torch.zeros(rows, max(1, capacity), dtype=torch.int64, device=device)
        self._layers: list[tuple[Tensor, Tensor]] = []

    @property
    def capacity(self) -> int:
        """Slots that there is room for."""
        return self.positions.shape[1]

    @property
    def longest(self) -> int:
        """Slots that the fullest row holds."""
        return int(self.lengths.max())

    def kept(self) -> Slots:
        """The slots that any row holds, as keys: ``[B, max(lengths)]``, those a shorter row lacks being invalid."""
        longest = self.longest
        place = torch.arange(longest, device=self.lengths.device)
        return Slots(self.positions[:, :longest], valid=place < self.lengths[:, None])

    def layer(self, number: int) -> tuple[Tensor, Tensor] | None:
        """Keys and values of a layer, ``[B, H_kv, max(lengths), w]``; None while nothing is kept."""
        if number >= len(self._layers) or not self.longest:
            return None
        longest = self.longest
        keys, values = self._layers[number]
        return keys[:, :, :longest], values[:, :, :longest]

    def append(self, new: list[tuple[Tensor, Tensor]], positions: Tensor, keep: Tensor) -> None:
        """Keep the first ``keep[b]`` of the new slots of every row. new: keys and values of each layer
        ``[B, H_kv, q, w]``. positions: ``[B, q]``."""
        wanted = int((self.lengths + keep).max())
        if wanted > self.capacity:
            self._grow(max(wanted, 2 * self.capacity))
        if not self._layers:
            self._layers = [
                tuple(part.new_zeros(*part.shape[:2], self.capacity, part.shape[-1]) for part in pair)  # type: ignore[misc]
                for pair in new
            ]
        place = torch.arange(positions.shape[1], device=positions.device)
        row, slot = (place < keep[:, None]).nonzero(as_tuple=True)
        target = self.lengths[row] + slot
        self.positions[row, target] = positions[row, slot]
        for (keys, values), (k, v) in zip(self._layers, new, strict=True):
            keys[row, :, target] = k[row, :, slot]
            values[row, :, target] = v[row, :, slot]
        self.lengths = self.lengths + keep

    def crop(self, lengths: Tensor) -> None:
        """Forget what stands behind the first ``lengths[b]`` slots of each row."""
        self.lengths = torch.minimum(self.lengths, lengths)

    def rows(self, chosen: Tensor) -> KeyValues:
        """The cache of some rows, int64 indices: for rows that have ended."""
        found = KeyValues(len(chosen), self.capacity, self.lengths.device)
        found.lengths, found.positions = self.lengths[chosen], self.positions[chosen]
        found._layers = [(keys[chosen], values[chosen]) for keys, values in self._layers]
        return found

    def _grow(self, capacity: int) -> None:
        def grown(table: Tensor, dimension: int) -> Tensor:
            shape = list(table.shape)
            shape[dimension] = capacity - shape[dimension]
            return torch.cat([table, table.new_zeros(shape)], dimension)

        self.positions = grown(self.positions, 1)
        self._layers = [(grown(keys, 2), grown(values, 2)) for keys, values in self._layers]
