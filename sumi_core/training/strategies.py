"""How a training is spread over several devices, in Lightning's words. One device needs none of this."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from sumi_core.base.registry import Part

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy as LightningStrategy


class Strategy(Part, ABC):
    """One way to spread a training. It may change speed and memory, never which batch or noise a step sees."""

    @abstractmethod
    def build(self) -> LightningStrategy:
        """The strategy that Lightning's trainer is given."""


class DistributedDataParallel(Strategy):
    """Every device holds the whole model; gradients are averaged."""

    def build(self) -> LightningStrategy:
        from lightning.pytorch.strategies import DDPStrategy

        return DDPStrategy()
