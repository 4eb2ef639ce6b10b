"""All likelihoods of one model beside each other, paired."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

from sumi_core.corruption import CLOCKS, PARAMETERISATIONS, PROCESSES, SCHEDULES
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation import MEASUREMENTS
from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.evaluation.likelihood import evaluate_likelihood, summarize
from sumi_core.evaluation.measurement import Context, Model, declared_model, declared_settings
from sumi_core.evaluation.readings import Readings, readings_of, readings_table
from sumi_core.layouts import LAYOUTS
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserInput, DenoiserOutput, FromLogits
from sumi_core.objectives import OBJECTIVES
from tests.evaluation.fakes import EOS, Sequences, likelihoods
from tests.models.stock import STATES, lively, small

LENGTH = 8


def model(objective: str = "joint", read_out: str = "previous", **options: Any) -> Model:
    vocabulary = Vocabulary(STATES, EOS)
    process = PROCESSES.build(
        "uniform",
        {},
        vocabulary=vocabulary,
        schedule=SCHEDULES.build("linear", {}),
        clock=CLOCKS.build("shared", {}),
        parameterisation=PARAMETERISATIONS.build("leave_one_out", {}),
    )
    layout = LAYOUTS.build("blocks", {"length": 4, "read_out": read_out})
    made: Any = OBJECTIVES.build(objective, options, process=process, vocabulary=vocabulary, layout=layout)
    denoiser = lively(Denoiser(small(attention="causal"), STATES)).double()
    unused: Any = None
    return Model(denoiser, made, unused, process, unused, torch.device("cpu"))


def measured(model: Model, folder: Path, block_lengths: list[int], text: Sequences | None = None) -> Any:
    text = text or Sequences(40, LENGTH, STATES)
    measurement: Readings = MEASUREMENTS.build("readings", {"block_lengths": block_lengths})
    config = declared_settings(EvaluationConfig(sequences=len(text), times_per_sequence=4), Readings)
    return measurement.run(declared_model(model, Readings), Context(config, text, folder, 64))


def test_every_reading_stands_in_one_table_with_its_errors(tmp_path: Path) -> None:
    found = measured(model(), tmp_path, [1, 8])
    table = found.tables["readings.parquet"]
    assert list(table["reading"]) == ["autoregressive", "blocks_1", "blocks_4", "blocks_8"]
    assert list(table["block_length"]) == [0, 1, 4, 8]
    assert list(table["exact"]) == [True, False, False, False]
    assert (table["bits_per_byte_stderr"] > 0).all()
    np.testing.assert_allclose(table["difference"], table["bits_per_byte"] - table["bits_per_byte"][0], atol=1e-12)
    assert (table["difference_stderr"][1:] < table["bits_per_byte_stderr"][1:]).all(), "differences are paired"
    assert set(found.summary["readings"]) == {
        name for reading in table["reading"] for name in (reading, f"{reading}_stderr")
    }
    assert found.plots[0].stat().st_size > 1000
    text = "\n".join(found.texts)
    assert "| autoregressive | – | = " in text
    assert "| blocks_8 | 8 | ≤ " in text


class Successor(nn.Module):
    """Expects each token to be followed by the next number, whatever stands where."""

    def forward(self, given: DenoiserInput) -> DenoiserOutput:
        return FromLogits(lambda tokens, level: 6.0 * one_hot((tokens + 1) % STATES, STATES).double())(given)


@pytest.mark.parametrize("read_out", ["own", "previous"])
def test_the_bound_of_blocks_of_one_token_is_the_exact_figure(tmp_path: Path, read_out: str) -> None:
    """Under read-out ``previous`` with blocks of one token the denoiser is the causal model, and the bound's estimate
    is off by its Monte-Carlo error alone. Under ``own`` it reads the noise."""
    counting = dataclasses.replace(model(read_out=read_out), denoiser=Successor())
    text = Sequences(400, LENGTH, STATES)
    text.rows[:] = (text.rows[:, :1] + np.arange(LENGTH)) % STATES
    table = measured(counting, tmp_path, [1], text).tables["readings.parquet"].set_index("reading")
    difference = float(table["difference"]["blocks_1"])
    error = float(table["bits_per_byte_mc_stderr"]["blocks_1"])
    assert 0 < error < 0.1
    assert (abs(difference) < 4 * error) == (read_out == "previous")


def test_the_main_reading_is_the_figure_of_the_likelihood_measurement(tmp_path: Path) -> None:
    own = model(reported="blocks")
    table = measured(own, tmp_path, []).tables["readings.parquet"].set_index("reading")
    config = EvaluationConfig(sequences=40, times_per_sequence=4)
    text = Sequences(40, LENGTH, STATES)
    alone = summarize(evaluate_likelihood(own.objective.reading, own.denoiser, text, config))
    assert float(table["bits_per_byte"]["blocks_4"]) == pytest.approx(alone.bits_per_byte, abs=1e-12)
    assert float(table["bits_per_byte_mc_stderr"]["blocks_4"]) == pytest.approx(alone.bits_per_byte_mc_stderr)


def test_a_model_of_one_reading_has_no_table_unless_other_lengths_are_asked_for(tmp_path: Path) -> None:
    assert not measured(model("nelbo"), tmp_path, []).tables
    assert list(readings_of(model("nelbo"), [8, 2])) == ["blocks_2", "blocks_4", "blocks_8"]
    assert list(readings_of(model("nelbo"), [], autoregressive=True)) == ["autoregressive", "blocks_4"]


@pytest.mark.parametrize(
    ("objective", "options", "name"),
    [
        ("nelbo", {}, "blocks_4"),
        ("nelbo", {"feedback": {"name": "same"}}, "blocks_same_4"),
        ("joint", {}, "autoregressive"),
        ("joint", {"reported": "blocks"}, "blocks_4"),
        ("autoregressive", {}, "autoregressive"),
    ],
)
def test_what_a_model_is_ranked_by_has_the_name_that_it_has_in_the_table(
    objective: str, options: dict[str, Any], name: str
) -> None:
    """Comparisons know it from the configuration, this table from the model."""
    own = model(objective, **options)
    layout: Any = own.objective.layout
    config = {"name": objective, **vars(own.objective.options)}
    assert own.objective.reported_reading(config, {"layout": {"name": "blocks", **vars(layout.options)}}) == name
    [same] = [key for key, reading in readings_of(own, []).items() if reading.exact == own.objective.reading.exact][:1]
    assert same == name


def test_the_bound_of_whole_texts_is_named_diffusion() -> None:
    layout = {"layout": {"name": "whole"}}
    assert OBJECTIVES.get("nelbo").reported_reading({"feedback": None}, layout) == "diffusion"
    assert OBJECTIVES.get("nelbo").reported_reading({"feedback": {"name": "path"}}, layout) == "diffusion_path"


def test_differences_are_over_documents() -> None:
    generator = np.random.default_rng(0)
    first = likelihoods(generator.normal(100, 20, (12, 1)), exact=True)
    second = likelihoods(first.diffusion + generator.normal(3, 1, (12, 2)), level=generator.random((12, 2)))
    table: pd.DataFrame = readings_table(
        {"autoregressive": first, "blocks_4": second}, {"autoregressive": 0, "blocks_4": 4}
    )
    bits = (second.nats - first.nats) / np.log(2)
    assert float(table["difference"][1]) == pytest.approx(bits.sum() / (12 * 20))
    assert float(table["difference_stderr"][1]) == pytest.approx(bits.std(ddof=1) / np.sqrt(12) / 20, rel=1e-6)
