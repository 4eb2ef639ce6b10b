"""The LightningDataModule: batches as a function of the step, so that its whole state is the step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import torch

from sumi_core.data.batch import Batch
from sumi_core.data.loader import StepBatches
from sumi_core.training.config import TrainingConfig
from sumi_core.training.ranks import Rank


class StepStream:
    """This rank's micro-batches from step ``start`` on, in order, to the last step of the training."""

    def __init__(self, batches: StepBatches, start: int, steps: int, accumulation: int, rank: Rank) -> None:
        self._batches, self._start, self._steps = batches, start, steps
        self._accumulation, self._rank = accumulation, rank

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self._start, self._steps):
            for micro in range(self._accumulation):
                yield self._batches.batch(step, micro, self._accumulation, self._rank.index, self._rank.world)


class StepDataModule(pl.LightningDataModule):
    """Training batches. Resuming needs nothing but the number of steps made: no sampler, no random state."""

    def __init__(self, sequences: Any, training: TrainingConfig, seed: int, rank: Rank) -> None:
        super().__init__()
        self._batches = StepBatches(sequences, training.batch_size, seed)
        self._training, self._rank, self._start = training, rank, 0
        self.sequences = len(sequences)

    def train_dataloader(self) -> StepStream:
        """From the step of the checkpoint on."""
        return StepStream(self._batches, self._start, self._training.steps, self._training.accumulation, self._rank)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Only tokens move: the addresses of the noise are read on the CPU."""
        return dataclasses.replace(batch, tokens=batch.tokens.to(device, non_blocking=True))

    def examples(self, step: int) -> list[int]:
        """Example numbers of step ``step``, counted from 1; batches count from 0."""
        return [int(e) for e in self._batches.batch(step - 1, 0, 1, 0, 1).examples]

    def state_dict(self) -> dict[str, Any]:
        """The number of steps made."""
        assert self.trainer is not None
        return {"step": self.trainer.global_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after them."""
        self._start = int(state_dict["step"])
