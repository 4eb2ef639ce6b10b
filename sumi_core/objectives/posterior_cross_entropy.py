"""Plain cross-entropy of the clean token given everything, its own noisy token too (docs/mathematics.md 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sumi_core.kernels.row_loss import RowLoss, cross_entropy_loss
from sumi_core.objectives.noising import NoisyBatch
from sumi_core.objectives.posterior import PosteriorObjective

if TYPE_CHECKING:
    from torch import Tensor


class PosteriorCrossEntropy(PosteriorObjective):
    """−log p_θ(x_i | z) of every token, unweighted, t uniform on [ε, 1 − ε] (D3PM's auxiliary loss, 2107.03006, 3.4).

    No bound: ``likelihood`` converts the prediction and reports the tight one. Its minimum is the exact posterior at
    every level. Tokens that noise spared count too, so a part of the loss is learning to copy.
    """

    def token_loss(self, noisy: NoisyBatch) -> RowLoss:
        return cross_entropy_loss(noisy.x, self.num_tokens)

    def supervised(self, noisy: NoisyBatch) -> Tensor:
        return (noisy.weight != 0).expand(noisy.z.shape)

    @classmethod
    def supervision_at(cls, bound: float) -> float:
        return 1.0

    def metrics(self, token_loss: Tensor, noisy: NoisyBatch) -> dict[str, Tensor]:
        return {"cross_entropy": token_loss.mean()}
