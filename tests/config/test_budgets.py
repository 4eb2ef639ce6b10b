"""Budgets: steps that spend them, and what the cells of a sweep then really spend."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sumi_core.base.options import ConfigError
from sumi_core.experiments.budget import TOLERANCE, Budget, training_flops_per_token
from sumi_core.experiments.resolve import resolve
from sumi_core.experiments.schema import Experiment
from sumi_core.models import PRESETS
from sumi_core.models.config import ModelConfig
from sumi_core.models.denoiser import Denoiser


def experiment(batch_size: int = 16, length: int = 64) -> Experiment:
    made = Experiment()
    made.training = dataclasses.replace(made.training, batch_size=batch_size)
    made.shards = dataclasses.replace(made.shards, sequence_length=length)
    return made


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
def test_flops_are_those_of_the_denoiser(preset: str, attention: str) -> None:
    made = experiment(length=100)
    made.model = ModelConfig(**{**PRESETS[preset], "attention": {"name": attention}})
    made.tokenizer = {"name": "bpe", "vocab_size": 1000}
    with torch.device("meta"):
        denoiser = Denoiser(made.model, 1000)
    assert training_flops_per_token(made, "x.yaml") == denoiser.flops_per_token(100)


@given(st.floats(1.0, 1e9), st.integers(1, 64), st.integers(2, 512), st.sampled_from(["tokens", "flops"]))
def test_steps_spend_the_budget_or_are_refused(amount: float, batch_size: int, length: int, kind: str) -> None:
    made = experiment(batch_size, length)
    price = 1.0 if kind == "tokens" else training_flops_per_token(made, "x.yaml")
    per_step = batch_size * length * price
    try:
        steps = Budget(**{kind: amount}).steps(made, "x.yaml")
    except ConfigError:
        best = min(abs(n * per_step - amount) for n in (int(amount / per_step), int(amount / per_step) + 1) if n > 0)
        assert best > TOLERANCE * amount
    else:
        assert abs(steps * per_step - amount) <= TOLERANCE * amount


def test_what_the_refusal_suggests_is_taken() -> None:
    made = experiment()
    for tokens, nearest in ((2500.0, 2048.0), (100.0, 1024.0)):
        with pytest.raises(ConfigError) as caught:
            Budget(tokens=tokens).steps(made, "x.yaml")
        assert f"write {nearest:.6g}, or a larger budget" in str(caught.value)
        assert Budget(tokens=nearest).steps(made, "x.yaml") == nearest / 1024
    assert str(caught.value) == (
        "x.yaml: budget.tokens: 100 are 0.09766 steps of 1024, and whole steps miss it by more than 1%; "
        "write 1024, or a larger budget"
    )


def test_a_vocabulary_that_only_the_tokenizer_knows_has_no_flops() -> None:
    made = experiment()
    made.tokenizer = {"name": "huggingface", "path": "x", "revision": None}
    with pytest.raises(ConfigError, match=r"budget\.flops: how many tokens tokenizer 'huggingface' has is not known"):
        Budget(flops=1e12).steps(made, "x.yaml")
    assert Budget(tokens=1024).steps(made, "x.yaml") == 1


def test_more_steps_than_anything_could_take_are_a_slip() -> None:
    with pytest.raises(ConfigError, match=r"budget\.tokens: makes 9.77e\+11 steps, more than 1,000,000,000"):
        Budget(tokens=1e15).steps(experiment(), "x.yaml")


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, 100),
        ({"clock": {"name": "spans", "window": 0.5}}, 200),
        ({"clock": {"name": "spans", "window": 0.5}, "objective": {"name": "nelbo", "token_levels": 0.5}}, 133),
        ({"clock": {"name": "staircase", "length": 16}}, 400),
        ({"objective": {"name": "nelbo", "loss_share": 0.25}}, 400),
        ({"process": "absorbing"}, 200),
        ({"process": "absorbing", "schedule": {"name": "polynomial", "exponent": 2}}, 300),
        ({"process": {"name": "hybrid", "p_uniform": 0.0}}, 200),
        ({"process": "hybrid"}, 100),
        ({"process": "absorbing", "objective": "posterior_cross_entropy", "parameterisation": "posterior"}, 100),
        (
            {
                "process": None,
                "objective": "autoregressive",
                "model": {"attention": "causal", "time_conditioning": "none"},
            },
            100,
        ),
    ],
    ids=str,
)
def test_a_budget_of_supervised_tokens_buys_more_steps_where_fewer_tokens_have_a_loss(
    changes: dict[str, object], steps: int
) -> None:
    made = resolve(
        {"shards": {"sequence_length": 64}, "training": {"batch_size": 16}, **changes},
        "x.yaml",
    )
    assert Budget(supervised_tokens=102_400).steps(made, "x.yaml") == steps
