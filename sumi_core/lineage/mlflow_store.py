"""A connection to an MLflow store: made once, read without writing, its experiments by the names of sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

from sumi_core.base.locks import locked
from sumi_core.base.paths import sqlite_path, sqlite_uri
from sumi_core.lineage.links import mlflow_page, mlflow_ui
from sumi_core.lineage.mlflow_addresses import follow_move
from sumi_core.lineage.mlflow_file import MlflowFile
from sumi_core.training.quiet import quiet_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

NOTE = "mlflow.note.content"  # the tag that MLflow shows as a description
_PAGE = 5000  # MLflow's own limit for one request
_initialised: set[str] = set()  # stores that this process has seen whole


@dataclass(frozen=True)
class MlflowStore:
    """A connection to an MLflow store. ``locks`` is a local folder that keeps concurrent processes apart."""

    uri: str
    artifacts: Path | None  # where a local store puts artifacts; None: the server decides
    locks: Path

    @property
    def client(self) -> MlflowClient:
        """A client of this store, quiet and without telemetry."""
        quiet_mlflow()
        from mlflow import MlflowClient

        self.initialise()
        return MlflowClient(tracking_uri=self.uri)

    @property
    def reader(self) -> MlflowClient:
        """What reads and cannot write: an embedded database is read without importing MLflow, where it can be. Call it
        where there is a store."""
        path = sqlite_path(self.uri)
        if path is not None and (file := MlflowFile(path)).is_readable():
            return cast("MlflowClient", file)
        quiet_mlflow()
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self._read_only_uri)

    @property
    def _read_only_uri(self) -> str:
        path = sqlite_path(self.uri)
        return self.uri if path is None else f"sqlite:///file:{quote(str(path))}?mode=ro&uri=true"

    @property
    def ui(self) -> str:
        """Where the web interface answers, for links."""
        return mlflow_ui(self.uri)

    def run_url(self, run_id: str, artifact: str | None = None) -> str:
        """A run's page in the web interface, or that of one of its artifacts, by its path in the run."""
        experiment = self.reader.get_run(run_id).info.experiment_id
        shown = "" if artifact is None else f"/artifacts/{quote(artifact)}"
        return mlflow_page(self.ui, f"experiments/{experiment}/runs/{run_id}{shown}")

    def initialise(self) -> str | None:
        """Create the database once, and let one that was moved find its artifacts; returns what that changed, in words.
        Several processes doing this at once would corrupt it for good, hence the lock; each process takes it once,
        before its first client. So would Ctrl-C: it is created beside its place."""
        if self.uri in _initialised:
            return None
        quiet_mlflow()
        from mlflow import MlflowClient

        with locked(self.locks / "mlflow.lock"):
            database = sqlite_path(self.uri)
            if self.artifacts is not None and database is not None and not database.is_file():
                _create(database, self.artifacts)
            client = MlflowClient(tracking_uri=self.uri)
            client.search_experiments(max_results=1)
            moved = follow_move(database, self.artifacts) if self.artifacts is not None and database else None
            if self.artifacts is not None:
                _remove_default(client)
        _initialised.add(self.uri)
        return moved

    def experiment_id(self, sweep: str, description: str = "") -> str:
        """The MLflow experiment of a sweep, created if missing; a description replaces an earlier one."""
        client = self.client
        with locked(self.locks / "mlflow.lock"):
            existing = client.get_experiment_by_name(sweep)
            if existing is None:
                location = (self.artifacts / sweep).as_uri() if self.artifacts else None
                made = str(client.create_experiment(sweep, artifact_location=location))
            else:
                made = str(existing.experiment_id)
                if existing.lifecycle_stage == "deleted":
                    client.restore_experiment(made)
            if description and (existing is None or existing.tags.get(NOTE) != description):
                client.set_experiment_tag(made, NOTE, description)
            return made

    def known_experiment(self, sweep: str) -> str | None:
        """The MLflow experiment of a sweep, or None; creates and restores nothing."""
        existing = self.reader.get_experiment_by_name(sweep)
        return None if existing is None or existing.lifecycle_stage == "deleted" else str(existing.experiment_id)


def search_runs(client: MlflowClient, experiments: Sequence[str], condition: str) -> list[Run]:
    """Every run of some experiments that meets a condition, newest first."""
    found: list[Run] = []
    token: str | None = None
    while experiments:
        page = client.search_runs(
            list(experiments), condition, order_by=["attributes.start_time DESC"], max_results=_PAGE, page_token=token
        )
        found += page
        token = page.token
        if not token:
            break
    return found


def _create(database: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    unfinished = database.with_name(f"{database.name}.new")
    unfinished.unlink(missing_ok=True)
    # Without an address MLflow writes the working directory into SQL as it stands, quotes included.
    SqlAlchemyStore(sqlite_uri(unfinished), artifacts.as_uri())
    unfinished.replace(database)


def _remove_default(client: MlflowClient) -> None:
    """Delete MLflow's experiment "Default" while it is empty: nothing of a project goes there."""
    default = client.get_experiment_by_name("Default")
    if default is None or default.lifecycle_stage == "deleted":
        return
    if not client.search_runs([default.experiment_id], max_results=1):
        client.delete_experiment(default.experiment_id)
