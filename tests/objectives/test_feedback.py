"""Training with feedback: who has it, what it costs the gradient, whose predictions it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sumi_core.corruption import CLOCKS, PARAMETERISATIONS, PROCESSES, SCHEDULES
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.experiments.resolve import resolve
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.foreign import InitialiserError
from sumi_core.models.interface import Belief, DenoiserInput, Feedback
from sumi_core.objectives import OBJECTIVES
from sumi_core.objectives.diffusion import Diffusion
from sumi_core.training.config import TrainingConfig
from sumi_core.training.module import DenoiserTraining
from tests.models.stock import STATES, lively, small
from tests.objectives.worlds import batch_of

TOKENS, ROWS, LENGTH = STATES - 1, 6, 5
RESIDUAL = {"name": "residual_context"}
SOURCES: list[dict[str, Any]] = [{"name": "same"}, {"name": "path", "lag": 0.2}]
NAMES = [source["name"] for source in SOURCES]


def objective(source: dict[str, Any] | None = None, process: str = "absorbing", **options: Any) -> Diffusion:
    vocabulary = Vocabulary(TOKENS, 0)
    made = PROCESSES.build(
        process,
        {},
        vocabulary=vocabulary,
        schedule=SCHEDULES.build("linear", {}),
        clock=CLOCKS.build("shared", {}),
        parameterisation=PARAMETERISATIONS.build("leave_one_out", {}),
    )
    built: Diffusion = OBJECTIVES.build("nelbo", {**options, "feedback": source}, process=made, vocabulary=vocabulary)
    return built


def network(form: dict[str, Any] | None = RESIDUAL, **changes: Any) -> Denoiser:
    return lively(Denoiser(small(feedback=form, **changes), STATES))


def texts(rows: int = ROWS) -> Tensor:
    return torch.randint(TOKENS, (rows, LENGTH), generator=torch.Generator().manual_seed(0))


class Watching(Denoiser):
    """Keeps what it was given and believed."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.given: list[DenoiserInput] = []
        self.believed: list[Belief] = []

    def forward(self, given: DenoiserInput) -> Any:
        self.given.append(given)
        return super().forward(given)

    def feedback(self, belief: Belief) -> Feedback:
        self.believed.append(belief)
        return super().feedback(belief)


def watching() -> Watching:
    found = lively(Watching(small(feedback=RESIDUAL), STATES))
    assert isinstance(found, Watching)
    return found


# --- the base model -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [{**RESIDUAL, "rho": 0.0}, {"name": "self_conditioning"}], ids=["rho 0", "fresh gate"])
@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_a_form_that_lets_nothing_in_has_the_loss_and_the_bounds_of_the_base_model(
    source: dict[str, Any], form: dict[str, Any]
) -> None:
    base, fed = Denoiser(small(), STATES, seed=4), Denoiser(small(feedback=form), STATES, seed=4)
    plain, with_source, batch = objective(), objective(source), batch_of(texts())
    assert torch.equal(plain.loss(base, batch).value, with_source.loss(fed, batch).value)
    expected = plain.likelihood(base, batch, 1e-3).total
    assert len(with_source.readings) == {"same": 2, "path": 3}[source["name"]]
    for reading in with_source.readings.values():
        assert torch.equal(reading(fed, batch, 1e-3).total, expected)


@pytest.mark.parametrize(("source", "names"), [("same", ["same"]), ("path", ["path", "same"])])
def test_a_model_is_reported_with_what_it_was_trained_on_and_read_in_every_way(source: str, names: list[str]) -> None:
    found = objective({"name": source, **({"lag": 0.4} if source == "path" else {})}).readings
    assert [*found] == [*(f"diffusion_{name}" for name in names), "diffusion"]
    fed, batch = network(), batch_of(texts())
    figures = [reading(fed, batch, 1e-3).total for reading in found.values()]
    assert all(not torch.equal(figures[i], figures[j]) for i in range(len(figures)) for j in range(i))
    assert [*objective().readings] == ["diffusion"]


# --- training -------------------------------------------------------------------------------------------------------


