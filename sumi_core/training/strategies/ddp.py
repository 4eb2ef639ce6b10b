"""Distributed data parallel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sumi_core.training.strategies.strategy import Strategy

if TYPE_CHECKING:
    from lightning.pytorch.strategies import DDPStrategy


class DistributedDataParallel(Strategy):
    """Every device holds the whole model; gradients are averaged."""

    def lightning(self) -> DDPStrategy:
        """Lightning's DDP over the process group that this package has made."""
        from lightning.pytorch.strategies import DDPStrategy

        return DDPStrategy()
