"""What a strategy is: everything of a training that depends on where the weights are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.base.registry import Part

if TYPE_CHECKING:
    from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
    from lightning.pytorch.strategies import Strategy as LightningStrategy
    from torch import Tensor, nn

    from sumi_core.models.denoiser import Denoiser
    from sumi_core.objectives.objective import Objective
    from sumi_core.training.config import TrainingConfig
    from sumi_core.training.module import DenoiserTraining


class Strategy(Part, ABC):
    """One way to spread a training. It may change speed and memory, never which batch or noise a step sees.

    What is written here is for a model that every device holds whole; a strategy that shards it overrides what it must.
    """

    @abstractmethod
    def lightning(self) -> LightningStrategy | str:
        """The strategy that Lightning's trainer is given."""

    def wrap(
        self, denoiser: Denoiser, objective: Objective, training: TrainingConfig, *, compiled: bool
    ) -> DenoiserTraining:
        """The module that Lightning's trainer is given. Compiles the denoiser where ``compiled``."""
        from sumi_core.training.module import DenoiserTraining

        if compiled:
            denoiser.compile()
        return DenoiserTraining(denoiser, objective, training, self.clip_gradient)

    def checkpoint_io(self) -> CheckpointIO:
        """How the trainer's checkpoints reach the disk: each one whole or absent."""
        from sumi_core.training.checkpoints import AtomicCheckpointIO

        return AtomicCheckpointIO()

    def full_state(self, checkpoint: Path) -> dict[str, Any]:
        """A checkpoint with the whole of every tensor, on the CPU. One process reads it, without the others."""
        state: dict[str, Any] = self.checkpoint_io().load_checkpoint(checkpoint)
        return state

    def clip_gradient(self, parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
        """Scale the gradient down to the global norm ``limit`` (0: leave it); returns the norm before, a scalar."""
        from torch.nn.utils import clip_grad_norm_, get_total_norm

        if limit:
            return clip_grad_norm_(parameters, limit)
        return get_total_norm([p.grad for p in parameters if p.grad is not None])


class SingleDevice(Strategy):
    """One device, which holds everything. Not named in configs: a training on one device takes it by itself."""

    def lightning(self) -> str:
        """Lightning's own choice for one device."""
        return "auto"
