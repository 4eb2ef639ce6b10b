"""MLflow's database as it is read here, against what MLflow reads of it."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sumi_core.lineage.mlflow_file import MlflowFile, RunAbsent
from sumi_core.lineage.tracking import Tracking
from tests.pipelines.homes import furnish

CONDITION = "tags.`sumi.kind` = 'cell' and tags.`sumi.cell` = 'demo.s0'"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[MlflowFile, MlflowClient]:
    """Two experiments, one of them deleted; runs of several kinds, one of them deleted."""
    tracking = furnish(tmp_path_factory.mktemp("with a space") / "project", tmp_path_factory).tracking
    client = tracking.client
    kept, deleted = tracking.experiment_id("kept"), tracking.experiment_id("deleted")
    client.delete_experiment(deleted)
    for number, cell in enumerate(("demo.s0", "demo.s0", "demo.s1")):
        tags = {"sumi.kind": "cell", "sumi.cell": cell}
        run = client.create_run(kept, start_time=1000 + number, run_name=f"r{number}", tags=tags)
        for step, value in enumerate((4.0, math.nan if number == 1 else 2.0 + number)):
            client.log_metric(run.info.run_id, "bits_per_byte", value, step=step)
        client.log_metric(run.info.run_id, "worst", math.inf)
        client.log_param(run.info.run_id, "seed", number)
        client.set_terminated(run.info.run_id, "FAILED" if number else "FINISHED", end_time=2000)
    client.create_run(kept, tags={"sumi.kind": "sweep"})
    client.delete_run(client.create_run(kept, tags={"sumi.kind": "cell", "sumi.cell": "demo.s0"}).info.run_id)
    return MlflowFile(Path(tracking.uri.removeprefix("sqlite:///"))), client


def seen(run: object) -> tuple[object, ...]:
    info, data = run.info, run.data  # type: ignore[attr-defined]
    fields = ("run_id", "experiment_id", "run_name", "status", "start_time", "end_time", "lifecycle_stage")
    metrics = {name: str(value) for name, value in data.metrics.items()}  # nan equals nan
    return (*(getattr(info, field) for field in fields), metrics, dict(data.params), dict(data.tags))


def test_it_reads_what_mlflow_reads(filled: tuple[MlflowFile, MlflowClient]) -> None:
    file, client = filled
    assert file.is_readable()
    experiments = {(e.experiment_id, e.name, e.lifecycle_stage) for e in client.search_experiments()}
    assert {(e.experiment_id, e.name, e.lifecycle_stage) for e in file.search_experiments()} == experiments
    for name in ("kept", "deleted"):
        expected, found = client.get_experiment_by_name(name), file.get_experiment_by_name(name)
        assert (found.experiment_id, found.lifecycle_stage) == (expected.experiment_id, expected.lifecycle_stage)
    assert file.get_experiment_by_name("none") is None
    ids = [file.get_experiment_by_name("kept").experiment_id]
    for condition in (CONDITION, "tags.`sumi.kind` = 'cell'", ""):
        expected = client.search_runs(ids, condition, order_by=["attributes.start_time DESC"])
        assert list(map(seen, file.search_runs(ids, condition))) == list(map(seen, expected))
        assert expected
    for run in expected:
        assert seen(file.get_run(run.info.run_id)) == seen(client.get_run(run.info.run_id))
    with pytest.raises(RunAbsent):
        file.get_run("0" * 32)


def test_nothing_is_read_by_halves(filled: tuple[MlflowFile, MlflowClient]) -> None:
    with pytest.raises(ValueError, match="expected tags"):
        filled[0].search_runs(["1"], "metrics.bits_per_byte < 2")


def test_a_database_of_another_kind_is_left_to_mlflow(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    assert not MlflowFile(path).is_readable()
    assert not path.exists()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE runs (run_uuid TEXT)")
    assert not MlflowFile(path).is_readable()
    path.write_bytes(b"no database at all" * 100)
    assert not MlflowFile(path).is_readable()


def test_a_reader_of_a_server_is_mlflow(tmp_path: Path) -> None:
    served = Tracking("http://127.0.0.1:1", None, tmp_path)
    assert isinstance(served.reader, MlflowClient)
    assert served.reader.tracking_uri == "http://127.0.0.1:1"


def test_a_database_whose_creation_was_interrupted_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mlflow.db"
    tracking = Tracking(f"sqlite:///{path}", tmp_path / "artifacts", tmp_path / "locks")

    class Interrupted:
        def __init__(self, uri: str, artifacts: str) -> None:
            with sqlite3.connect(uri.removeprefix("sqlite:///")) as database:
                database.execute("CREATE TABLE experiments (experiment_id INTEGER)")  # the first of many
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            tracking.initialise()
    assert not path.exists()
    assert tracking.client.search_experiments() == [], "no empty experiment 'Default' either"
    assert tracking.reader.search_experiments() == []
    assert sorted(file.name for file in tmp_path.iterdir()) == ["locks", "mlflow.db"]
