"""Next-token prediction: −log p(x) = Σ_i −log p(x_i | x_{<i}), exact.

The end-of-text token stands before the first one, so every position is scored and the sum is the likelihood of the
whole sequence, comparable with a bound on the same sequence.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from sumi_core.data.batch import Batch
from sumi_core.kernels.row_loss import cross_entropy
from sumi_core.models.interface import DenoiserFunction
from sumi_core.objectives.objective import Likelihood, Loss, Objective, per_sequence


class Autoregressive(Objective):
    """Cross-entropy of a causal model, mean over tokens."""

    needs_process: ClassVar[bool] = False
    causal: ClassVar[bool | None] = True
    exact: ClassVar[bool] = True
    default_sampler: ClassVar[dict[str, Any]] = {"name": "left_to_right"}

    def loss(self, denoiser: DenoiserFunction, batch: Batch) -> Loss:
        value = self._token_nats(denoiser, batch.tokens).mean()
        return Loss(value, {"cross_entropy": value.detach()})

    @torch.no_grad()
    def likelihood(self, denoiser: DenoiserFunction, batch: Batch, epsilon: float) -> Likelihood:
        exact = per_sequence(self._token_nats(denoiser, batch.tokens))
        zeros = torch.zeros_like(exact)
        return Likelihood(
            diffusion=exact,
            reconstruction=zeros,
            prior=zeros,
            time=zeros,
            level=zeros,
            alpha=torch.ones_like(exact),
            nats_per_alpha=zeros,
        )

    def _token_nats(self, denoiser: DenoiserFunction, x: Tensor) -> Tensor:
        """−log p(x_i | x_{<i}), ``[B, L]``: the model reads [eos] + x[:-1], its logits at i predict x_i."""
        inputs = torch.cat([torch.full_like(x[:, :1], self.eos_id), x[:, :-1]], dim=1)
        return cross_entropy(denoiser(inputs, None), x, self.num_tokens)
