"""Packed sequences, read from memory-mapped token shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sumi_core.data.shard_building import ShardError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OPEN_ARRAYS = 256  # memory maps held at a time: each takes a file descriptor


class Sequences(Protocol):
    """What is read of a split: ``PackedSequences``, or anything like it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> NDArray[np.integer[Any]]:
        """Token ids ``[L]``."""
        ...

    def bytes(self, index: int) -> int:
        """UTF-8 bytes of the text of a sequence; end-of-text tokens count none."""
        ...

    def document_starts(self, index: int) -> NDArray[np.int64]:
        """Positions in a sequence at which a document starts, rising."""
        ...


def spread_indices(count: int, total: int) -> list[int]:
    """``count`` of ``total`` sequences, the middles of equal stretches: no part of the split is left out."""
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


class PackedSequences:
    """A split as sequences of ``length`` tokens: ``len``, ``[i]``, and the bytes of text that each covers.

    shards: tokens of each shard, by name, in order. Files are opened when they are first read.
    """

    def __init__(self, folder: Path, shards: Mapping[str, int], length: int) -> None:
        self.length = length
        self._folder, self._names = folder, list(shards)
        self._ends = np.cumsum(list(shards.values()), dtype=np.int64)
        self._arrays: dict[str, NDArray[Any]] = {}

    def __len__(self) -> int:
        return self._total() // self.length

    def __getitem__(self, index: int) -> NDArray[np.integer[Any]]:
        """Token ids ``[L]``."""
        return self._read("tokens", *self._range(index))

    def bytes(self, index: int) -> int:
        """UTF-8 bytes of the text that sequence ``index`` covers; end-of-text tokens count none."""
        return int(self._read("lengths", *self._range(index)).sum(dtype=np.int64))

    def document_starts(self, index: int) -> NDArray[np.int64]:
        """Positions in sequence ``index`` at which a document starts, rising; none if it lies within one document."""
        found, position = [], 0
        for shard, start, stop in self._pieces(*self._range(index)):
            starts = self._array(shard, "starts")
            low, high = np.searchsorted(starts, [start, stop])
            found.append(starts[low:high] - start + position)
            position += stop - start
        return np.concatenate(found)

    def dropped(self) -> tuple[int, int]:
        """Tokens and UTF-8 bytes after the last whole sequence."""
        start, stop = len(self) * self.length, self._total()
        return stop - start, int(self._read("lengths", start, stop).sum(dtype=np.int64))

    def _total(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def _range(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        return index * self.length, (index + 1) * self.length

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """The shards that a stretch of the stream lies in, each with its stretch there: (shard, start, stop)."""
        shard = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            end = int(self._ends[shard])
            offset = int(self._ends[shard - 1]) if shard else 0
            yield shard, start - offset, min(stop, end) - offset
            start, shard = min(stop, end), shard + 1

    def _read(self, kind: str, start: int, stop: int) -> NDArray[Any]:
        pieces = [self._array(shard, kind)[low:high] for shard, low, high in self._pieces(start, stop)]
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)

    def _array(self, shard: int, kind: str) -> NDArray[Any]:
        name = f"{self._names[shard]}.{kind}.npy"
        if name not in self._arrays:
            if len(self._arrays) >= _OPEN_ARRAYS:
                del self._arrays[next(iter(self._arrays))]
            path = self._folder / name
            try:
                self._arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError):
                raise ShardError(
                    f"{path} is missing or damaged; delete {self._folder} and compute token_shards again"
                ) from None
        return self._arrays[name]
