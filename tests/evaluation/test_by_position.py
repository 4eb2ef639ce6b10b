"""Cost and accuracy by position: they add up to the likelihood, and with the exact denoiser they are the truth."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation import MEASUREMENTS
from sumi_core.evaluation.by_position import ByPosition
from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.evaluation.likelihood import evaluate_likelihood, summarize
from sumi_core.evaluation.measurement import Context, Findings, Model, declared_model, declared_settings
from sumi_core.models.interface import DenoiserFunction, FromLogits
from sumi_core.objectives import OBJECTIVES
from sumi_core.objectives.objective import Objective
from tests.corruption.enumerable import World
from tests.evaluation.fakes import Sequences

CONFIG = EvaluationConfig(sequences=400, times_per_sequence=3)


def texts_of(world: World) -> Sequences:
    text = Sequences(400, world.length, world.tokens)
    text.rows[:] = world.x[torch.multinomial(world.p, 400, True, generator=torch.Generator().manual_seed(5))]
    return text


def measure(
    objective: Objective, denoiser: DenoiserFunction, process: Any, text: Sequences, folder: Path, **options: Any
) -> Findings:
    unused: Any = None
    model = Model(denoiser, objective, unused, process, unused, torch.device("cpu"))  # type: ignore[arg-type]
    context = Context(declared_settings(CONFIG, ByPosition), text, folder, 97)
    found: Findings = MEASUREMENTS.build("by_position", options).run(declared_model(model, ByPosition), context)
    return found


@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_positions_add_up_to_the_likelihood_and_levels_to_the_truth(process: str, tmp_path: Path) -> None:
    world = World(process, tokens=4, length=3)
    text, denoiser = texts_of(world), FromLogits(world.denoiser)  # type: ignore[arg-type]
    objective = OBJECTIVES.build("nelbo", {}, process=world.process, vocabulary=Vocabulary(world.tokens, 0))
    found = measure(objective, denoiser, world.process, text, tmp_path, noise=[0.5])
    table = found.tables["by_position.parquet"]
    whole = table[table["noise"].isna()]
    assert list(whole["first"]) == list(whole["last"]) == [0, 1, 2], "no more stretches than positions"
    likelihood = summarize(evaluate_likelihood(objective.reading, denoiser, text, CONFIG))
    assert whole["nats"].mean() == pytest.approx(likelihood.nats_per_token, rel=1e-9)
    # The exact H(x_i | z) at this level, where noise may have been, and how often the best guess is right.
    t = world.process.time_of_alpha(torch.tensor([0.5], dtype=torch.float64))
    posterior = world.posterior(world.z, t.expand(len(world.z)))
    chance = world.marginal(float(t))
    for row in table[table["noise"] == 0.5].to_dict("records"):
        place = row["first"]
        counted = world.z[:, place] == world.tokens if process == "absorbing" else torch.ones(len(world.z)).bool()
        weight = torch.where(counted & (chance > 0), chance, 0.0)
        own = torch.where(weight[:, None] > 0, posterior[:, place], 1.0)
        entropy = float((weight * -torch.xlogy(own, own).sum(-1)).sum() / weight.sum())
        best = float((weight * own.max(-1).values).sum() / weight.sum())
        assert row["nats"] == pytest.approx(entropy, abs=4 * row["nats_stderr"])
        assert row["accuracy"] == pytest.approx(best, abs=4 * row["accuracy_stderr"])
        assert 0 < row["nats_stderr"] < 0.2
    assert (tmp_path / "plots" / "by_position.png").stat().st_size > 0
    assert found.summary["by_position"]["first_nats"] == whole["nats"].iloc[0]


def test_an_exact_likelihood_is_split_in_stretches_and_has_no_levels(tmp_path: Path) -> None:
    objective = OBJECTIVES.build("autoregressive", {}, process=None, vocabulary=Vocabulary(5, 0))
    bias = torch.tensor([0.0, 1.0, 2.0, 0.5, -1.0], dtype=torch.float64)
    text = Sequences(400, 10, 5)
    denoiser = FromLogits(lambda z, level: bias.expand(*z.shape, 5))
    table = measure(objective, denoiser, None, text, tmp_path, stretches=4).tables["by_position.parquet"]
    assert list(zip(table["first"], table["last"], strict=True)) == [(0, 1), (2, 4), (5, 7), (8, 9)]
    nats = -bias.log_softmax(-1).numpy()[text.rows.astype(np.int64)]
    np.testing.assert_allclose(table["nats"], [nats[:, a : b + 1].mean() for a, b in ((0, 1), (2, 4), (5, 7), (8, 9))])
    assert table["accuracy"].isna().all()
    assert table["exact"].all()
    assert math.isclose(float(table["tokens"].sum()), 4000)


def test_shares_of_noise_are_checked() -> None:
    with pytest.raises(ValueError, match="noise holds different shares above 0 and below 1"):
        ByPosition.Options(noise=[0.5, 0.5]).check()
