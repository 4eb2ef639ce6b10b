"""Random numbers addressed by (seed, stream, step, example).

A batch's noise must not depend on which worker, device or micro-batch an example landed in, and a resumed run must
draw what the undisturbed one drew. So every example owns a counter-based generator (Philox 4×64, Salmon et al. 2011,
as numpy ships it) whose key and counter *are* its address: nothing is carried from one step to the next.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

# Added to seeds, which are below 2³²: uses that are given one seed still share no address.
VALIDATION, EVALUATION = 1 << 32, 2 << 32


@functools.cache
def _unseeded() -> Any:
    """For generators whose state is set next. Made at its first use: what only names noise needs no numpy."""
    from numpy.random.bit_generator import ISeedSequence

    class Unseeded(ISeedSequence):
        def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Any:
            return np.zeros(n_words, dtype)

    return Unseeded()


def address_generator(seed: int, stream: str, step: int = 0, example: int = 0) -> np.random.Generator:
    """The generator at one address. ``stream`` keeps uses apart (``"corrupt"``, ``"time"``, ``"sample"``)."""
    key = np.array([seed, zlib.crc32(stream.encode())], dtype=np.uint64)
    counter = np.array([0, 0, step, example], dtype=np.uint64)
    # As ``Philox(key=key, counter=counter)``, which gathers entropy first that it does not use: most of the time.
    philox = np.random.Philox(_unseeded())
    philox.state = {
        "bit_generator": "Philox",
        "state": {"counter": counter, "key": key},
        "buffer": np.zeros(4, np.uint64),  # and used up
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    return np.random.Generator(philox)


class Noise:
    """Random tensors for a batch, one independent address per row.

    Successive calls continue each row's own sequence, so a row gets the same numbers alone or in any batch. lengths:
    of rows that differ in length; a row draws for its own positions alone, whatever the longest one is. width: draw as
    for texts of so many positions, and keep the first ones, so that texts of different lengths share their noise as far
    as both reach.

    >>> a = Noise(seed=0, stream="corrupt", step=3, examples=[10, 11]).uniform(4)
    >>> b = Noise(seed=0, stream="corrupt", step=3, examples=[11]).uniform(4)
    >>> bool((a[1] == b[0]).all())
    True
    """

    def __init__(
        self,
        seed: int,
        stream: str,
        step: int,
        examples: Sequence[int] | Tensor,
        device: torch.device | str = "cpu",
        lengths: Sequence[int] | None = None,
        width: int | None = None,
    ) -> None:
        ids = examples.tolist() if isinstance(examples, torch.Tensor) else examples
        self._rows = [address_generator(seed, stream, step, int(example)) for example in ids]
        self.device, self.lengths, self.width = torch.device(device), lengths, width

    def uniform(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Uniform numbers in [0, 1), ``[B, *shape]``, float32 if no type is given."""
        kind = np.float64 if dtype == torch.float64 else np.float32
        drawn = self._drawn(shape, lambda row, own: row.random(own, dtype=kind))
        return torch.from_numpy(drawn).to(self.device, dtype or torch.float32)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Integers in [0, high), ``[B, *shape]``, int64."""
        return torch.from_numpy(self._drawn(shape, lambda row, own: row.integers(high, size=own))).to(self.device)

    def _drawn(self, shape: tuple[int, ...], draw: Callable[[np.random.Generator, tuple[int, ...]], Any]) -> Any:
        """One draw per row; a row shorter than ``shape[0]`` draws as many as it is long, and 0 follows them."""
        if self.width is not None and shape:
            wide = (max(self.width, shape[0]), *shape[1:])
            return np.stack([draw(row, wide)[: shape[0]] for row in self._rows])
        if self.lengths is None or not shape:
            return np.stack([draw(row, shape) for row in self._rows])
        found = []
        for row, length in zip(self._rows, self.lengths, strict=True):
            own = draw(row, (min(length, shape[0]), *shape[1:]))
            found.append(np.pad(own, [(0, shape[0] - len(own)), *[(0, 0)] * (len(shape) - 1)]))
        return np.stack(found)


def stratified_times(
    seed: int, stream: str, step: int, positions: Tensor, total: int, low: float, high: float
) -> Tensor:
    """Low-discrepancy noise levels: one uniform offset per step, spread evenly over the global batch.

    t_i = low + (high − low) · frac(u + i / total), i the example's place in the global batch, so each t_i is
    uniform on [low, high) and any split of the batch over devices sees the same levels (VDM, 2107.00630, App. I.1).

    positions: ``[B]`` integer places in ``0 … total−1``. Returns ``[B]`` float64.
    """
    offset = address_generator(seed, stream, step).random()
    fractions = (offset + positions.to(torch.float64) / total) % 1.0
    return low + (high - low) * fractions
