"""AdamW, its parameter groups, and the learning rate of every step."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim import AdamW

from sumi_core.training.config import TrainingConfig


def lr_factor(step: int, training: TrainingConfig) -> float:
    """The learning rate of step n = ``step`` (1 … steps) as a fraction of ``learning_rate``.

    With W warm-up steps, N steps and f = ``final_lr_fraction``:

    * warm-up: n/W for n ≤ W, so the first step already moves;
    * ``cosine``: f + (1 − f)·(1 + cos πp)/2, p = (n − W)/(N − W): reaches f at the last step (Loshchilov and Hutter,
      1608.03983, one cycle);
    * ``wsd``: 1 until the last ``decay_fraction``·N steps, then linearly to f at the last one (warm-up, stable,
      decay: Hu et al., 2404.06395; the linear cooldown of Hägele et al., 2405.18392);
    * ``constant``: 1.
    """
    steps, warmup, final = training.steps, training.warmup_steps, training.final_lr_fraction
    if step <= warmup:
        return step / warmup
    if training.lr_schedule == "cosine":
        progress = (step - warmup) / (steps - warmup)
        return final + (1 - final) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    if training.lr_schedule == "wsd":
        decay = min(math.ceil(round(training.decay_fraction * steps, 9)), steps - warmup)
        progress = (step - (steps - decay)) / decay
        return 1 + (final - 1) * min(max(progress, 0.0), 1.0)
    return 1.0


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Matrices and embeddings decay; vectors (norm gains) do not: shrinking a gain regularises nothing."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def build_optimizer(model: nn.Module, training: TrainingConfig) -> AdamW:
    """AdamW (Loshchilov and Hutter, 1711.05101), fused into one kernel a group."""
    groups = [group for group in parameter_groups(model, training.weight_decay) if group["params"]]
    return AdamW(
        groups,
        lr=training.learning_rate,
        betas=(training.beta1, training.beta2),
        eps=training.adam_epsilon,
        fused=True,
    )


def build_lr_schedule(optimizer: AdamW, training: TrainingConfig) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule as torch counts, from 0: its step i sets the rate of our step i + 1."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: lr_factor(min(done + 1, training.steps), training))
