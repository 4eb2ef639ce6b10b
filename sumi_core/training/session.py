"""One session of a training: fitted from a checkpoint on, and finished."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from sumi_core.data.sequences import Sequences
from sumi_core.models.denoiser import Denoiser
from sumi_core.objectives.objective import Objective
from sumi_core.training import STRATEGIES
from sumi_core.training.callbacks import Checkpointing, Ema, Metrics, Validation
from sumi_core.training.checkpoints import Checkpoint, checkpoints
from sumi_core.training.config import RuntimeConfig, TrainingConfig
from sumi_core.training.data import StepDataModule
from sumi_core.training.divergence import DivergenceGuard
from sumi_core.training.errors import TrainingInterrupted
from sumi_core.training.events import Report
from sumi_core.training.history import HistoryFile, Point, last_value, mean_value, write_history
from sumi_core.training.outputs import CHECKPOINTS, HISTORY, JOURNAL, SESSIONS, write_summary, write_weights
from sumi_core.training.publishing import MetricSink, Publisher
from sumi_core.training.ranks import Rank
from sumi_core.training.recording import Recorder, Sessions
from sumi_core.training.signals import StopSignal
from sumi_core.training.strategies.strategy import SingleDevice, Strategy
from sumi_core.training.throughput import Stopwatch, device_name, peak_flops
from sumi_core.training.validation import ValidationSet

_FIRST_SECONDS = 120.0  # how long MLflow waits at most for a training's first figures


@dataclass(frozen=True)
class Training:
    """Everything that one training is made of, built. sink: where metrics are copied to, on rank 0."""

    denoiser: Denoiser
    objective: Objective
    train: Sequences
    validation: Sequences
    sequence_length: int
    flops_per_token: float
    config: TrainingConfig
    runtime: RuntimeConfig
    seed: int
    recipe: str  # a digest of what decides the result
    folder: Path
    sink: MetricSink | None = None


class Session:
    """One process's part in a training. ``fit`` trains; ``finish`` writes the outputs (rank 0)."""

    def __init__(self, work: Training, rank: Rank, device: torch.device, stop: StopSignal, report: Report) -> None:
        self._folder, self._work, self._rank, self._stop = work.folder, work, rank, stop
        self._report, self._device, self._denoiser = report, device, work.denoiser
        training, runtime, length = work.config, work.runtime, work.sequence_length
        self._strategy: Strategy = STRATEGIES.from_config(runtime.strategy) if rank.world > 1 else SingleDevice()
        self._module = self._strategy.wrap(self._denoiser, work.objective, training, compiled=runtime.compile)
        self._data = StepDataModule(work.train, training, work.seed, rank)
        validation = ValidationSet(
            work.validation,
            training.validation_sequences,
            training.batch_size // training.accumulation,
            rank,
        )
        self._validation_sequences = validation.count

        self._history = HistoryFile(self._folder / JOURNAL)
        self._publisher = Publisher(work.sink if rank.is_zero else None, self._log, first_seconds=_FIRST_SECONDS)
        self._sessions = Sessions(self._folder / SESSIONS) if rank.is_zero else None
        peak = peak_flops(device_name(device), training.precision)
        self._recorder = Recorder(
            self._history if rank.is_zero else None,
            self._publisher,
            self._sessions,
            report,
            steps=training.steps,
            tokens_per_step=training.batch_size * length,
            flops_per_token=work.flops_per_token,
            peak=peak * rank.world if peak else None,
        )
        self._stopwatch = Stopwatch()
        guard = DivergenceGuard(int(training.warmup_steps), self._data.examples, self._last_good)
        metrics = Metrics(self._recorder, guard, self._stopwatch, rank, training.steps, runtime.log_every)
        ema = Ema(training.ema_decay, device) if training.ema_decay > 0 else None
        measure = Validation(validation, self._recorder, self._stopwatch, ema, training.steps, training.validate_every)
        save = Checkpointing(
            self._folder / CHECKPOINTS,
            work.recipe,
            self._recorder,
            metrics,
            self._stopwatch,
            stop,
            rank,
            steps=training.steps,
            every=runtime.checkpoint_every,
        )
        self._callbacks = [*([ema] if ema else []), metrics, measure, save]

    def fit(self, checkpoint: Checkpoint | None) -> None:
        """Train from the checkpoint (None: from the start) to the last step.

        Raises TrainingInterrupted when a signal came before the end, after saving; TrainingDiverged.
        """
        start, steps = checkpoint.step if checkpoint else 0, self._work.config.steps
        if self._rank.is_zero:
            self._publisher.add(self._history.truncate(start))
        if checkpoint is not None:
            self._log(f"going on from step {start}/{steps} ({checkpoint.path.name})")
        if start < steps:
            trainer = self._trainer()
            try:
                trainer.fit(
                    self._module,
                    datamodule=self._data,
                    ckpt_path=str(checkpoint.path) if checkpoint else None,
                    weights_only=True,
                )
            finally:
                self._stop.deferred = False
                if self._sessions is not None:
                    self._sessions.write()
                self._publisher.flush()  # of one that fails or is cut off as well
            if trainer.global_step < steps:
                raise TrainingInterrupted(self._stop.received or signal.SIGTERM)
        if not self._publisher.flush(insist=True):
            self._log("MLflow lacks a part of this training's metrics; `sumi run` adds them when it next answers")

    def finish(self) -> dict[str, Any]:
        """Write weights, history and summary from the last checkpoint. Returns the summary."""
        last = checkpoints(self._folder / CHECKPOINTS)[0]
        state = self._strategy.full_state(last.path)
        write_weights(state["state_dict"], set(self._denoiser.weights()), self._folder)
        points = self._history.read()
        write_history(points, self._folder / HISTORY)
        self._stopwatch.load_state_dict(state["callbacks"][Metrics.__qualname__]["stopwatch"])
        summary = self._summary(points)
        write_summary(summary, self._folder)
        return summary

    def _summary(self, points: list[Point]) -> dict[str, Any]:
        training = self._work.config
        tokens_per_step = training.batch_size * self._work.sequence_length
        tokens, rate = training.steps * tokens_per_step, self._stopwatch.steps_per_second
        flops_per_token = self._work.flops_per_token
        tokens_per_second = rate * tokens_per_step if rate else None
        assert self._sessions is not None
        return {
            "parameters": self._denoiser.num_parameters(),
            "steps": training.steps,
            "tokens_seen": tokens,
            "supervised_share": mean_value(points, "train/supervised_tokens"),
            "epochs": training.steps * training.batch_size / self._data.sequences,
            "flops": flops_per_token * tokens,
            "flops_per_token": flops_per_token,
            "train_loss": last_value(points, "train/loss"),
            "validation_sequences": self._validation_sequences,
            "validation_nats_per_token": last_value(points, "validation/nats_per_token"),
            "validation_nats_per_token_stderr": last_value(points, "validation/nats_per_token_stderr"),
            "validation_bits_per_byte": last_value(points, "validation/bits_per_byte"),
            "validation_bits_per_byte_stderr": last_value(points, "validation/bits_per_byte_stderr"),
            "seconds": self._sessions.seconds,
            "tokens_per_second": tokens_per_second,
            "mfu": self._recorder.mfu(tokens_per_second),
            "peak_memory_bytes": max((int(p.value) for p in points if p.name == "system/peak_memory_bytes"), default=0),
            "resumed": self._sessions.count - 1,
            "device": device_name(self._device),
            "devices": self._rank.world,
        }

    def _trainer(self) -> pl.Trainer:
        training, world = self._work.config, self._rank.world
        local = self._rank.local_world
        return pl.Trainer(
            accelerator="gpu" if self._device.type == "cuda" else "cpu",
            devices=local if world > 1 else ([self._device.index] if self._device.type == "cuda" else 1),
            num_nodes=world // local,
            strategy=self._strategy.lightning(),
            precision="bf16-mixed" if training.precision == "bf16" else "32-true",
            max_steps=training.steps,
            max_epochs=-1,
            min_epochs=0,
            accumulate_grad_batches=training.accumulation,
            callbacks=self._callbacks,
            plugins=[self._strategy.checkpoint_io()],
            default_root_dir=self._folder,
            # Logs, progress, checkpoints and validation are this package's own, since they must resume exactly.
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
            use_distributed_sampler=False,
        )

    def _log(self, text: str) -> None:
        self._report({"kind": "log", "text": text})

    def _last_good(self) -> str:
        found = checkpoints(self._folder / CHECKPOINTS)
        return f"the last good checkpoint is {found[0].path}" if found else "there is no checkpoint yet"
