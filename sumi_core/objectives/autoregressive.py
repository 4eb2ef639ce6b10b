"""Next-token prediction: −log p(x) = Σ_i −log p(x_i | x_{<i}), exact.

The end-of-text token stands before the first one, so every position is scored and the sum is the likelihood of the
whole sequence, comparable with a bound on the same sequence.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from sumi_core.data.batch import Batch
from sumi_core.models.interface import DenoiserFunction
from sumi_core.objectives.likelihood import ChainRule, Reading
from sumi_core.objectives.objective import Loss, Objective


class Autoregressive(Objective):
    """Cross-entropy of a causal model, mean over tokens."""

    needs_process: ClassVar[bool] = False
    causal: ClassVar[bool | None] = True
    exact: ClassVar[bool] = True
    default_sampler: ClassVar[dict[str, Any]] = {"name": "left_to_right"}

    def loss(self, denoiser: DenoiserFunction, batch: Batch) -> Loss:
        value = self._chain_rule.token_nats(denoiser, batch.tokens).mean()
        # Every token is predicted from those before it.
        return Loss(value, {"cross_entropy": value.detach(), "supervised_tokens": torch.ones_like(value.detach())})

    @property
    def readings(self) -> dict[str, Reading]:
        return {"autoregressive": self._chain_rule}

    @property
    def _chain_rule(self) -> ChainRule:
        return ChainRule(self.num_tokens, self.eos_id)
