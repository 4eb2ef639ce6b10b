"""Stopping a training that has gone wrong, with what one needs to find out why."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sumi_core.training.errors import TrainingDiverged


class DivergenceGuard:
    """Watches every step's loss and gradient norm.

    Stops at the first that is not a finite number; and when the smoothed loss (exponential mean over about
    ``SMOOTHING`` steps, bias-corrected) has stood above ``MULTIPLE`` times its own lowest value, and above it by
    ``MARGIN`` of the loss at the start, for ``PATIENCE`` steps in a row, counted after warm-up. The rule is in
    steps, not in log lines, so that it does not depend on how often one logs; it is slow on purpose, since the
    losses of single batches scatter; and the margin keeps a model that has learned its data by heart going.

    examples: the example numbers of a step's batch. where: a sentence about the last good checkpoint.
    """

    SMOOTHING, MULTIPLE, MARGIN, PATIENCE = 50, 2.0, 0.1, 100

    def __init__(self, warmup: int, examples: Callable[[int], list[int]], where: Callable[[], str]) -> None:
        self._warmup, self._examples, self._where = warmup, examples, where
        self._mean = self._weight = 0.0
        self._first = math.inf
        self._lowest = math.inf
        self._above = 0

    def check(self, step: int, loss: float, gradient_norm: float) -> None:
        """Raise TrainingDiverged if step ``step`` went wrong."""
        for name, value in (("loss", loss), ("gradient norm", gradient_norm)):
            if not math.isfinite(value):
                self._stop(step, f"the {name} is {value}")
        keep = 1 - 1 / self.SMOOTHING
        self._mean = keep * self._mean + (1 - keep) * loss
        self._weight = keep * self._weight + (1 - keep)
        smooth = self._mean / self._weight
        self._lowest = min(self._lowest, smooth)
        if math.isinf(self._first):
            self._first = loss
        limit = max(self.MULTIPLE * self._lowest, self._lowest + self.MARGIN * self._first)
        too_high = step > self._warmup and smooth > limit
        self._above = self._above + 1 if too_high else 0
        if self._above >= self.PATIENCE:
            self._stop(
                step,
                f"the loss has been above {self.MULTIPLE:g} times its lowest value for {self.PATIENCE} steps "
                f"({smooth:.4g} against {self._lowest:.4g})",
            )

    def state_dict(self) -> dict[str, Any]:
        """What must survive a resume."""
        return {
            "first": self._first,
            "mean": self._mean,
            "weight": self._weight,
            "lowest": self._lowest,
            "above": self._above,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._first, self._mean, self._weight = state["first"], state["mean"], state["weight"]
        self._lowest, self._above = state["lowest"], state["above"]

    def _stop(self, step: int, problem: str) -> None:
        raise TrainingDiverged(
            f"training diverged at step {step}: {problem}; its batch holds examples "
            f"{_ranges(self._examples(step))}; {self._where()}; "
            "lower training.learning_rate or lengthen training.warmup_steps"
        )


def _ranges(numbers: list[int]) -> str:
    """``[3, 4, 5, 9]`` → ``3–5, 9``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("–".join(map(str, part)) for part in parts)
