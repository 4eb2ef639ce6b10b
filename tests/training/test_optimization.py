"""Learning rates at the places where their definition can be read off, and which weights decay."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from sumi_core.models.config import ModelConfig
from sumi_core.models.denoiser import Denoiser
from sumi_core.training.config import TrainingConfig
from sumi_core.training.optimization import build_lr_schedule, build_optimizer, lr_factor, parameter_groups


def config(**changes: object) -> TrainingConfig:
    return TrainingConfig(**{"steps": 100, "warmup_steps": 10, "final_lr_fraction": 0.1, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "constant"])
def test_warmup_is_linear_and_reaches_the_full_rate_at_its_last_update(schedule: str) -> None:
    training = config(lr_schedule=schedule)
    assert [lr_factor(n, training) for n in (1, 5, 10)] == [0.1, 0.5, 1.0]


@pytest.mark.parametrize(("schedule", "final"), [("cosine", 0.1), ("wsd", 0.1), ("constant", 1.0)])
def test_last_update_has_the_final_rate(schedule: str, final: float) -> None:
    assert lr_factor(100, config(lr_schedule=schedule)) == pytest.approx(final, rel=1e-12)


def test_cosine_is_half_way_between_at_the_middle() -> None:
    assert lr_factor(55, config(lr_schedule="cosine")) == pytest.approx(0.1 + 0.9 / 2)
    assert lr_factor(40, config(lr_schedule="cosine")) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 3)) / 2)


def test_wsd_is_flat_then_falls_linearly_over_the_last_fraction() -> None:
    training = config(lr_schedule="wsd", decay_fraction=0.2)
    assert {lr_factor(n, training) for n in range(10, 81)} == {1.0}
    assert lr_factor(90, training) == pytest.approx(0.55)
    falling = [lr_factor(n, training) for n in range(80, 101)]
    assert all(a > b for a, b in itertools.pairwise(falling))


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "constant"])
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (7, 7), (7, 0), (5, 4)])
def test_short_runs_have_positive_finite_rates(schedule: str, steps: int, warmup: int) -> None:
    training = config(lr_schedule=schedule, steps=steps, warmup_steps=warmup, decay_fraction=1.0)
    rates = [lr_factor(n, training) for n in range(1, steps + 1)]
    assert all(0 < rate <= 1 for rate in rates)


def test_torch_schedule_gives_update_n_the_factor_of_n() -> None:
    training = config(steps=12, warmup_steps=4, learning_rate=0.5)
    weight = torch.nn.Parameter(torch.ones(2, 2))
    holder = torch.nn.Module()
    holder.weight = weight
    optimizer = build_optimizer(holder, training)
    schedule = build_lr_schedule(optimizer, training)
    used = []
    for _ in range(12):
        weight.grad = torch.ones_like(weight)
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert used == [0.5 * lr_factor(n, training) for n in range(1, 13)]


def test_every_parameter_is_in_one_group_and_only_matrices_decay() -> None:
    denoiser = Denoiser(ModelConfig(hidden_size=16, intermediate_size=16, num_layers=2, num_heads=2, num_kv_heads=1), 9)
    decaying, constant = parameter_groups(denoiser, 0.1)
    names = {id(p): name for name, p in denoiser.named_parameters()}
    assert [decaying["weight_decay"], constant["weight_decay"]] == [0.1, 0.0]
    matrices = {names[id(p)] for p in decaying["params"]}  # type: ignore[attr-defined]
    vectors = {names[id(p)] for p in constant["params"]}  # type: ignore[attr-defined]
    assert all("norm" in name for name in vectors)
    assert matrices | vectors == set(names.values())
    assert not matrices & vectors
