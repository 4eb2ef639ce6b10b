"""The size of an experiment before it is computed, against the denoiser that would be trained."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from sumi_core.experiments.schema import Experiment
from sumi_core.experiments.size import expected_vocabulary, experiment_size
from sumi_core.models import PRESETS
from sumi_core.models.config import ModelConfig
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.size import num_parameters


@pytest.mark.parametrize(
    "model",
    [
        *PRESETS.values(),
        {"qk_norm": True, "tie_embeddings": True, "num_layers": 1},
        {"time_conditioning": "adaln", "num_heads": 8, "num_kv_heads": 1},
        {"time_conditioning": "token", "qk_norm": True},
    ],
)
def test_parameters_are_those_of_the_denoiser(model: dict[str, Any]) -> None:
    with torch.device("meta"):
        made = Denoiser(ModelConfig(**model), 1000)
    assert num_parameters(ModelConfig(**model), 1000) == made.num_parameters()


def test_training_holds_what_adamw_and_the_average_keep() -> None:
    experiment = Experiment()
    denoiser = Denoiser(experiment.model, 257)
    optimizer = torch.optim.AdamW(denoiser.parameters())
    denoiser.logits(torch.zeros(1, 4, dtype=torch.int64)).sum().backward()
    optimizer.step()
    moments = [t for state in optimizer.state.values() for t in state.values() if t.dim()]
    held = [*denoiser.parameters(), *(p.grad for p in denoiser.parameters() if p.grad is not None), *moments]
    size = experiment_size(experiment, 257)
    assert size.training_bytes == sum(t.numel() * t.element_size() for t in held)
    experiment.training.ema_decay = 0.99
    assert experiment_size(experiment, 257).training_bytes == size.training_bytes * 5 // 4


def test_tokens_are_steps_times_batch_times_length_whatever_their_size() -> None:
    experiment = Experiment()
    experiment.training = dataclasses.replace(experiment.training, steps=10**12, batch_size=10**9)
    size = experiment_size(experiment, 257)
    assert (size.tokens_per_step, size.tokens) == (128 * 10**9, 128 * 10**21)


def test_a_vocabulary_is_known_beforehand_or_not_at_all() -> None:
    from sumi_core.data import TOKENIZERS

    byte = TOKENIZERS.build("byte", {})
    byte.train(iter(()))
    assert expected_vocabulary({"name": "byte"}) == byte.vocab_size
    assert expected_vocabulary({"name": "bpe", "vocab_size": 512}) == 512
    assert expected_vocabulary({"name": "huggingface", "path": "x", "revision": None}) is None
