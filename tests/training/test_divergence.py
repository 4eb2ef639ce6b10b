"""Stopping a training that has gone wrong: when, and with what sentence."""

from __future__ import annotations

import math

import pytest

from sumi_core.training.divergence import DivergenceGuard
from sumi_core.training.errors import TrainingDiverged


def guard(warmup: int = 0) -> DivergenceGuard:
    return DivergenceGuard(warmup, lambda step: [8 * step, 8 * step + 1, 8 * step + 2, 99], lambda: "no checkpoint yet")


@pytest.mark.parametrize(
    ("loss", "norm", "what"),
    [
        (math.nan, 1.0, "the loss is nan"),
        (math.inf, 1.0, "the loss is inf"),
        (2.0, math.nan, "the gradient norm is nan"),
    ],
)
def test_first_number_that_is_none_stops_with_step_batch_and_checkpoint(loss: float, norm: float, what: str) -> None:
    watching = guard()
    watching.check(6, 2.0, 1.0)
    with pytest.raises(TrainingDiverged) as stopped:
        watching.check(7, loss, norm)
    for part in ("step 7", what, "examples 56–58, 99", "no checkpoint yet", "learning_rate"):
        assert part in str(stopped.value)


def test_loss_that_stays_far_above_its_lowest_stops() -> None:
    watching = guard()
    for step in range(1, 301):
        watching.check(step, 2.0, 1.0)

    def rise() -> None:
        for step in range(301, 1000):
            watching.check(step, 6.0, 1.0)

    with pytest.raises(TrainingDiverged, match="2 times its lowest value for 100 steps"):
        rise()


def test_single_outliers_and_a_rise_below_the_multiple_do_not_stop() -> None:
    watching = guard()
    for step in range(1, 2000):
        watching.check(step, 50.0 if step % 97 == 0 else 3.0, 1.0)
    for step in range(2000, 4000):
        watching.check(step, 5.0, 1.0)


def test_scatter_around_a_loss_near_zero_does_not_stop() -> None:
    watching = guard()
    for step in range(1, 2000):
        watching.check(step, 5.0 if step < 100 else 0.01 + 0.04 * (step // 300 % 2), 1.0)


def test_rise_during_warmup_is_not_counted() -> None:
    watching = guard(warmup=1000)
    for step in range(1, 1000):
        watching.check(step, 1.0 if step < 100 else 9.0, 1.0)


def test_a_resumed_guard_stops_at_the_same_step() -> None:
    def stops_at(resume_at: int | None) -> int:
        watching = guard()
        for step in range(1, 1000):
            if step == resume_at:
                state, watching = watching.state_dict(), guard()
                watching.load_state_dict(state)
            try:
                watching.check(step, 1.0 if step < 100 else 9.0, 1.0)
            except TrainingDiverged:
                return step
        raise AssertionError("never stopped")

    assert stops_at(None) == stops_at(150) == stops_at(90)
