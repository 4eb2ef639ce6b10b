"""Which sequences a step trains on: a pure function of (seed, step), for any number of devices and micro-batches.

Example e = step · batch_size + position. Epoch e // n visits all n sequences once, in an order of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sumi_core.data.batch import Batch
from sumi_core.data.noise import address_generator
from sumi_core.data.sequences import Sequences

if TYPE_CHECKING:
    from numpy.typing import NDArray


class StepBatches:
    """Batches by step.

    sequences: the train split. batch_size: sequences of a global step. Nothing is remembered between calls but the
    last orders, so any step can be asked for at any time.
    """

    def __init__(self, sequences: Sequences, batch_size: int, seed: int) -> None:
        if not len(sequences):
            raise ValueError("the train split holds no sequence; lower shards.sequence_length or add text")
        self._sequences, self._batch_size, self._seed = sequences, batch_size, seed
        self._order = functools.lru_cache(maxsize=2)(self._draw_order)

    def batch(self, step: int, micro: int = 0, accumulation: int = 1, rank: int = 0, world: int = 1) -> Batch:
        """The part of step ``step`` that micro-batch ``micro`` of ``accumulation`` on ``rank`` of ``world`` computes.

        The parts of a step are disjoint and make up the global batch; each is a stretch of neighbouring positions.
        Raises ValueError when the batch cannot be split evenly.
        """
        if self._batch_size % (accumulation * world):
            raise ValueError(f"{self._batch_size} sequences cannot be split over {accumulation} × {world} parts evenly")
        size = self._batch_size // (accumulation * world)
        start = (micro * world + rank) * size
        positions = torch.arange(start, start + size)
        examples = step * self._batch_size + positions
        rows = [self._sequences[index] for index in self._indices(examples.tolist())]
        tokens = torch.from_numpy(np.stack(rows).astype(np.int64))
        return Batch(tokens, examples, positions, self._batch_size, step, self._seed)

    def _indices(self, examples: Sequence[int]) -> list[int]:
        count = len(self._sequences)
        return [int(self._order(example // count)[example % count]) for example in examples]

    def _draw_order(self, epoch: int) -> NDArray[np.integer[Any]]:
        return address_generator(self._seed, "order", epoch).permutation(len(self._sequences))
