"""What happens after a step: EMA, metrics, validation, checkpoint — in this order, so that a checkpoint never says
more than the history, and a resumed run repeats neither.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sumi_core.training.checkpoints import checkpoint_path
from sumi_core.training.divergence import DivergenceGuard
from sumi_core.training.errors import TrainingError
from sumi_core.training.module import DenoiserTraining
from sumi_core.training.ranks import Rank
from sumi_core.training.recording import Recorder
from sumi_core.training.signals import StopSignal
from sumi_core.training.throughput import Stopwatch, peak_memory_bytes
from sumi_core.training.validation import ValidationSet


class Ema(WeightAveraging):
    """Lightning's exponential moving average of the weights: w̄ ← decay·w̄ + (1 − decay)·w after each step, starting at
    the first step's weights. A checkpoint's ``state_dict`` is then the average; the raw weights are beside it."""

    def __init__(self, decay: float, device: torch.device) -> None:
        super().__init__(device=device, use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(decay))

    @contextlib.contextmanager
    def applied(self, trainer: pl.Trainer, module: pl.LightningModule) -> Iterator[None]:
        """The module with the averaged weights, for the body's duration."""
        self.on_validation_epoch_start(trainer, module)
        try:
            yield
        finally:
            self.on_validation_epoch_end(trainer, module)


class AfterStep(Callback, ABC):
    """A callback that is called once per step, whatever the number of micro-batches."""

    _seen: int | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note where this session starts."""
        self._seen = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning's hook after a micro-batch."""
        if trainer.global_step != self._seen:
            self._seen = trainer.global_step
            self.after_step(trainer, pl_module, trainer.global_step)

    @abstractmethod
    def after_step(self, trainer: pl.Trainer, module: Any, step: int) -> None:
        """``step`` steps have been made."""


class Metrics(AfterStep):
    """Collects every step's metrics, watches them for divergence and logs their means every ``log_every`` steps."""

    def __init__(
        self, recorder: Recorder, guard: DivergenceGuard, stopwatch: Stopwatch, rank: Rank, steps: int, log_every: int
    ) -> None:
        self._recorder, self._guard, self._stopwatch, self._rank = recorder, guard, stopwatch, rank
        self._steps, self._log_every = steps, log_every
        self._unread: list[tuple[int, dict[str, torch.Tensor]]] = []
        self._window: dict[str, list[float]] = {}

    def after_step(self, trainer: pl.Trainer, module: DenoiserTraining, step: int) -> None:
        """Keep the step's metrics; read them at once on a CPU, at log steps elsewhere (reading waits for the GPU)."""
        self._unread.append((step, module.take_record()))
        logs = step % self._log_every == 0 or step == self._steps
        if logs or module.device.type == "cpu":
            self.read()
        self._stopwatch.step()
        if logs:
            self._log(step, module.device)

    def read(self) -> None:
        """Bring metrics from the device and check them. Raises TrainingDiverged."""
        if not self._unread:
            return
        names = list(self._unread[0][1])
        table = torch.stack([torch.stack([record[name] for name in names]) for _, record in self._unread])
        if self._rank.world > 1:
            torch.distributed.all_reduce(table)
            table /= self._rank.world
        steps = [step for step, _ in self._unread]
        self._unread = []
        for step, row in zip(steps, table.cpu().tolist(), strict=True):
            metrics = dict(zip(names, row, strict=True))
            self._guard.check(step, metrics["loss"], metrics["grad_norm"])
            for name, value in metrics.items():
                self._window.setdefault(name, []).append(value)

    def _log(self, step: int, device: torch.device) -> None:
        metrics = {f"train/{name}": sum(values) / len(values) for name, values in self._window.items()}
        metrics["train/learning_rate"] = self._window["learning_rate"][-1]
        self._window = {}
        rate = self._stopwatch.recent_rate()
        self._recorder.record(
            step,
            {**metrics, **self._recorder.speed(rate), "system/peak_memory_bytes": float(peak_memory_bytes(device))},
        )
        self._recorder.progress(step, metrics["train/loss"], self._stopwatch.steps_per_second)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the metrics since the last log, the guard, the stopwatch."""
        return {"window": self._window, "guard": self._guard.state_dict(), "stopwatch": self._stopwatch.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._window = state_dict["window"]
        self._guard.load_state_dict(state_dict["guard"])
        self._stopwatch.load_state_dict(state_dict["stopwatch"])


class Validation(AfterStep):
    """Measures the model (its EMA, where there is one) every ``every`` steps and after the last."""

    def __init__(
        self, data: ValidationSet, recorder: Recorder, stopwatch: Stopwatch, ema: Ema | None, steps: int, every: int
    ) -> None:
        self._data, self._recorder, self._stopwatch, self._ema = data, recorder, stopwatch, ema
        self._steps, self._every = steps, every

    def after_step(self, trainer: pl.Trainer, module: DenoiserTraining, step: int) -> None:
        """Measure, if it is time."""
        if step % self._every and step != self._steps:
            return
        averaged = self._ema.applied(trainer, module) if self._ema else contextlib.nullcontext()
        with self._stopwatch.paused(), averaged:
            precision = trainer.precision_plugin.forward_context()
            metrics = self._data.metrics(module.denoiser, module.objective, module.device, precision)
        self._recorder.record(step, metrics)
        self._recorder.report_validation(step, metrics)


class Checkpointing(AfterStep):
    """Writes a checkpoint every ``every`` steps, after the last, and when a signal asks to stop.

    recipe: names the experiment, so that a folder is not continued with another one.
    """

    def __init__(
        self,
        folder: Path,
        recipe: str,
        recorder: Recorder,
        metrics: Metrics,
        stopwatch: Stopwatch,
        stop: StopSignal,
        rank: Rank,
        *,
        steps: int,
        every: int,
    ) -> None:
        self._folder, self._recipe, self._recorder = folder, recipe, recorder
        self._metrics, self._stopwatch, self._stop, self._rank = metrics, stopwatch, stop, rank
        self._steps, self._every = steps, every

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on a signal waits for the step that is running."""
        super().on_train_start(trainer, pl_module)
        self._stop.install()
        self._stop.deferred = True

    def after_step(self, trainer: pl.Trainer, module: DenoiserTraining, step: int) -> None:
        """Write, if it is time; stop, if a rank was asked to."""
        stopping = self._stop.received is not None
        if self._rank.world > 1:
            stopping = trainer.strategy.reduce_boolean_decision(stopping, all=False)
        if stopping or step % self._every == 0 or step == self._steps:
            self.save(trainer, step)
        if stopping:
            trainer.should_stop = True

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the recipe in."""
        checkpoint["recipe"] = self._recipe

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse another experiment's checkpoint."""
        if checkpoint.get("recipe") != self._recipe:
            raise TrainingError(f"{self._folder} holds checkpoints of another experiment; train in an empty folder")

    def save(self, trainer: pl.Trainer, step: int) -> None:
        """Write the checkpoint of ``step``, after everything that it implies."""
        self._metrics.read()  # never keep weights that have not been looked at
        with self._stopwatch.paused():
            self._recorder.commit()
            trainer.save_checkpoint(checkpoint_path(self._folder, step), weights_only=False)
