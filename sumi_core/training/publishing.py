"""A training's metrics in MLflow: copies of its history, sent in batches, nothing twice, no outage fatal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sumi_core.base.text import reason_of
from sumi_core.training.history import Point, read_history
from sumi_core.training.quiet import quiet_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BATCH = 1000  # MLflow's own limit for one request
# MLflow's comparison of runs shows sections in the order of their names, plain names after all of them, and in each
# first what was sent first. No two objectives share their training loss.
_TOKENS = "by_tokens/"
_FIRST = ("validation/bits_per_byte", f"{_TOKENS}bits_per_byte")
_KEYS = ("train/", "validation/", "system/", _TOKENS, "tokens_seen")


class MetricSink(Protocol):
    """Somewhere to copy points to."""

    def log(self, points: list[Point]) -> None:
        """Store the points that are not there yet. Raises SinkUnavailable when that cannot be done now."""
        ...


class SinkUnavailable(RuntimeError):
    """A sink does not answer. The points stay in the history and can be sent later."""


class MlflowSink:
    """An MLflow run. Points go there in batches, each at its step; ``validation/*`` and ``train/loss`` also as
    ``by_tokens/*`` and ``by_tokens/train_loss`` with the number of tokens as MLflow's step, so that runs of
    different batch size can be laid over each other, and ``tokens_seen`` gives the tokens of each step (an x-axis to
    choose in MLflow's charts).

    A key's points at or below its last step in the run are there already: a resumed training computes the same values
    again, so they are left out.
    """

    def __init__(self, uri: str, run_id: str) -> None:
        self.uri, self.run_id = uri, run_id
        self._client: MlflowClient | None = None
        self._last: dict[str, int] = {}

    def log(self, points: list[Point]) -> None:
        """Send what the run does not have yet, oldest first."""
        if not points:
            return
        quiet_mlflow()
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            self._send(points)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            self._client = None  # ask the run again what it has, once it answers
            raise SinkUnavailable(f"MLflow at {self.uri}: {reason_of(error)}") from error

    def _send(self, points: list[Point]) -> None:
        from mlflow.entities import Metric

        if self._client is None:
            self._client = self._connect()
        fresh = []
        for key, value, stamp, step in (metric for point in points for metric in _metrics(point)):
            if step > self._last.get(key, -1):
                fresh.append(Metric(key, value, stamp, step))
                self._last[key] = step
        fresh.sort(key=lambda metric: metric.key not in _FIRST)  # the others in their order
        for start in range(0, len(fresh), _BATCH):
            self._client.log_batch(self.run_id, metrics=fresh[start : start + _BATCH])

    def _connect(self) -> MlflowClient:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self.uri)
        keys = client.get_run(self.run_id).data.metrics
        own = [key for key in keys if key.startswith(_KEYS)]
        self._last = {key: max(m.step for m in client.get_metric_history(self.run_id, key)) for key in own}
        return client


def _metrics(point: Point) -> Iterable[tuple[str, float, int, int]]:
    """A point as MLflow metrics: key, value, timestamp, step."""
    yield point.name, point.value, point.time, point.step
    yield "tokens_seen", float(point.tokens), point.time, point.step
    if point.name == "train/loss" or point.name.startswith("validation/"):
        name = point.name.removeprefix("validation/").replace("/", "_")
        yield _TOKENS + name, point.value, point.time, point.tokens


class Publisher:
    """Copies points to a sink now and then, and lets no outage of the sink end a training.

    When the sink fails three times in a row this is said once; it is tried again every minute and at the end.
    first_seconds: how long the first points wait for a validation, which is to be sent before them.
    """

    def __init__(
        self,
        sink: MetricSink | None,
        log: Callable[[str], None],
        *,
        every_seconds: float = 10.0,
        first_seconds: float = 0.0,
        retry_seconds: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sink, self._log, self._sleep = sink, log, sleep
        self._every, self._retry = every_seconds, retry_seconds
        self._unsent: list[Point] = []
        self._next = time.monotonic()
        self._waits_until = self._next + first_seconds
        self._warned = False

    def add(self, points: Iterable[Point]) -> None:
        """Take points over, and send what has gathered if the last time is long enough ago."""
        if self._sink is None:
            return
        self._unsent += points
        if time.monotonic() >= self._next and not self._waits():
            self.flush()

    def _waits(self) -> bool:
        """Whether nothing was sent yet, and a validation may still come first."""
        validated = any(point.name == _FIRST[0] for point in self._unsent)
        return not validated and time.monotonic() < self._waits_until

    def flush(self, *, insist: bool = False) -> bool:
        """Send everything now. Returns whether the sink has it. A sink known not to answer is left alone until its
        time has come, unless one ``insist``s."""
        if self._sink is None or not self._unsent:
            return True
        if self._warned and not insist and time.monotonic() < self._next:
            return False
        attempts = 1 if self._warned and not insist else 3
        for attempt in range(attempts):
            try:
                self._sink.log(self._unsent)
            except SinkUnavailable as error:
                problem = error
                if attempt + 1 < attempts:
                    self._sleep(0.5 * 2**attempt)
                continue
            self._unsent = []
            self._waits_until = 0.0
            self._next = time.monotonic() + self._every
            self._warned = False
            return True
        if not self._warned:
            self._log(f"metrics are kept in the history but not in MLflow for now ({problem}); training goes on")
        self._warned = True
        self._next = time.monotonic() + self._retry
        return False


def sync_history(path: Path, uri: str, run_id: str) -> None:
    """Copy a finished training's ``history.parquet`` into an MLflow run; adds only what the run does not have."""
    MlflowSink(uri, run_id).log(read_history(path))