def test_who_has_feedback_is_decided_by_the_address_of_the_example() -> None:
    trained, denoiser, x = objective({"name": "same", "share": 0.5}), watching(), texts(40)

    def chosen(rows: list[int] | None = None, step: int = 0) -> Tensor:
        trained.loss(denoiser, batch_of(x, step=step, rows=rows))
        return denoiser.believed[-1].where

    every = chosen()
    assert every.shape == (40, 1)
    assert 10 <= int(every.sum()) <= 30
    assert torch.equal(chosen([3, 17, 25]), every[[3, 17, 25]]), "not by its company"
    assert not torch.equal(chosen(step=1), every)
    fed = denoiser.given[1].feedback
    assert fed is not None
    assert torch.equal((fed.mean != 0).any(-1).any(-1, keepdim=True), every)
    assert [given.feedback is None for given in denoiser.given[:2]] == [True, False]


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_the_earlier_pass_has_no_gradient(source: dict[str, Any]) -> None:
    """The gradient is that of the later pass with its feedback held fixed."""
    trained, batch, denoiser = objective(source), batch_of(texts()), watching()
    weights = list(denoiser.parameters())
    found = torch.autograd.grad(trained.loss(denoiser, batch).value, weights)
    later = denoiser.given[1]
    assert later.feedback is not None
    assert not later.feedback.mean.requires_grad
    held = trained.loss_of(denoiser(later), trained.training_noise(batch)).value
    for a, b in zip(found, torch.autograd.grad(held, weights), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("form", [RESIDUAL, {"name": "self_conditioning"}], ids=lambda form: str(form["name"]))
def test_in_half_precision_every_weight_still_has_its_gradient(form: dict[str, Any]) -> None:
    """Weights that autocast has converted for a pass without gradient must not serve the one that has some."""
    denoiser = network(form)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objective({"name": "same"}).loss(denoiser, batch_of(texts())).value
    found = torch.autograd.grad(loss, list(denoiser.parameters()))
    assert all(float(gradient.abs().max()) > 0 for gradient in found)


# --- another model's predictions ------------------------------------------------------------------------------------


def reference(folder: Path, **changes: Any) -> dict[str, Any]:
    """A source that means a smaller model in ``folder``."""
    model = {**vars(small(num_layers=1)), **changes}
    experiment = resolve({"model": model, "process": "absorbing"}, "a.yaml").to_dict()
    return {"name": "reference", "of": {"cell": "base.s0", "experiment": experiment, "folder": str(folder)}}


def test_a_reference_predicts_and_is_no_part_of_the_model(tmp_path: Path) -> None:
    other = lively(Denoiser(small(num_layers=1), STATES), seed=9)
    save_file(other.weights(), tmp_path / "weights.safetensors")
    trained, denoiser, batch = objective(reference(tmp_path)), watching(), batch_of(texts())
    before = set(denoiser.state_dict())
    loss = trained.loss(denoiser, batch).value
    (given,), (belief,) = denoiser.given, denoiser.believed
    with torch.no_grad():
        assert torch.equal(belief.output.logits(), other.logits(given.tokens))
    assert not belief.output.hidden.requires_grad
    loss.backward()
    module = DenoiserTraining(denoiser, trained, TrainingConfig(), lambda weights, limit: torch.zeros(()))
    assert {name.removeprefix("denoiser.") for name in module.state_dict()} == before
    opened = trained.feedback.predictor(denoiser, trained.process, torch.device("cpu"))  # type: ignore[union-attr]
    assert all(weight.grad is None and not weight.requires_grad for weight in opened.parameters())  # type: ignore[attr-defined]
    assert [*trained.readings] == ["diffusion_reference", "diffusion_same", "diffusion"]


def test_a_reference_that_is_not_at_hand_is_named(tmp_path: Path) -> None:
    denoiser, batch = network(), batch_of(texts())
    with pytest.raises(InitialiserError, match=r"there is no .*; compute 'base\.s0' again"):
        objective(reference(tmp_path)).loss(denoiser, batch)
    save_file(Denoiser(small(), STATES).weights(), tmp_path / "weights.safetensors")
    with pytest.raises(InitialiserError, match=r"does not hold 'model\.layers\.2"):
        objective(reference(tmp_path, num_layers=3)).loss(denoiser, batch)
    away = reference(tmp_path)
    del away["of"]["folder"]
    with pytest.raises(LookupError, match=r"the output of 'base\.s0' is at hand only while"):
        objective(away).loss(denoiser, batch)
