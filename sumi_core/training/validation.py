"""The validation value of a training: the objective's likelihood on fixed sequences, noise levels and noise.

Per sequence one noise level; levels stratified over the sequences, in an order that has nothing to do with the text's;
everything addressed by a constant seed. So the value moves only with the weights, and two cells of a sweep that share
their data are measured on the same draws. Its error takes sequences for independent draws of text and level. It
is the tight bound with both end terms (exact for an autoregressive model), whatever the training loss was. The
``evaluation`` stage measures the finished model more closely; this one watches it grow.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sumi_core.base.statistics import mean_estimate, ratio_estimate
from sumi_core.data.batch import Batch
from sumi_core.data.noise import VALIDATION, address_generator
from sumi_core.data.sequences import Sequences, spread_indices
from sumi_core.objectives.objective import Objective
from sumi_core.training.errors import TrainingError
from sumi_core.training.ranks import Rank

SEED = VALIDATION + 0x5EED  # of noise levels and noise, in a range that no training and no evaluation draws from
TIME_EPSILON = 1e-3  # the bound integrates t over [ε, 1 − ε]


class ValidationSet:
    """``count`` validation sequences, evenly spread over the split (all, if there are fewer), in batches of
    ``batch_size``."""

    def __init__(self, sequences: Sequences, count: int, batch_size: int, rank: Rank) -> None:
        self.count = min(count, len(sequences))
        if self.count == 0:
            raise TrainingError(
                "the validation split holds no whole sequence; raise corpus.validation_fraction or shorten "
                "shards.sequence_length"
            )
        self._rank, self._batch_size = rank, batch_size
        own = list(range(self.count))[rank.index :: rank.world]
        chosen = spread_indices(self.count, len(sequences))
        rows = [np.asarray(sequences[i], dtype=np.int64) for i in chosen]
        self._tokens = torch.from_numpy(np.stack(rows))
        self._own = torch.tensor(own, dtype=torch.int64)
        self._levels = torch.from_numpy(address_generator(SEED, "order").permutation(self.count))
        self.bytes = np.array([sequences.bytes(i) for i in chosen], dtype=np.float64)
        self.length = self._tokens.shape[1]

    def metrics(
        self, denoiser: Any, objective: Objective, device: torch.device, precision: AbstractContextManager[Any]
    ) -> dict[str, float]:
        """``validation/nats_per_token`` and ``validation/bits_per_byte`` with their ``_stderr``.

        bits per byte = Σ nats / ln 2 / Σ UTF-8 bytes of the same sequences, its error that of a ratio over sequences as
        independent units (it holds the Monte-Carlo noise too, since each has a draw of its own).
        """
        nats = self._nats(denoiser, objective, device, precision).cpu().numpy()
        token, byte = mean_estimate(nats / self.length), ratio_estimate(nats / math.log(2), self.bytes)
        return {
            "validation/nats_per_token": token.value,
            "validation/nats_per_token_stderr": token.stderr,
            "validation/bits_per_byte": byte.value,
            "validation/bits_per_byte_stderr": byte.stderr,
        }

    def _nats(
        self, denoiser: Any, objective: Objective, device: torch.device, precision: AbstractContextManager[Any]
    ) -> Tensor:
        """Nats of every sequence ``[N]`` float64; each rank computes its share."""
        nats = torch.zeros(self.count, dtype=torch.float64, device=device)
        with torch.no_grad(), precision:
            for own in self._own.split(self._batch_size):
                batch = Batch(self._tokens[own].to(device), own, self._levels[own], self.count, step=0, seed=SEED)
                nats[own.to(device)] = objective.likelihood(denoiser, batch, TIME_EPSILON).total
        if self._rank.world > 1:
            torch.distributed.all_reduce(nats)
        return nats
