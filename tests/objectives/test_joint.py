"""One model for two modes: both losses come from one pass, and each is what its own objective computes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sumi_core.corruption import CLOCKS, PARAMETERISATIONS, PROCESSES, SCHEDULES
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.layouts import LAYOUTS
from sumi_core.layouts.blocks import Blocks
from sumi_core.models.denoiser import Denoiser
from sumi_core.objectives import OBJECTIVES
from sumi_core.objectives.joint import Joint
from tests.models.stock import STATES, lively, small
from tests.objectives.worlds import batch_of

EOS, LENGTH, TOKENS = 3, 8, STATES - 1


def context(layout: dict[str, Any] | None = None, steps: int | None = None) -> dict[str, Any]:
    vocabulary = Vocabulary(TOKENS, EOS)
    process = PROCESSES.build(
        "absorbing",
        {},
        vocabulary=vocabulary,
        schedule=SCHEDULES.build("linear", {}),
        clock=CLOCKS.build("shared", {}),
        parameterisation=PARAMETERISATIONS.build("leave_one_out", {}),
    )
    shown = LAYOUTS.build("blocks", {"length": 4, **(layout or {})}, steps=steps)
    return {"process": process, "vocabulary": vocabulary, "layout": shown}


def joint(*, layout: dict[str, Any] | None = None, steps: int | None = None, **options: Any) -> Joint:
    options = {"diffusion": {"name": "nelbo", "weighting": "snr", "z_loss": 0.01}, **options}
    made: Joint = OBJECTIVES.build("joint", options, **context(layout, steps))
    return made


def network() -> Denoiser:
    return lively(Denoiser(small(attention="causal"), STATES)).double()


def texts(rows: int = 3) -> Tensor:
    return torch.randint(TOKENS, (rows, LENGTH), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("read_out", ["own", "previous"])
def test_the_loss_is_the_weighted_sum_of_what_both_objectives_compute_alone(read_out: str) -> None:
    objective = joint(layout={"read_out": read_out}, autoregressive_weight=0.7, diffusion_weight=0.4)
    denoiser, batch = network(), batch_of(texts())
    noise = OBJECTIVES.from_config(objective.options.diffusion, **context({"read_out": read_out}))
    next_token = OBJECTIVES.build("autoregressive", {}, process=None, vocabulary=Vocabulary(TOKENS, EOS))
    one, other = next_token.loss(denoiser, batch), noise.loss(denoiser, batch)
    found = objective.loss(denoiser, batch)
    torch.testing.assert_close(found.value, 0.7 * one.value + 0.4 * other.value, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.metrics["autoregressive"], one.value.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.metrics["diffusion"], other.value.detach(), rtol=0, atol=1e-12)
    assert float(found.metrics["supervised_tokens"]) == 1.0
    assert found.metrics.keys() == other.metrics.keys() | {"autoregressive", "diffusion"}

    weights = list(denoiser.parameters())
    together = torch.autograd.grad(found.value, weights)
    apart = torch.autograd.grad(0.7 * one.value + 0.4 * other.value, weights)
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_the_noise_does_not_touch_the_autoregressive_half() -> None:
    denoiser, x = network(), texts()
    first, second = (joint().loss(denoiser, batch_of(x, seed=seed)).metrics for seed in (1, 2))
    assert torch.equal(first["autoregressive"], second["autoregressive"])
    assert not torch.equal(first["diffusion"], second["diffusion"])


def test_a_weight_of_zero_leaves_the_other_objective() -> None:
    denoiser, batch = network(), batch_of(texts())
    alone = joint(autoregressive_weight=0.0, diffusion_weight=1.0, reported="blocks").loss(denoiser, batch)
    assert torch.equal(alone.value, alone.metrics["diffusion"].to(alone.value))
    assert float(alone.metrics["supervised_tokens"]) < 1.0, "only masked tokens have a loss"
    with pytest.raises(ValueError, match="both 0; raise one"):
        joint(autoregressive_weight=0.0, diffusion_weight=0.0)
    with pytest.raises(ValueError, match="ranked by a mode that is not trained"):
        joint(autoregressive_weight=0.0, diffusion_weight=1.0)


@pytest.mark.parametrize("reported", ["autoregressive", "blocks"])
def test_a_model_has_both_likelihoods_and_is_reported_with_the_one_that_was_chosen(reported: str) -> None:
    objective, denoiser, batch = joint(reported=reported), network(), batch_of(texts())
    assert set(objective.readings) == {"autoregressive", "blocks"}
    assert objective.reading is not None
    assert next(iter(objective.readings)) == reported
    assert objective.reading.exact == Joint.reports_exactly(vars(objective.options)) == (reported == "autoregressive")
    next_token = OBJECTIVES.build("autoregressive", {}, process=None, vocabulary=Vocabulary(TOKENS, EOS))
    noise = OBJECTIVES.build("nelbo", {}, **context())
    for name, alone in (("autoregressive", next_token), ("blocks", noise)):
        found = objective.readings[name](denoiser, batch, 1e-3).total
        assert torch.equal(found, alone.likelihood(denoiser, batch, 1e-3).total)
    assert torch.equal(objective.likelihood(denoiser, batch, 1e-3).total, found) == (reported == "blocks")


@pytest.mark.parametrize("source", ["same", "path"])
def test_feedback_is_that_of_the_objective_of_the_noise_alone_and_the_text_has_none(source: str) -> None:
    fed = {"name": "nelbo", "feedback": {"name": source}}
    objective, batch = joint(diffusion=fed, diffusion_weight=0.4, reported="blocks"), batch_of(texts())
    denoiser = lively(Denoiser(small(attention="causal", feedback={"name": "residual_context"}), STATES)).double()
    alone, plain = OBJECTIVES.from_config(fed, **context()), OBJECTIVES.build("nelbo", {}, **context())
    next_token = OBJECTIVES.build("autoregressive", {}, process=None, vocabulary=Vocabulary(TOKENS, EOS))
    found, one = objective.loss(denoiser, batch), alone.loss(denoiser, batch)
    torch.testing.assert_close(found.metrics["diffusion"], one.value.detach(), rtol=0, atol=1e-12)
    text = next_token.loss(denoiser, batch).value.detach()
    torch.testing.assert_close(found.metrics["autoregressive"], text, rtol=0, atol=1e-12)
    assert not torch.equal(one.value, plain.loss(denoiser, batch).value)
    names = [*objective.readings]
    assert names[0] == f"blocks_{source}"
    assert set(names) == {f"blocks_{source}", "blocks_same", "blocks", "autoregressive"}


# --- block lengths of training --------------------------------------------------------------------------------------


def lengths(layout: dict[str, Any], steps: int | None, *at: int) -> list[int]:
    shown: Blocks = LAYOUTS.build("blocks", {"length": 8, **layout}, steps=steps)
    return [shown.at(step).options.length for step in at]


def test_growth_goes_through_its_lengths_in_equal_parts_of_the_training() -> None:
    assert lengths({"growth": [1, 4]}, 9, *range(9)) == [1] * 3 + [4] * 3 + [8] * 3
    assert lengths({"growth": [1, 4]}, 2, 0, 1) == [1, 4], "too few steps for all"
    assert lengths({"growth": [1, 4]}, None, 0, 5) == [8, 8], "a finished model is shown its last"


def test_steps_take_turns_between_the_length_and_the_others() -> None:
    assert lengths({"also": [2, 4]}, 100, *range(7)) == [8, 2, 4, 8, 2, 4, 8]
    assert lengths({"also": [2, 4]}, None, 1, 2) == [8, 8]


@pytest.mark.parametrize("objective", ["joint", "nelbo"])
@pytest.mark.parametrize(("growing", "step", "length"), [({"growth": [2]}, 1, 2), ({"also": [2]}, 1, 2)])
def test_a_step_trains_as_if_its_length_were_the_only_one(
    objective: str, growing: dict[str, Any], step: int, length: int
) -> None:
    denoiser, batch = network(), batch_of(texts(), step=step)
    grown = OBJECTIVES.build(objective, {}, **context(growing, steps=4)).loss(denoiser, batch)
    fixed = OBJECTIVES.build(objective, {}, **context({"length": length})).loss(denoiser, batch)
    other = OBJECTIVES.build(objective, {}, **context()).loss(denoiser, batch)
    assert torch.equal(grown.value, fixed.value)
    assert not math.isclose(float(grown.value.detach()), float(other.value.detach()), rel_tol=1e-6)
