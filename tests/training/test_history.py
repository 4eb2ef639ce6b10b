"""The history file under kills: nothing lost, nothing told twice."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from sumi_core.training.errors import TrainingError
from sumi_core.training.history import HistoryFile, Point, mean_value, read_history, write_history


def points(steps: range, name: str = "train/loss") -> list[Point]:
    return [Point(step, step * 64, name, 1 / step) for step in steps]


def test_values_that_json_has_not_come_back_as_they_were(tmp_path: Path) -> None:
    history = HistoryFile(tmp_path / "history.jsonl")
    history.append([Point(1, 10, "a", value) for value in (math.nan, math.inf, -math.inf, 0.1)])
    for line in history.path.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    first, *others = (point.value for point in history.read())
    assert math.isnan(first)
    assert others == [math.inf, -math.inf, 0.1]


def test_values_survive_the_file_bit_by_bit(tmp_path: Path) -> None:
    history = HistoryFile(tmp_path / "history.jsonl")
    written = points(range(1, 50))
    history.append(written)
    assert history.read() == written
    write_history(written, tmp_path / "history.parquet")
    assert read_history(tmp_path / "history.parquet") == written


def test_truncation_drops_what_a_resumed_run_will_tell_again(tmp_path: Path) -> None:
    history = HistoryFile(tmp_path / "history.jsonl")
    history.append(points(range(1, 10)))
    assert history.truncate(6) == points(range(1, 7))
    history.append(points(range(7, 9)))
    assert [p.step for p in history.read()] == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("cut", [1, 7, 30])
def test_torn_last_line_is_no_point(tmp_path: Path, cut: int) -> None:
    history = HistoryFile(tmp_path / "history.jsonl")
    history.append(points(range(1, 6)))
    history.path.write_bytes(history.path.read_bytes()[:-cut])
    assert [p.step for p in history.read()] == [1, 2, 3, 4]
    assert [p.step for p in history.truncate(3)] == [1, 2, 3]


def test_damage_before_the_last_line_names_the_line(tmp_path: Path) -> None:
    history = HistoryFile(tmp_path / "history.jsonl")
    history.append(points(range(1, 4)))
    lines = history.path.read_bytes().split(b"\n")
    lines[1] = lines[1][:9]
    history.path.write_bytes(b"\n".join(lines))
    with pytest.raises(TrainingError, match=r"history\.jsonl line 2 is damaged"):
        history.read()


def test_the_mean_of_a_metric_is_over_steps() -> None:
    """A point is the mean over the steps since the last one: here one over 10 steps and one over 5."""
    told = [Point(10, 100, "train/loss", 1.0), Point(15, 150, "train/loss", 4.0), Point(15, 150, "train/other", 9.0)]
    assert mean_value(told, "train/loss") == 2.0
    assert mean_value(told, "train/none") is None
