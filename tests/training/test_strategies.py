"""A strategy holds everything of a training that depends on where the weights are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sumi_core.base.registry import load
from sumi_core.training import STRATEGIES
from sumi_core.training.strategies.strategy import SingleDevice, Strategy
from tests.training.processes import outcome

MakeRequest = Callable[..., Path]
Undisturbed = Callable[..., Path]


def parameters_with_gradients() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    made = [nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,), (2,))]
    for parameter in made[:2]:  # the last one took no part
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return made


def norm_of(parameters: Sequence[nn.Parameter]) -> float:
    return math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in parameters if p.grad is not None))


@pytest.mark.parametrize("strategy", [SingleDevice(), *(STRATEGIES.build(name, {}) for name in STRATEGIES.names())])
def test_the_gradient_is_scaled_to_the_limit_and_never_up(strategy: Strategy) -> None:
    for limit, after in ((0.5, 0.5), (1e6, None), (0.0, None)):
        parameters = parameters_with_gradients()
        before = norm_of(parameters)
        direction = parameters[0].grad.clone() / before  # type: ignore[union-attr]
        assert float(strategy.clip_gradient(parameters, limit)) == pytest.approx(before, rel=1e-6)
        assert norm_of(parameters) == pytest.approx(after or before, rel=1e-5)
        torch.testing.assert_close(parameters[0].grad / norm_of(parameters), direction)  # type: ignore[operator]


def test_every_strategy_gives_lightning_one_of_its_own() -> None:
    from lightning.pytorch.strategies import Strategy as LightningStrategy

    assert SingleDevice().lightning() == "auto"
    for name in STRATEGIES.names():
        assert isinstance(STRATEGIES.build(name, {}).lightning(), LightningStrategy)
    assert load(STRATEGIES.base) is Strategy
    assert not issubclass(SingleDevice, tuple(map(STRATEGIES.get, STRATEGIES.names())))


def test_a_training_leaves_the_weights_to_its_strategy(
    make_request: MakeRequest, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that says what it is asked for, and what it answers changes nothing: the result is that of any training."""
    from sumi_core.trainer.request import Request
    from sumi_core.trainer.run import train
    from sumi_core.training import session

    said: list[str] = []

    class Watched(SingleDevice):
        def lightning(self) -> str:
            said.append("lightning")
            return super().lightning()

        def wrap(self, *parts: Any, **options: Any) -> Any:
            said.append("wrap")
            return super().wrap(*parts, **options)

        def checkpoint_io(self) -> Any:
            said.append("checkpoint_io")
            return super().checkpoint_io()

        def full_state(self, checkpoint: Path) -> dict[str, Any]:
            said.append(f"full_state of {checkpoint.name.rpartition('-')[0]}")
            return super().full_state(checkpoint)

        def clip_gradient(self, parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
            said.append(f"clip to {limit:g}")
            return super().clip_gradient(parameters, limit)

    monkeypatch.setattr(session, "SingleDevice", Watched)
    request = make_request("watched")
    train(Request.read(request))
    assert said[:3] == ["wrap", "lightning", "checkpoint_io"]
    assert said[3:-2] == ["clip to 1"] * 60
    assert said[-2:] == ["full_state of step-00000060", "checkpoint_io"]
    assert outcome(request.parent) == outcome(undisturbed())


def test_the_gathered_state_is_what_becomes_the_weights(
    make_request: MakeRequest, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    from sumi_core.trainer.request import Request
    from sumi_core.trainer.run import train
    from sumi_core.training import session

    class Doubled(SingleDevice):
        def full_state(self, checkpoint: Path) -> dict[str, Any]:
            state = super().full_state(checkpoint)
            return {**state, "state_dict": {name: 2 * tensor for name, tensor in state["state_dict"].items()}}

    monkeypatch.setattr(session, "SingleDevice", Doubled)
    request = make_request("doubled")
    train(Request.read(request))
    plain, doubled = (load_file(folder / "weights.safetensors") for folder in (undisturbed(), request.parent))
    assert plain.keys() == doubled.keys()
    for name, tensor in plain.items():
        assert doubled[name].equal(2 * tensor), name
