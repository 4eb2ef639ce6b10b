"""Calibration and own-token sensitivity, where the exact denoiser is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sumi_core.base.options import ConfigError
from sumi_core.data.noise import Noise
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation import MEASUREMENTS
from sumi_core.evaluation.calibration import (
    Calibration,
    Seen,
    figures_of,
    most_probable,
    own_token_sensitivity,
    reliability,
)
from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.evaluation.measurement import Context, Findings, Model, declared_model, declared_settings
from sumi_core.experiments.resolve import resolve
from sumi_core.models.interface import FromLogits
from sumi_core.objectives import OBJECTIVES
from tests.corruption.enumerable import Denoiser, World
from tests.evaluation.fakes import Sequences

COUNT = 1500


def texts_of(world: World) -> Sequences:
    """Texts that the world writes, each a document."""
    text = Sequences(COUNT, world.length, world.tokens)
    text.rows[:] = world.x[torch.multinomial(world.p, COUNT, True, generator=torch.Generator().manual_seed(5))]
    return text


def measure(world: World, denoiser: Denoiser, folder: Path, count: int = COUNT, **options: Any) -> Findings:
    objective = OBJECTIVES.build("nelbo", {}, process=world.process, vocabulary=Vocabulary(world.tokens, 0))
    unused: Any = None
    model = Model(FromLogits(denoiser), objective, unused, world.process, unused, torch.device("cpu"))  # type: ignore[arg-type]
    config = declared_settings(EvaluationConfig(sequences=count), Calibration)
    measurement: Calibration = MEASUREMENTS.build("calibration", {"bins": 8, **options})
    found: Findings = measurement.run(declared_model(model, Calibration), Context(config, texts_of(world), folder, 999))
    return found


def sharpened(world: World) -> Denoiser:
    """The exact leave-one-out predictions, cubed."""

    def denoiser(z: Tensor, t: Tensor) -> Tensor:
        return 3 * world.denoiser(z, t)

    return denoiser


@pytest.mark.parametrize("process", ["uniform", "absorbing", "hybrid"])
def test_the_exact_denoiser_is_calibrated_and_a_sharpened_one_is_not(process: str, tmp_path: Path) -> None:
    world = World(process, tokens=4, length=3)
    for denoiser, calibrated in ((world.denoiser, True), (sharpened(world), False)):
        found = measure(world, denoiser, tmp_path, noise=[0.3, 0.8], probes=0)
        for row in found.tables["calibration.parquet"].to_dict("records"):
            off = row["overconfidence"] / row["overconfidence_stderr"]
            assert (abs(off) < 3.5) if calibrated else (off > 6), row
            assert (row["calibration_error"] < 2 * row["calibration_error_floor"]) == calibrated, row
    assert found.plots[0].stat().st_size > 1000
    assert "| 0.3 |" in found.texts[1]
    assert {"accuracy_at_0.3", "accuracy_at_0.3_stderr", "calibration_error_floor_at_0.8"} <= set(
        found.summary["calibration"]
    )


def test_accuracy_is_that_of_the_most_probable_token(tmp_path: Path) -> None:
    """By enumeration: Σ_z q(z) max_v p(x_i = v | z)."""
    world, noise = World("uniform", tokens=3, length=2), 0.6
    t = torch.full((len(world.z),), noise, dtype=torch.float64)
    best = world.posterior(world.z, t).max(-1).values.mean(-1)
    expected = float(world.marginal(noise) @ best)
    row = measure(world, world.denoiser, tmp_path, noise=[noise], probes=0).tables["calibration.parquet"].iloc[0]
    assert abs(row["accuracy"] - expected) < 4 * row["accuracy_stderr"]
    assert row["accuracy_stderr"] < 0.01
    confidence, guess = most_probable(world.process, world.denoiser(world.z, t), world.z, t[:, None])
    assert torch.allclose(confidence, world.posterior(world.z, t).max(-1).values)
    assert torch.equal(guess, world.posterior(world.z, t).argmax(-1))


@pytest.mark.parametrize("process", ["uniform", "unigram", "mixture"])
def test_only_a_prediction_that_reads_its_own_token_moves_with_it(process: str, tmp_path: Path) -> None:
    world = World(process, tokens=4, length=3)
    name = "own_token_sensitivity"
    left_out = measure(world, world.denoiser, tmp_path, 200, noise=[0.5], probes=2).tables["calibration.parquet"]
    assert left_out[name][0] == pytest.approx(0, abs=1e-12)
    reading = measure(world, world.full_posterior_denoiser, tmp_path, 200, noise=[0.5], probes=2)
    assert reading.tables["calibration.parquet"][name][0] > 0.05


def test_the_sensitivity_is_the_total_variation_of_one_position() -> None:
    """A denoiser that copies half of its own token: the variation is ½ wherever the token changed."""
    world = World("uniform", tokens=4, length=5)

    def half(z: Tensor, t: Tensor | None) -> Tensor:
        return (torch.nn.functional.one_hot(z, 4).double() / 2 + 1 / 8).log()

    z = torch.randint(4, (200, 5), generator=torch.Generator().manual_seed(0))
    t = torch.full((200,), 0.5, dtype=torch.float64)
    reading = world.process.clock.draw(Noise(0, "clock", 0, range(200)), 5).at(t)
    moved = own_token_sensitivity(
        world.process, FromLogits(half), half(z, t), z, reading, Noise(0, "probe", 0, range(200)), 3
    )
    assert moved.shape == (200, 3)
    changed = moved[moved.isfinite()]
    assert torch.allclose(changed, torch.full_like(changed, 0.5))
    assert 0.65 < len(changed) / moved.numel() < 0.85, "a uniform draw is another token in three of four cases"


def test_masks_alone_and_models_without_noise_have_no_sensitivity(tmp_path: Path) -> None:
    world = World("absorbing", tokens=4, length=3)
    assert math.isnan(
        measure(world, world.denoiser, tmp_path).tables["calibration.parquet"]["own_token_sensitivity"][0]
    )
    objective = OBJECTIVES.build("autoregressive", {}, process=None, vocabulary=Vocabulary(4, 0))
    unused: Any = None
    model = Model(unused, objective, unused, None, unused, torch.device("cpu"))
    assert MEASUREMENTS.build("calibration", {}).run(model, unused) == Findings()


def test_bins_hold_equally_many_positions_and_errors_are_over_documents() -> None:
    generator = np.random.default_rng(0)
    confidence, sequence = generator.random(100), np.repeat(np.arange(20), 5)
    correct, document = generator.random(100) < confidence, np.repeat(np.arange(10), 2)
    curve = reliability(confidence, correct, sequence, document, 8)
    assert sorted(set(curve["positions"])) == [12, 13]
    assert curve["confidence"].is_monotonic_increasing
    assert (curve["accuracy"] * curve["positions"]).sum() == pytest.approx(correct.sum())
    figures = figures_of(Seen(confidence, correct, sequence, np.full((20, 0), 0.0)), document, 8)
    by_hand = (curve["positions"] * (curve["accuracy"] - curve["confidence"]).abs()).sum() / 100
    assert figures["calibration_error"] == pytest.approx(by_hand)
    of_documents = (confidence - correct).reshape(10, 10).mean(1)
    assert figures["overconfidence_stderr"] == pytest.approx(of_documents.std(ddof=1) / math.sqrt(10))
    assert math.isnan(figures["own_token_sensitivity"])


@pytest.mark.parametrize("noise", [[0.0, 0.5], [1.0], [0.5, 0.5]])
def test_noise_is_a_share_between_both_ends(noise: list[float]) -> None:
    measurements = [{"name": "calibration", "noise": noise}]
    with pytest.raises(ConfigError, match="noise holds different shares above 0 and below 1"):
        resolve({"evaluation": {"measurements": measurements}}, "tests")
