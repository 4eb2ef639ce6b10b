"""The metrics of a training: an append-only local file is the truth, ``sumi_core.training.publishing`` copies it.

A point is a value at a number of steps (``step``) and of tokens seen. While training runs, points are lines of
``history.jsonl``; a resumed run first drops what lies beyond its checkpoint, so the file never tells a step twice. At
the end it becomes ``history.parquet``, a long table ``step, tokens, name, value``.

Names: ``train/*`` (means over the steps since the last point), ``validation/*``, ``system/*`` (throughput and memory:
the only ones that differ between two runs of the same experiment).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sumi_core.base.files import replacing, sync, write_atomically
from sumi_core.training.errors import TrainingError


@dataclass(frozen=True)
class Point:
    """One value. ``time`` is when it was measured (milliseconds since 1970); it is not part of the result."""

    step: int
    tokens: int
    name: str
    value: float
    time: int = field(default_factory=lambda: int(time.time() * 1000), compare=False)


class HistoryFile:
    """``history.jsonl``: one point a line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Point]:
        """Every point. A torn last line (a write that was killed) is dropped; a damaged one before it is an error."""
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().split(b"\n")
        points = []
        for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is torn, or nothing
            try:
                row = json.loads(line)
                points.append(Point(**{**row, "value": float(row["value"])}))
            except (ValueError, TypeError, KeyError):
                raise TrainingError(
                    f"{self.path} line {number} is damaged; delete its folder and train again"
                ) from None
        return points

    def truncate(self, step: int) -> list[Point]:
        """Drop every point after ``step``, atomically, and return what is left."""
        kept = [point for point in self.read() if point.step <= step]
        write_atomically(self.path, _lines(kept))
        return kept

    def append(self, points: Iterable[Point]) -> None:
        """Add points. They survive the death of this process; ``sync`` makes them survive that of the machine."""
        with self.path.open("ab") as file:
            file.write(_lines(points))

    def sync(self) -> None:
        """Flush to disk, before a checkpoint says that these points are made."""
        if self.path.exists():
            sync(self.path)


def _lines(points: Iterable[Point]) -> bytes:
    return b"".join(json.dumps(_plain(point), allow_nan=False).encode() + b"\n" for point in points)


def _plain(point: Point) -> dict[str, Any]:
    """A point for JSON, which has no NaN and no infinity: such a value is written as text, and read back as it was."""
    value = point.value if math.isfinite(point.value) else str(point.value)
    return {**vars(point), "value": value}


def write_history(points: list[Point], path: Path) -> None:
    """Write ``history.parquet``, atomically."""
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, pyarrow.Array] = {
        "step": pyarrow.array([p.step for p in points], pyarrow.int64()),
        "tokens": pyarrow.array([p.tokens for p in points], pyarrow.int64()),
        "name": pyarrow.array([p.name for p in points], pyarrow.string()),
        "value": pyarrow.array([p.value for p in points], pyarrow.float64()),
    }
    with replacing(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table(columns), temporary)


def read_history(path: Path) -> list[Point]:
    """The points of a ``history.parquet``; their time is the file's."""
    import pyarrow.parquet

    written = int(path.stat().st_mtime * 1000)
    return [Point(**row, time=written) for row in pyarrow.parquet.read_table(path).to_pylist()]


def series(points: Iterable[Point], name: str) -> list[Point]:
    """The points of one name, in order."""
    return [point for point in points if point.name == name]


def last_value(points: Iterable[Point], name: str) -> float | None:
    """The last value of a name, or None."""
    found = series(points, name)
    return found[-1].value if found else None


def mean_value(points: Iterable[Point], name: str) -> float | None:
    """The mean over all steps of a name whose points are means over the steps since the last one; None without any."""
    found = series(points, name)
    starts = [0, *(point.step for point in found)]
    steps = [point.step - start for point, start in zip(found, starts, strict=False)]
    return sum(point.value * n for point, n in zip(found, steps, strict=True)) / sum(steps) if found else None
