"""Keys and values of tokens that a causal model has read, kept so that they are not computed again.

Three uses of one forward pass (``Denoiser`` with a cache): *prefill* or *commit* keeps the slots of new clean tokens,
*denoise* lets slots see the cache and themselves and keeps nothing, *crop* shortens rows. Rows accept different numbers
of tokens, so keys are left-aligned and masked by ``lengths``: what a row computes does not depend on the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sumi_core.models.attention import Slots

if TYPE_CHECKING:
    from torch import Tensor


class KeyValues:
    """The kept slots of B rows: per layer keys and values ``[B, H_kv, capacity, w]``, rotated already, of which row b
    holds ``lengths[b]``. ``positions`` ``[B, capacity]`` int64: where each kept slot stands in its text. ``longest``:
    how many slots the fullest row holds.

    A pass calls ``open``, ``extend`` once a layer, and ``keep``. New slots are written after those that are kept, in
    place: no layer copies what it holds or waits for the device. capacity doubles when it is used up, so copying costs
    a token the same however long the text is; attention reads all that is kept, which grows with the text. It is for
    reading, under ``no_grad``: autograd cannot go back through what a later pass has written over.
    """

    def __init__(self, rows: int, capacity: int = 16, device: torch.device | str = "cpu") -> None:
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        self.longest = 0
        self.positions = torch.zeros(rows, max(1, capacity), dtype=torch.int64, device=device)
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._even = True  # all rows hold ``longest`` slots
        self._in_order = True  # the kept slots stand at positions 0, 1, 2, … of their text
        self._new = 0  # slots of the pass that is under way
        self._new_in_order = True

    @property
    def capacity(self) -> int:
        """Slots that there is room for."""
        return self.positions.shape[1]

    @property
    def plain(self) -> bool:
        """Whether all rows hold equally many slots, which stand in order, as do those of the pass under way."""
        return self._even and self._in_order and self._new_in_order

    # --- a pass -----------------------------------------------------------------------------------------------------

    def accepted(self, keep: int | Tensor, new: int) -> list[int]:
        """How many of ``new`` slots each row is to keep, looked up once a pass. keep: of every row or ``[B]``.

        Raises ValueError for fewer than 0 and for more than there are."""
        rows = len(self.lengths)
        counts = [keep] * rows if isinstance(keep, int) else keep.expand(rows).tolist()
        if any(not 0 <= count <= new for count in counts):
            raise ValueError(f"a cache keeps between 0 and all {new} of the new slots of a row, not {counts}")
        return counts

    def open(self, new: int, positions: Tensor | None = None) -> Tensor:
        """Make room for ``new`` slots after those that each row holds. Returns where they stand in their texts:
        ``positions`` ``[q]`` or ``[B, q]``, or, where there are none, what follows the kept ones."""
        self._new, self._new_in_order = new, positions is None
        if self.longest + new > self.capacity:
            self._grow(max(self.longest + new, 2 * self.capacity))
        place = torch.arange(new, device=self.lengths.device)
        if positions is None:
            positions = place + self.longest if self._even else place + self.lengths[:, None]
        self._put(self.positions, 1, positions.expand(len(self.lengths), new))
        return positions

    def extend(self, number: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new slots' keys and values of a layer, ``[B, H_kv, q, w]``, after the kept ones. Returns all that
        may be seen, ``[B, H_kv, longest + q, w]``, views of what is kept."""
        if number == len(self._layers):
            room = [part.new_zeros(*part.shape[:2], self.capacity, part.shape[-1]) for part in (k, v)]
            self._layers.append((room[0], room[1]))
        keys, values = self._layers[number]
        self._put(keys, 2, k)
        self._put(values, 2, v)
        end = self.longest + self._new
        return keys[:, :, :end], values[:, :, :end]

    def seen(self, queries: Slots) -> Slots:
        """What ``extend`` returns, as keys of the new slots: ``[longest + q]`` or ``[B, longest + q]``. Kept slots are
        clean and hold a token; places that a shorter row leaves empty are not valid."""
        end = self.longest + self._new
        place = torch.arange(end, device=self.lengths.device)
        position = place if self.plain else self.positions[:, :end]
        noisy = queries.noisy
        if noisy is not None:
            noisy = self._beside(noisy, torch.zeros_like(place, dtype=torch.bool))
        if queries.valid is not None:
            valid: Tensor | None = self._beside(queries.valid, place < self.lengths[:, None])
        else:
            valid = None if self._even else place < self.lengths[:, None] + self._new
        return Slots(position, noisy=noisy, valid=valid)

    def keep(self, counts: list[int]) -> None:
        """Keep the first ``counts[b]`` new slots of every row: what ``accepted`` returned."""
        if not any(counts):
            return
        self._in_order &= self._new_in_order
        if self._even and min(counts) == max(counts):
            self.longest += counts[0]
            self.lengths = self.lengths + counts[0]
        else:
            self._set(self.lengths + torch.tensor(counts, device=self.lengths.device))

    # --- between passes ---------------------------------------------------------------------------------------------

    def crop(self, lengths: int | Tensor) -> None:
        """Forget what follows the first ``lengths`` slots of every row, or the first ``lengths[b]`` of each."""
        if isinstance(lengths, torch.Tensor):
            self._set(torch.minimum(self.lengths, lengths))
        elif lengths < self.longest:
            self._set(self.lengths.clamp(max=lengths))

    def rows(self, chosen: Tensor) -> KeyValues:
        """The cache of some rows, int64 indices: for rows that have ended."""
        found = KeyValues(len(chosen), self.capacity, self.lengths.device)
        found.positions, found._in_order = self.positions[chosen], self._in_order
        found._layers = [(keys[chosen], values[chosen]) for keys, values in self._layers]
        found._set(self.lengths[chosen])
        return found

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _set(self, lengths: Tensor) -> None:
        self.lengths = lengths
        held = lengths.tolist()
        self.longest = max(held, default=0)
        self._even = min(held, default=0) == self.longest
        if not self.longest:
            self._in_order = True

    def _put(self, table: Tensor, dimension: int, new: Tensor) -> None:
        """Write the new slots after each row's kept ones, in place. table: slots along ``dimension``."""
        if self._even:
            table.narrow(dimension, self.longest, self._new).copy_(new)
            return
        shape = [1] * table.ndim
        shape[0], shape[dimension] = len(self.lengths), self._new
        target = self.lengths[:, None] + torch.arange(self._new, device=self.lengths.device)
        table.scatter_(dimension, target.view(shape).expand_as(new), new.to(table.dtype))

    def _beside(self, new: Tensor, kept: Tensor) -> Tensor:
        """A field of the new slots, ``[q]`` or ``[B, q]``, where their keys are; of the other places: ``kept``."""
        rows = len(self.lengths)
        table = kept.expand(rows, kept.shape[-1]).clone()
        self._put(table, 1, new.expand(rows, self._new))
        return table

    def _grow(self, capacity: int) -> None:
        def grown(table: Tensor, dimension: int) -> Tensor:
            shape = list(table.shape)
            shape[dimension] = capacity - shape[dimension]
            return torch.cat([table, table.new_zeros(shape)], dimension)

        self.positions = grown(self.positions, 1)
        self._layers = [(grown(keys, 2), grown(values, 2)) for keys, values in self._layers]
