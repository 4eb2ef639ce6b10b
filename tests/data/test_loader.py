"""The step loader: each step a pure function of (seed, step), and the same sequences however a batch is split."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sumi_core.data.batch import Batch
from sumi_core.data.loader import StepBatches


class Numbered:
    """Sequences that say which they are: sequence i is [i, i, i]."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> NDArray[np.uint16]:
        return np.full(3, index, dtype=np.uint16)


def seen(batch: Batch) -> list[int]:
    return [int(row[0]) for row in batch.tokens]


def test_a_batch_is_what_the_step_trains_on() -> None:
    batch = StepBatches(Numbered(100), 8, seed=3).batch(5)
    assert batch.tokens.dtype == torch.int64
    assert batch.tokens.shape == (8, 3)
    assert batch.examples.tolist() == list(range(40, 48))
    assert batch.positions.tolist() == list(range(8))
    assert (batch.global_size, batch.step, batch.seed) == (8, 5, 3)


def test_any_step_can_be_asked_for_at_any_time() -> None:
    count, size, steps = 30, 8, 20
    one = StepBatches(Numbered(count), size, seed=1)
    in_order = [seen(one.batch(step)) for step in range(steps)]
    backwards = [seen(one.batch(step)) for step in reversed(range(steps))][::-1]
    fresh = [seen(StepBatches(Numbered(count), size, seed=1).batch(step)) for step in range(steps)]
    assert in_order == backwards == fresh


@given(count=st.integers(1, 40), size=st.integers(1, 17), seed=st.integers(0, 2**32))
def test_every_epoch_visits_every_sequence_once(count: int, size: int, seed: int) -> None:
    batches = StepBatches(Numbered(count), size, seed)
    drawn = [index for step in range(-(-3 * count // size)) for index in seen(batches.batch(step))]
    for epoch in range(3):
        assert sorted(drawn[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [tuple(seen(StepBatches(Numbered(50), 50, seed).batch(epoch))) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == 9


def test_orders_are_uniform() -> None:
    # 6 orders of 3 sequences, 600 epochs: each is expected 100 times, with a standard deviation of 9.1.
    batches = StepBatches(Numbered(3), 3, seed=0)
    counts = Counter(tuple(seen(batches.batch(epoch))) for epoch in range(600))
    assert len(counts) == 6
    assert max(abs(count - 100) for count in counts.values()) < 40


@given(
    accumulation=st.integers(1, 4),
    world=st.integers(1, 4),
    share=st.integers(1, 3),
    count=st.integers(1, 30),
    step=st.integers(0, 1000),
)
def test_any_split_of_a_step_is_the_whole_step(
    accumulation: int, world: int, share: int, count: int, step: int
) -> None:
    batches = StepBatches(Numbered(count), accumulation * world * share, seed=7)
    whole = batches.batch(step)
    parts = [batches.batch(step, m, accumulation, r, world) for m in range(accumulation) for r in range(world)]
    for name in ("tokens", "examples", "positions"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(joined[joined_order(parts)], getattr(whole, name))
    assert {part.global_size for part in parts} == {whole.global_size}
    assert all(len(part.examples) == share for part in parts)


def joined_order(parts: list[Batch]) -> torch.Tensor:
    return torch.cat([part.positions for part in parts]).argsort()


def test_a_split_that_leaves_a_rest_is_refused() -> None:
    with pytest.raises(ValueError, match="8 sequences cannot be split over 3 × 2 parts evenly"):
        StepBatches(Numbered(9), 8, 0).batch(0, 0, 3, 0, 2)


def test_no_sequences_at_all() -> None:
    with pytest.raises(ValueError, match=r"the train split holds no sequence; lower shards\.sequence_length"):
        StepBatches(Numbered(0), 8, 0)
