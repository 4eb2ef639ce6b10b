"""Figures that cannot both be right are named; those that merely differ are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

from sumi_core.corruption import CLOCKS
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation.contradictions import bound_is_mean_of_orders, contradictions, file_contradiction
from sumi_core.evaluation.likelihood import SequenceLikelihoods
from sumi_core.evaluation.measurement import Model
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserInput, DenoiserOutput, FromLogits
from sumi_core.objectives import OBJECTIVES
from tests.corruption.enumerable import World
from tests.evaluation.fakes import Sequences, likelihoods
from tests.evaluation.test_chain_rule import measure
from tests.evaluation.test_readings import LENGTH, Successor, measured, model
from tests.models.stock import STATES, lively, small

WORD = "contradict each other"
GENERATOR = np.random.default_rng(0)
EXACT = likelihoods(GENERATOR.normal(100, 20, (40, 1)), exact=True)
NOISE = GENERATOR.normal(0, 1, (40, 2))
NOISE -= NOISE.mean()


def shifted(nats: float, noise: float = 1.0) -> SequenceLikelihoods:
    """The exact figure again, ``nats`` off on average."""
    return likelihoods(EXACT.diffusion + nats + noise * NOISE, level=GENERATOR.random((40, 2)))


@pytest.mark.parametrize(("nats", "word"), [(3.0, "above"), (-3.0, "below")])
def test_blocks_of_one_token_off_the_causal_model_are_named(nats: float, word: str) -> None:
    [sentence] = contradictions(model(), {"autoregressive": EXACT, "blocks_1": shifted(nats)})
    assert WORD in sentence
    assert f"bits per byte {word} `autoregressive`" in sentence
    bits = 3.0 / np.log(2) / 20
    assert f"`blocks_1` lies {bits:.4f} ± " in sentence


def test_what_noise_and_the_cut_explain_is_silent() -> None:
    error = NOISE.mean(1).std(ddof=1) / np.sqrt(40)
    assert not contradictions(model(), {"autoregressive": EXACT, "blocks_1": shifted(1.9 * error)})
    assert not contradictions(model(), {"autoregressive": EXACT, "blocks_1": shifted(0.05, noise=0)}), "ε = 0.001"
    assert contradictions(model(), {"autoregressive": EXACT, "blocks_1": shifted(0.2, noise=0)})


def test_readings_that_no_theorem_orders_are_silent() -> None:
    assert not contradictions(model(read_out="own"), {"autoregressive": EXACT, "blocks_1": shifted(-30)})
    assert not contradictions(model(), {"autoregressive": EXACT, "blocks_4": shifted(-30), "blocks_8": shifted(30)})
    assert not contradictions(model(), {"autoregressive": EXACT, "blocks_same_1": shifted(30)})


class TwoModels(nn.Module):
    """One that is surer of itself where it reads two streams than where it reads one."""

    def forward(self, given: DenoiserInput) -> DenoiserOutput:
        scale = 6.0 if given.pattern is None else 2.0
        return FromLogits(lambda tokens, level: scale * one_hot((tokens + 1) % STATES, STATES).double())(given)


@pytest.mark.parametrize(("denoiser", "says"), [(Successor(), False), (TwoModels(), True)])
def test_the_report_of_readings_says_so(tmp_path: Path, denoiser: nn.Module, says: bool) -> None:
    text = Sequences(200, LENGTH, STATES)
    text.rows[:] = (text.rows[:, :1] + np.arange(LENGTH)) % STATES
    found = measured(replace(model(), denoiser=denoiser), tmp_path, [1], text)
    assert any(WORD in part for part in found.texts) == says


class GivenNoLevel(FromLogits):
    """Says that it is given no level, whether or not that is so."""

    reads_level: ClassVar[bool] = False


@pytest.mark.parametrize("honest", [True, False])
def test_random_orders_stand_beside_the_bound_of_masks(tmp_path: Path, honest: bool) -> None:
    """Their figures agree for a network that is wrong, as long as it is given no level."""
    world = World("absorbing", tokens=3, length=3)

    def wrong(z: torch.Tensor, t: torch.Tensor | None) -> torch.Tensor:
        assert t is not None
        sharper = 1.0 if honest else 4.0 * (1 - t)[:, None, None]
        number = (z * world.states ** torch.arange(world.length)).sum(-1)
        table = torch.randn(999, 3, world.states, generator=torch.Generator().manual_seed(4)).double()
        return 2.0 * table[number] * sharper

    found = measure(world, tmp_path, denoiser=GivenNoLevel(wrong))
    table = found.tables["chain_rule.parquet"].set_index("reading")
    assert list(table.index) == ["bound", "left_to_right", "confidence_ordered", "random_order"]
    assert not table["exact"]["random_order"]
    assert abs(table["difference"]["left_to_right"]) > 3 * table["difference_stderr"]["left_to_right"]
    assert any(WORD in part for part in found.texts) != honest


def test_the_order_link_is_claimed_where_it_is_proved_alone() -> None:
    def made(world: World, denoiser: Any, **objective: Any) -> Model:
        vocabulary, unused = Vocabulary(world.tokens, 0), None
        built = OBJECTIVES.build("nelbo", objective, process=world.process, vocabulary=vocabulary)
        return Model(denoiser, built, unused, world.process, unused, torch.device("cpu"))  # type: ignore[arg-type]

    masks = World("absorbing", tokens=3, length=3)
    free, told = (lively(Denoiser(small(time_conditioning=kind), masks.states)) for kind in ("none", "adaln"))
    assert bound_is_mean_of_orders(made(masks, free))
    assert not bound_is_mean_of_orders(made(masks, told))
    assert not bound_is_mean_of_orders(made(masks, FromLogits(masks.denoiser))), "nobody knows"  # type: ignore[arg-type]
    assert not bound_is_mean_of_orders(made(masks, free, feedback={"name": "same"}))
    for other in ("uniform", "hybrid", "absorbing_uniform", "clustered"):
        assert not bound_is_mean_of_orders(made(World(other, tokens=3, length=3), free)), other
    masks.process.clock = CLOCKS.build("spans", {})
    assert not bound_is_mean_of_orders(made(masks, free))


def test_a_file_below_the_likelihood_is_named() -> None:
    assert file_contradiction(320.0, 310.2) == ()
    [sentence] = file_contradiction(320.0, 330.0)
    assert WORD in sentence
    assert "320 bits" in sentence
