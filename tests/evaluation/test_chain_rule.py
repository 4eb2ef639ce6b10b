"""The chain rule beside the bound, with errors over documents and over canvases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation import MEASUREMENTS
from sumi_core.evaluation.chain_rule import ChainRuleOrders
from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.evaluation.measurement import Context, Findings, Model, declared_model, declared_settings
from sumi_core.layouts import LAYOUTS
from sumi_core.models.interface import DenoiserFunction, FromLogits
from sumi_core.objectives import OBJECTIVES
from tests.corruption.enumerable import World
from tests.evaluation.fakes import Sequences

COUNT = 600


def measure(
    world: World, folder: Path, texts: int = COUNT, layout: str = "whole", denoiser: DenoiserFunction | None = None
) -> Findings:
    built = LAYOUTS.build(layout, {} if layout == "whole" else {"length": 1})
    objective = OBJECTIVES.build(
        "nelbo", {}, process=world.process, vocabulary=Vocabulary(world.tokens, 0), layout=built
    )
    text = Sequences(COUNT, world.length, world.tokens)
    text.rows[:] = world.x[torch.multinomial(world.p, COUNT, True, generator=torch.Generator().manual_seed(5))]
    unused: Any = None
    shown: Any = denoiser or FromLogits(world.denoiser)  # type: ignore[arg-type]
    model = Model(shown, objective, unused, world.process, unused, torch.device("cpu"))
    config = declared_settings(EvaluationConfig(sequences=COUNT, times_per_sequence=4), ChainRuleOrders)
    measurement: ChainRuleOrders = MEASUREMENTS.build("chain_rule", {"texts": texts})
    found: Findings = measurement.run(declared_model(model, ChainRuleOrders), Context(config, text, folder, 999))
    return found


def test_of_exact_masks_all_three_are_the_entropy(tmp_path: Path) -> None:
    found = measure(World("absorbing", tokens=4, length=3), tmp_path)
    table = found.tables["chain_rule.parquet"].set_index("reading")
    assert list(table.index) == ["bound", "left_to_right", "confidence_ordered"]
    assert list(table["exact"]) == [False, True, True]
    assert table["bits_per_byte"]["left_to_right"] == pytest.approx(table["bits_per_byte"]["confidence_ordered"])
    assert abs(table["difference"]["left_to_right"]) < 4 * table["bits_per_byte_mc_stderr"]["bound"] + 0.01
    assert set(found.summary["chain_rule"]) == {f"{name}{end}" for name in table.index for end in ("", "_stderr")}
    assert "| left_to_right | = " in found.texts[1]


def test_noise_of_tokens_has_an_upper_bound_and_its_error_over_canvases(tmp_path: Path) -> None:
    world = World("uniform", tokens=3, length=3)
    found = measure(world, tmp_path)
    table = found.tables["chain_rule.parquet"].set_index("reading")
    assert not table["exact"].any()
    orders = table.loc[["left_to_right", "confidence_ordered"]]
    assert (orders["bits_per_byte_mc_stderr"] > 0).all()
    assert (orders["bits_per_byte_mc_stderr"] < orders["bits_per_byte_stderr"]).all()
    assert "| left_to_right | ≤ " in found.texts[1]


def test_fewer_texts_are_read_than_are_evaluated_and_blocks_are_not(tmp_path: Path) -> None:
    world = World("absorbing", tokens=3, length=3)
    few = measure(world, tmp_path, 20).tables["chain_rule.parquet"]["bits_per_byte_stderr"]
    many = measure(world, tmp_path, 500).tables["chain_rule.parquet"]["bits_per_byte_stderr"]
    assert (few > 2 * many).all()
    assert measure(world, tmp_path, layout="blocks") == Findings()
