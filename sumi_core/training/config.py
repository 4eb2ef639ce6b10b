"""The sections ``training`` and ``runtime`` of an experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from sumi_core.base.options import part
from sumi_core.training import STRATEGIES


@dataclass
class TrainingConfig:
    """Optimisation. A step is one update of the weights on ``batch_size`` sequences, whatever the devices."""

    steps: Annotated[int, Field(ge=1, le=10**9, description="optimizer steps")] = 1000
    batch_size: Annotated[
        int, Field(ge=1, le=2**20, description="sequences per optimizer step, over all devices and accumulation")
    ] = 32
    accumulation: Annotated[int, Field(ge=1, le=2**16, description="micro-batches per step")] = 1
    learning_rate: Annotated[float, Field(gt=0.0, description="the peak, after the warm-up")] = 1e-3
    lr_schedule: Annotated[
        Literal["cosine", "wsd", "constant"],
        Field(description="what follows the warm-up: a cosine, a plateau and a linear decay (wsd), or a plateau"),
    ] = "cosine"
    warmup_steps: Annotated[
        float,
        Field(
            ge=0,
            le=10**9,
            description="optimizer steps of linear rise to the peak; below 1 a fraction of training.steps, as in 0.05",
        ),
    ] = 100
    decay_fraction: Annotated[
        float, Field(gt=0.0, le=1.0, description="wsd: the last part of the run, which decays")
    ] = 0.2
    final_lr_fraction: Annotated[
        float, Field(ge=0.0, le=1.0, description="the last learning rate, as a share of the peak")
    ] = 0.1
    beta1: Annotated[float, Field(ge=0.0, lt=1.0, description="AdamW: decay of the mean gradient")] = 0.9
    beta2: Annotated[float, Field(ge=0.0, lt=1.0, description="AdamW: decay of the mean squared gradient")] = 0.95
    adam_epsilon: Annotated[
        float, Field(gt=0.0, description="AdamW: added to the root of the mean squared gradient")
    ] = 1e-8
    weight_decay: Annotated[float, Field(ge=0.0, description="AdamW: decoupled, on matrices only")] = 0.1
    gradient_clip: Annotated[float, Field(ge=0.0, description="largest norm of the gradient; 0: no limit")] = 1.0
    ema_decay: Annotated[
        float, Field(ge=0.0, lt=1.0, description="decay of the average of the weights that is kept; 0: none is")
    ] = 0.0
    precision: Annotated[Literal["fp32", "bf16"], Field(description="arithmetic of the forward and backward pass")] = (
        "fp32"
    )
    validate_every: Annotated[int, Field(ge=1, le=10**9, description="optimizer steps between validations")] = 500
    validation_sequences: Annotated[
        int, Field(ge=1, le=10**7, description="sequences of a validation during training")
    ] = 128


@dataclass
class RuntimeConfig:
    """How things are computed; never part of a fingerprint. Threads are fixed since they change the last bits."""

    device: Annotated[
        Literal["auto", "cpu", "cuda"], Field(description="where to compute; auto takes a GPU if there is one")
    ] = "auto"
    devices: Annotated[int, Field(ge=1, le=2**16, description="number of devices that share a training")] = 1
    strategy: Annotated[Any, Field(description="how more than one device share a training")] = part(STRATEGIES, "ddp")
    threads: Annotated[
        int, Field(ge=1, le=1024, description="CPU threads; fixed, since their number changes the last bits")
    ] = 2
    data_workers: Annotated[int, Field(ge=1, le=1024, description="processes that tokenize")] = 2
    evaluation_batch: Annotated[int, Field(ge=1, le=2**20, description="sequences per batch of an evaluation")] = 64
    log_every: Annotated[int, Field(ge=1, description="optimizer steps between log lines")] = 10
    checkpoint_every: Annotated[int, Field(ge=1, le=10**9, description="optimizer steps between checkpoints")] = 200
    compile: Annotated[bool, Field(description="compile the denoiser with torch.compile")] = False
