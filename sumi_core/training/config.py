"""The sections ``training`` and ``runtime`` of an experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sumi_core.base.options import choice, number, part
from sumi_core.training import STRATEGIES


@dataclass
class TrainingConfig:
    """Optimisation. A step is one optimizer update on ``batch_size`` sequences, whatever the devices."""

    steps: int = number(1000, low=1, high=10**9)
    batch_size: int = number(32, low=1, high=2**20)  # sequences per optimizer step, over all devices and accumulation
    accumulation: int = number(1, low=1, high=2**16)  # micro-batches per step
    learning_rate: float = number(1e-3, above=0.0)
    lr_schedule: str = choice("cosine", "cosine", "wsd", "constant")
    warmup_steps: int = number(100, low=0, high=10**9)
    decay_fraction: float = number(0.2, above=0.0, high=1.0)  # wsd: the last part of the run that decays
    final_lr_fraction: float = number(0.1, low=0.0, high=1.0)
    beta1: float = number(0.9, low=0.0, below=1.0)
    beta2: float = number(0.95, low=0.0, below=1.0)
    adam_epsilon: float = number(1e-8, above=0.0)
    weight_decay: float = number(0.1, low=0.0)
    gradient_clip: float = number(1.0, low=0.0)  # 0: off
    ema_decay: float = number(0.0, low=0.0, below=1.0)  # 0: off
    precision: str = choice("fp32", "fp32", "bf16")
    validate_every: int = number(500, low=1, high=10**9)  # optimizer steps
    validation_sequences: int = number(128, low=1, high=10**7)


@dataclass
class RuntimeConfig:
    """How things are computed; never part of a fingerprint. Threads are fixed since they change the last bits."""

    device: str = choice("auto", "auto", "cpu", "cuda")
    devices: int = number(1, low=1, high=2**16)
    strategy: Any = part(STRATEGIES, "ddp")  # how more than one device share a training
    threads: int = number(2, low=1, high=1024)
    data_workers: int = number(2, low=1, high=1024)  # processes that tokenize
    evaluation_batch: int = number(64, low=1, high=2**20)
    log_every: int = number(10, low=1)  # optimizer steps
    checkpoint_every: int = number(200, low=1, high=10**9)  # optimizer steps
    compile: bool = False
