"""Accuracy under parallelism: against integrals, and what it leaves out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from sumi_core.evaluation.parallelism import accuracy_under_parallelism, on_front


def test_at_one_accuracy_it_is_the_plain_area() -> None:
    assert accuracy_under_parallelism([(1.0, 0.8)], best=0.8) == pytest.approx(80)
    assert accuracy_under_parallelism([(1.0, 0.8), (2.0, 0.8), (5.0, 0.8)], best=0.8) == pytest.approx(100 * 0.8 * 5)


def test_below_the_best_it_is_the_integral_of_the_interpolated_weighted_accuracy() -> None:
    points, best = [(0.5, 0.70), (1.0, 0.72), (2.0, 0.69), (4.0, 0.66)], 0.9
    rho, y = map(np.array, zip(*points, strict=True))
    grid = np.linspace(rho[0], rho[-1], 400_001)
    height = np.interp(grid, rho, y * np.exp(-3 * (1 - y / best)))
    integral = float(((height[1:] + height[:-1]) / 2 * np.diff(grid)).sum())
    expected = 100 * (rho[0] * y[0] + integral)  # left of the first point accuracy is not weighted
    for order in itertools.permutations(points):
        assert accuracy_under_parallelism(list(order), best) == pytest.approx(expected, rel=1e-9)


def test_points_far_below_the_most_sequential_one_count_for_nothing() -> None:
    kept = [(1.0, 0.8), (2.0, 0.75)]  # five points below: still in
    area = accuracy_under_parallelism(kept, 0.8)
    assert area == pytest.approx(80 + 100 * (0.8 + 0.75 * math.exp(-3 * (1 - 0.75 / 0.8))) / 2)
    assert accuracy_under_parallelism([*kept, (8.0, 0.749)], 0.8) == area
    assert accuracy_under_parallelism([*kept, (2.0, 0.1)], 0.8) == area, "the most accurate at one parallelism"


def test_a_model_that_solves_nothing_has_none() -> None:
    assert accuracy_under_parallelism([(1.0, 0.0), (4.0, 0.0)], 0.0) == 0


@pytest.mark.parametrize("points", [[], [(1.0, 1.01)], [(1.0, float("nan"))], [(0.0, 0.5)]])
def test_what_is_no_accuracy_is_refused(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match=r"an area needs points of more than 0 tokens per call"):
        accuracy_under_parallelism(points, 1.0)


def test_the_front_is_what_sorting_by_speed_and_running_best_leaves() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        points = [(float(x), float(y)) for x, y in generator.integers(0, 4, (6, 2))]
        ordered = sorted(set(points), reverse=True)
        front = {p for n, p in enumerate(ordered) if all(p[1] > q[1] for q in ordered[:n])}
        assert on_front(points) == [point in front for point in points]
