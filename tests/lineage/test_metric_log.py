"""MLflow as a copy of the history: nothing twice, nothing lost, no outage fatal."""

from __future__ import annotations

from pathlib import Path

import pytest

from sumi_core.lineage.tracking import Tracking
from sumi_core.training.history import Point, write_history
from sumi_core.training.publishing import MlflowSink, Publisher, SinkUnavailable, sync_history


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("mlflow")
    tracking = Tracking(f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts", folder / "locks")
    tracking.initialise()
    return tracking.uri


def points(steps: range, name: str = "train/loss") -> list[Point]:
    return [Point(step, step * 64, name, 1 / step) for step in steps]


# --- MLflow -----------------------------------------------------------------------------------------------------------


def new_run(uri: str) -> tuple[str, object]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("history")
    number = experiment.experiment_id if experiment else client.create_experiment("history")
    return client.create_run(number).info.run_id, client


def logged(client: object, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client.get_metric_history(run_id, key)]  # type: ignore[attr-defined]


def test_resumed_training_logs_no_step_twice(mlflow_uri: str) -> None:
    run_id, client = new_run(mlflow_uri)
    MlflowSink(mlflow_uri, run_id).log(points(range(1, 8)))
    resumed = MlflowSink(mlflow_uri, run_id)  # resumes from a checkpoint at step 4, with what the history still holds
    resumed.log(points(range(1, 5)))
    resumed.log(points(range(5, 11)))
    assert logged(client, run_id, "train/loss") == [(step, 1 / step) for step in range(1, 11)]
    assert logged(client, run_id, "tokens_seen") == [(step, step * 64.0) for step in range(1, 11)]
    assert logged(client, run_id, "by_tokens/train_loss") == [(step * 64, 1 / step) for step in range(1, 11)]


def test_a_name_that_comes_later_is_not_taken_for_logged(mlflow_uri: str) -> None:
    run_id, client = new_run(mlflow_uri)
    sink = MlflowSink(mlflow_uri, run_id)
    sink.log(points(range(1, 6)))
    sink.log(points(range(5, 6), "validation/nats_per_token"))
    assert logged(client, run_id, "validation/nats_per_token") == [(5, 0.2)]
    assert logged(client, run_id, "by_tokens/nats_per_token") == [(320, 0.2)]


def test_finished_history_fills_an_empty_run_and_changes_nothing_the_second_time(
    mlflow_uri: str, tmp_path: Path
) -> None:
    run_id, client = new_run(mlflow_uri)
    write_history(points(range(1, 1501)), tmp_path / "history.parquet")
    for _ in range(2):
        sync_history(tmp_path / "history.parquet", mlflow_uri, run_id)
    assert [step for step, _ in logged(client, run_id, "train/loss")] == list(range(1, 1501))


def test_missing_run_is_an_outage_and_no_crash(mlflow_uri: str) -> None:
    with pytest.raises(SinkUnavailable, match="MLflow at sqlite"):
        MlflowSink(mlflow_uri, "0" * 32).log(points(range(1, 3)))


# --- outages ----------------------------------------------------------------------------------------------------------


class Flaky:
    """A sink that answers only when ``up``."""

    def __init__(self) -> None:
        self.up = True
        self.calls = 0
        self.got: list[Point] = []

    def log(self, points: list[Point]) -> None:
        self.calls += 1
        if not self.up:
            raise SinkUnavailable("no answer")
        self.got += points


def test_outage_is_said_once_and_made_up_for_at_the_end() -> None:
    sink, said = Flaky(), list[str]()
    publisher = Publisher(sink, said.append, every_seconds=0, retry_seconds=0, sleep=lambda seconds: None)
    publisher.add(points(range(1, 3)))
    sink.up = False
    for step in range(3, 8):
        publisher.add(points(range(step, step + 1)))
    assert publisher.flush(insist=True) is False
    assert len(said) == 1
    assert "no answer" in said[0]
    sink.up = True
    assert publisher.flush() is True
    assert sink.got == points(range(1, 8))


def test_points_gather_between_sends() -> None:
    sink = Flaky()
    publisher = Publisher(sink, print, every_seconds=3600)
    for step in range(1, 6):
        publisher.add(points(range(step, step + 1)))
    assert sink.calls == 1  # the first at once: it brings a resumed run's history over
    publisher.flush()
    assert (sink.calls, sink.got) == (2, points(range(1, 6)))


def test_a_validation_is_sent_first_which_a_comparison_of_runs_opens_on(mlflow_uri: str) -> None:
    run_id, client = new_run(mlflow_uri)
    mixed = [*points(range(1, 3)), *points(range(2, 3), "validation/bits_per_byte"), *points(range(3, 4))]
    MlflowSink(mlflow_uri, run_id).log(mixed)
    assert next(iter(client.get_run(run_id).data.metrics)) == "validation/bits_per_byte"  # type: ignore[attr-defined]
    assert [step for step, _ in logged(client, run_id, "tokens_seen")] == [1, 2, 3]


def test_the_first_points_wait_for_a_validation_and_no_longer_than_they_may() -> None:
    sink = Flaky()
    publisher = Publisher(sink, print, every_seconds=0, first_seconds=3600)
    publisher.add(points(range(1, 3)))
    assert sink.calls == 0
    publisher.add(points(range(2, 3), "validation/bits_per_byte"))
    assert sink.calls == 1
    publisher.add(points(range(3, 4)))
    assert sink.calls == 2, "from then on at once"
    unvalidated = Publisher(Flaky(), print, first_seconds=3600)
    unvalidated.add(points(range(1, 3)))
    assert unvalidated.flush(insist=True), "a training that ends, or is cut off, loses nothing"


def test_without_mlflow_nothing_is_kept() -> None:
    publisher = Publisher(None, print)
    publisher.add(points(range(1, 6)))
    assert publisher.flush() is True
