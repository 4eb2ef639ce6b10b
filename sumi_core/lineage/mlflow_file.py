"""What MLflow's embedded database says, read without MLflow, whose import takes seconds.

``MlflowFile`` answers some of what an ``MlflowClient`` does, with runs and experiments that have the same fields. It
opens the database for reading only. A database that does not have these tables, of another version of MLflow, is left
to MLflow.
"""

from __future__ import annotations

import contextlib
import math
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

_RUN = "run_uuid, experiment_id, name, status, start_time, end_time, lifecycle_stage"
_TABLES = (
    f"SELECT {_RUN} FROM runs LIMIT 0",
    "SELECT experiment_id, name, lifecycle_stage FROM experiments LIMIT 0",
    "SELECT run_uuid, key, value, is_nan FROM latest_metrics LIMIT 0",
    "SELECT run_uuid, key, value FROM params LIMIT 0",
    "SELECT run_uuid, key, value FROM tags LIMIT 0",
)
_CONDITION = re.compile(r"tags\.`([^`]+)` = '([^']*)'")
_AT_ONCE = 500  # values in one query: SQLite takes at least 999


class RunAbsent(LookupError):
    """A run that the database does not have."""

    error_code = "RESOURCE_DOES_NOT_EXIST"  # as MLflow's own exception says it


@dataclass(frozen=True)
class Experiment:
    """An experiment of MLflow."""

    experiment_id: str
    name: str
    lifecycle_stage: str


@dataclass(frozen=True)
class RunInfo:
    """What MLflow knows of a run by itself. Times are in milliseconds since 1970."""

    run_id: str
    experiment_id: str
    run_name: str
    status: str
    start_time: int | None
    end_time: int | None
    lifecycle_stage: str


@dataclass(frozen=True)
class RunData:
    """What was logged to a run: the latest value of each metric, params, tags."""

    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A run of MLflow."""

    info: RunInfo
    data: RunData


class Page(list[Run]):
    """All runs that were asked for. ``token`` names the next page, of which there is none."""

    token = None


class MlflowFile:
    """An SQLite database of MLflow."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def is_readable(self) -> bool:
        """Whether the database is there and has the tables that are read here."""
        try:
            with self._open() as database:
                for query in _TABLES:
                    database.execute(query)
        except sqlite3.Error:
            return False
        return True

    def get_run(self, run_id: str) -> Run:
        """One run, deleted or not. Raises RunAbsent."""
        with self._open() as database:
            found = _runs(database, "run_uuid = ?", [run_id])
        if not found:
            raise RunAbsent(f"run {run_id} does not exist")
        return found[0]

    def search_experiments(self) -> list[Experiment]:
        """The experiments that are not deleted."""
        with self._open() as database:
            rows = database.execute("SELECT experiment_id, name, lifecycle_stage FROM experiments").fetchall()
        found = [Experiment(str(own), name, stage) for own, name, stage in rows]
        return [experiment for experiment in found if experiment.lifecycle_stage == "active"]

    def get_experiment_by_name(self, name: str) -> Experiment | None:
        """The experiment with this name, deleted or not."""
        query = "SELECT experiment_id, name, lifecycle_stage FROM experiments WHERE name = ?"
        with self._open() as database:
            row = database.execute(query, [name]).fetchone()
        return Experiment(str(row[0]), row[1], row[2]) if row else None

    def search_runs(self, experiment_ids: Sequence[str], filter_string: str = "", **_: object) -> Page:
        """The runs of some experiments that are not deleted, newest first. filter_string: nothing but tags that have a
        value, joined by ``and``."""
        where, values = f"experiment_id IN ({_marks(experiment_ids)}) AND lifecycle_stage = 'active'", [*experiment_ids]
        conditions = re.split(r" and (?=tags\.`)", filter_string) if filter_string else []
        for condition in conditions:
            match = _CONDITION.fullmatch(condition)
            if match is None:
                raise ValueError(f"expected tags.`key` = 'value', got {condition!r}")
            where += " AND run_uuid IN (SELECT run_uuid FROM tags WHERE key = ? AND value = ?)"
            values += match.groups()
        with self._open() as database:
            return Page(_runs(database, where, values))

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(f"file:{quote(str(self.path))}?mode=ro", uri=True, timeout=30)
        try:
            yield database
        finally:
            database.close()


def _runs(database: sqlite3.Connection, where: str, values: Iterable[str]) -> list[Run]:
    """The runs that meet a condition, newest first, with what was logged to them."""
    query = f"SELECT {_RUN} FROM runs WHERE {where} ORDER BY start_time DESC, run_uuid"
    found = {
        row[0]: Run(RunInfo(row[0], str(row[1]), *row[2:]), RunData()) for row in database.execute(query, [*values])
    }
    ids = list(found)
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        wanted = f"WHERE run_uuid IN ({_marks(some)})"
        for run_id, key, value, is_nan in database.execute(
            f"SELECT run_uuid, key, value, is_nan FROM latest_metrics {wanted}", some
        ):
            found[run_id].data.metrics[key] = math.nan if is_nan else value
        for run_id, key, value in database.execute(f"SELECT run_uuid, key, value FROM params {wanted}", some):
            found[run_id].data.params[key] = value
        for run_id, key, value in database.execute(f"SELECT run_uuid, key, value FROM tags {wanted}", some):
            found[run_id].data.tags[key] = value
    return list(found.values())


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))
