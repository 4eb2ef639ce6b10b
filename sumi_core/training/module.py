"""The LightningModule: a denoiser, its objective, and how it is optimised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from sumi_core.data.batch import Batch
from sumi_core.models.denoiser import Denoiser
from sumi_core.objectives.objective import Objective
from sumi_core.training.config import TrainingConfig
from sumi_core.training.optimization import build_lr_schedule, build_optimizer


class DenoiserTraining(pl.LightningModule):
    """Trains ``denoiser`` with ``objective.loss``. Noise is addressed by the batch;
    global random state is never drawn from.

    After each step ``take_record`` gives its metrics, as device scalars, so that reading them costs no
    synchronisation until the numbers are read. clip_gradient: of the strategy, which knows where gradients are.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        objective: Objective,
        training: TrainingConfig,
        clip_gradient: Callable[[Sequence[nn.Parameter], float], Tensor],
    ) -> None:
        super().__init__()
        self._clip_gradient = clip_gradient
        self.denoiser, self.objective, self.training_config = denoiser, objective, training
        self._record: dict[str, Tensor] = {}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one micro-batch, nats per token."""
        loss = self.objective.loss(self.denoiser, batch)
        share = 1 / self.training_config.accumulation
        for name, value in {"loss": loss.value, **loss.metrics}.items():
            value = value.detach().double() * share
            self._record[name] = self._record[name] + value if name in self._record else value
        return loss.value

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip the global norm to ``gradient_clip`` (0: leave it), and record the norm before."""
        norm = self._clip_gradient(list(self.denoiser.parameters()), self.training_config.gradient_clip)
        self._record["grad_norm"] = norm.detach().double()
        self._record["learning_rate"] = torch.full_like(self._record["grad_norm"], optimizer.param_groups[0]["lr"])

    def take_record(self) -> dict[str, Tensor]:
        """Metrics of the step that has just ended: loss and the objective's metrics averaged over micro-batches, the
        gradient's norm before clipping, the learning rate. Float64 scalars."""
        record, self._record = self._record, {}
        return record

    def configure_optimizers(self) -> Any:
        """AdamW and its learning rate, changed after every step."""
        optimizer = build_optimizer(self.denoiser, self.training_config)
        schedule = {"scheduler": build_lr_schedule(optimizer, self.training_config), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}
