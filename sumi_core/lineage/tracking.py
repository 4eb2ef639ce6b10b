"""MLflow: one run per model of a cell, nested under one run per sweep, in an MLflow experiment named after the sweep.

A run carries what made the model as params, every stage's fingerprint and the Dagster run as tags, the corpus and
token shards as dataset inputs, the training history, each stage's figures as ``<stage>/<name>`` metrics, the exported
model as a logged model, and what people look at (plots, reports) as artifacts. Recording a stage twice changes
nothing. Another evaluation of the model, and its likelihood of other texts, go into the same run: the latest value of a
metric is that of the latest evaluation.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from sumi_core.base.hashing import flatten
from sumi_core.base.locks import locked
from sumi_core.base.references import named_references
from sumi_core.experiments.sweeps import Cell
from sumi_core.lineage.mlflow_file import MlflowFile
from sumi_core.stages import STAGES
from sumi_core.stages.identity import experiment_fingerprints
from sumi_core.stages.store import Artifact
from sumi_core.training.publishing import sync_history
from sumi_core.training.quiet import quiet_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# MLflow's own limits for one request.
_BATCH_METRICS, _BATCH_PARAMS, _PARAM_LENGTH, _TAG_LENGTH, _PAGE = 1000, 100, 6000, 8000, 5000
_initialised: set[str] = set()  # stores that this process has seen whole


@dataclass(frozen=True)
class Tracking:
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
        """What reads this store: an embedded database is read without importing MLflow, and without creating it."""
        path = self.uri.removeprefix("sqlite:///")
        file = MlflowFile(Path(path))
        return cast("MlflowClient", file) if path != self.uri and file.is_readable() else self.client

    @property
    def ui(self) -> str:
        """Where the web interface answers, for links."""
        served = self.uri.startswith("http")
        return (self.uri if served else os.environ.get("SUMI_MLFLOW_UI", "http://127.0.0.1:5000")).rstrip("/")

    def run_url(self, run_id: str) -> str:
        """A run's page in the web interface."""
        return f"{self.ui}/#/experiments/{self.reader.get_run(run_id).info.experiment_id}/runs/{run_id}"

    def initialise(self) -> None:
        """Create the database once. Several processes doing this at once would corrupt it for good, hence the lock;
        each process takes it once, before its first client. So would Ctrl-C: it is created beside its place."""
        if self.uri in _initialised:
            return
        quiet_mlflow()
        from mlflow import MlflowClient

        with locked(self.locks / "mlflow.lock"):
            path = Path(self.uri.removeprefix("sqlite:///"))
            if self.uri.startswith("sqlite:///") and not path.exists():
                unfinished = path.with_name(f"{path.name}.new")
                unfinished.unlink(missing_ok=True)
                MlflowClient(tracking_uri=f"sqlite:///{unfinished}").search_experiments(max_results=1)
                unfinished.replace(path)
            MlflowClient(tracking_uri=self.uri).search_experiments(max_results=1)
        _initialised.add(self.uri)

    def experiment_id(self, sweep: str) -> str:
        """The MLflow experiment of a sweep, created if missing."""
        client = self.client
        with locked(self.locks / "mlflow.lock"):
            existing = client.get_experiment_by_name(sweep)
            if existing is not None:
                if existing.lifecycle_stage == "deleted":
                    client.restore_experiment(existing.experiment_id)
                return str(existing.experiment_id)
            location = (self.artifacts / sweep).as_uri() if self.artifacts else None
            return str(client.create_experiment(sweep, artifact_location=location))

    def open_sweep(self, sweep: str, description: str = "") -> str:
        """The run id of a sweep's parent run, created if missing."""
        experiment = self.experiment_id(sweep)
        with locked(self.locks / f"mlflow-{sweep}.lock"):
            found = self._search(experiment, _sweep_condition(sweep))
            if found:
                return str(found[0].info.run_id)
            tags = {"sumi.kind": "sweep", "sumi.sweep": sweep, "mlflow.note.content": description}
            run = self.client.create_run(experiment, tags=tags, run_name=sweep)
            self.client.set_terminated(run.info.run_id, "FINISHED")
            return str(run.info.run_id)

    def open_cell(self, cell: Cell, description: str = "", tags: Mapping[str, str] | None = None) -> str:
        """The run id of a cell's current model: found by the model's fingerprint, else created, and set running unless
        it holds the current evaluation. The tags of a run that is found follow the cell as it is now."""
        fingerprints = experiment_fingerprints(cell.experiment)
        parent = self.open_sweep(cell.sweep, description)
        experiment, client = self.experiment_id(cell.sweep), self.client
        name, current = " ".join([cell.key, *cell.overrides]), {**_tags(cell, fingerprints), **(tags or {})}
        with locked(self.locks / f"mlflow-{cell.sweep}.lock"):
            run = self.find_cell(cell)
            if run is None:
                created = client.create_run(experiment, run_name=name, tags={"mlflow.parentRunId": parent, **current})
                self._log_params(created, named_references(cell.experiment.to_dict()))
                return str(created.info.run_id)
            self._log_params(run, named_references(cell.experiment.to_dict()))
        run_id = str(run.info.run_id)
        with self._writing(run_id):
            for key, value in {**current, "mlflow.runName": name}.items():
                if run.data.tags.get(key) != value:
                    client.set_tag(run_id, key, value)
            if not self.is_recorded(run, "evaluation", fingerprints["evaluation"]):
                client.update_run(run_id, status="RUNNING")
        return run_id

    def find_cell(self, cell: Cell) -> Run | None:
        """The run of a cell's current model, or None."""
        model = experiment_fingerprints(cell.experiment)["exported_model"]
        experiment = self.known_experiment(cell.sweep)
        return self.find_model(model, experiment, cell.key) if experiment is not None else None

    def known_experiment(self, sweep: str) -> str | None:
        """The MLflow experiment of a sweep, or None; creates and restores nothing."""
        existing = self.reader.get_experiment_by_name(sweep)
        return None if existing is None or existing.lifecycle_stage == "deleted" else str(existing.experiment_id)

    def find_model(self, fingerprint: str, experiment: str | None = None, key: str | None = None) -> Run | None:
        """The newest run of an exported model, or None: in any experiment and of any cell, unless one is named."""
        experiments = [experiment] if experiment else [own.experiment_id for own in self.reader.search_experiments()]
        condition = f"tags.`sumi.kind` = 'cell' and tags.`sumi.fingerprint.exported_model` = '{fingerprint}'"
        if key is not None:
            condition += f" and tags.`sumi.cell` = '{key}'"
        found = self._search(experiments, condition)
        return found[0] if found else None

    def is_complete(self, cell: Cell) -> bool:
        """Whether the cell's current model has a finished run with all figures of its current evaluation."""
        run, own = self.find_cell(cell), experiment_fingerprints(cell.experiment)["evaluation"]
        return run is not None and run.info.status == "FINISHED" and self.is_recorded(run, "evaluation", own)

    @staticmethod
    def is_recorded(run: Run, stage: str, fingerprint: str) -> bool:
        """Whether a stage's figures are already in the run."""
        return bool(run.data.tags.get(f"sumi.recorded.{stage}") == fingerprint)

    def record_stage(self, run_id: str, artifact: Artifact) -> None:
        """Put a stage's figures, files and lineage into a run; does nothing the second time."""
        with self._writing(run_id):
            self._record_stage(run_id, artifact)

    def record_text(self, run_id: str, artifact: Artifact) -> None:
        """Put the likelihood of another text into the run of its model: the text as a dataset, the figures as
        ``text/<its name>/…``. Does nothing the second time."""
        text, summary = f"text/{artifact.summary['name']}", artifact.summary
        with self._writing(run_id):
            run = self.client.get_run(run_id)
            if self.is_recorded(run, text, artifact.fingerprint):
                return
            self._log_dataset(run_id, summary["name"], artifact, "evaluation", summary["text"])
            self._log_figures(run, text, summary, run.data.tags.get("sumi.model_id"))
            self.client.set_tag(run_id, f"sumi.recorded.{text}", artifact.fingerprint)

    def _writing(self, run_id: str) -> contextlib.AbstractContextManager[None]:
        """Two processes that write the same tag or figure at once would break each other's transaction."""
        return locked(self.locks / f"mlflow-run-{run_id}.lock")

    def _record_stage(self, run_id: str, artifact: Artifact) -> None:
        client = self.client
        run = client.get_run(run_id)
        if self.is_recorded(run, artifact.stage, artifact.fingerprint):
            return
        records = STAGES[artifact.stage].records
        if records.dataset:
            self._log_dataset(run_id, artifact.stage, artifact, "training")
        if records.history:
            sync_history(artifact.folder / records.history, self.uri, run_id)
        model_id = self._log_model(run, artifact) if records.model else None
        if records.of_model:
            model_id = run.data.tags.get("sumi.model_id")
        self._log_figures(run, artifact.stage, artifact.summary, model_id)
        for name in records.files:
            if (artifact.folder / name).is_file():
                client.log_artifact(run_id, str(artifact.folder / name), artifact.stage)
        if (artifact.folder / "plots").is_dir():
            client.log_artifacts(run_id, str(artifact.folder / "plots"), f"{artifact.stage}/plots")
        git = artifact.manifest["provenance"].get("git", {})
        client.set_tag(run_id, "sumi.git.commit", str(git.get("commit")))
        client.set_tag(run_id, "sumi.git.dirty", str(git.get("dirty")))
        client.set_tag(run_id, f"sumi.folder.{artifact.stage}", str(artifact.folder))
        client.set_tag(run_id, f"sumi.recorded.{artifact.stage}", artifact.fingerprint)

    def record_report(self, sweep: str, report: Artifact, description: str = "") -> str:
        """Put a sweep's comparison into its parent run: the report's files, and what was found as a tag; returns that
        run's id. Does nothing the second time."""
        run_id = self.open_sweep(sweep, description)
        with self._writing(run_id):
            run = self.client.get_run(run_id)
            if not self.is_recorded(run, report.stage, report.fingerprint):
                self.client.log_artifacts(run_id, str(report.folder), "report")
                self.client.set_tag(run_id, "sumi.findings", str(report.summary.get("findings", ""))[:_PARAM_LENGTH])
                self.client.set_tag(run_id, f"sumi.recorded.{report.stage}", report.fingerprint)
        return run_id

    def has_report(self, sweep: str, report: Artifact) -> bool:
        """Whether this report of a sweep is in its parent run."""
        experiment = self.known_experiment(sweep)
        found = self._search(experiment, _sweep_condition(sweep)) if experiment is not None else []
        return bool(found) and self.is_recorded(found[0], report.stage, report.fingerprint)

    def comparison_url(self, cells: Iterable[Cell]) -> str | None:
        """The page of the web interface that compares the runs of these cells' current recipes; None for fewer than
        two runs."""
        runs = [run for cell in cells if (run := self.find_cell(cell)) is not None]
        if len(runs) < 2:
            return None
        ids = json.dumps([run.info.run_id for run in runs], separators=(",", ":"))
        experiments = json.dumps(sorted({run.info.experiment_id for run in runs}), separators=(",", ":"))
        return f"{self.ui}/#/compare-runs?runs={quote(ids)}&experiments={quote(experiments)}"

    def close(self, run_id: str, *, failed: str | None = None) -> None:
        """End a run well, or as failed with its reason."""
        with self._writing(run_id):
            if failed is not None:
                self.client.set_tag(run_id, "sumi.error", failed[:5000])
            elif "sumi.error" in self.client.get_run(run_id).data.tags:
                self.client.delete_tag(run_id, "sumi.error")
            self.client.set_terminated(run_id, "FAILED" if failed else "FINISHED")

    def cell_runs(self, sweeps: list[str]) -> list[Run]:
        """Every cell run of the named sweeps, newest first; creates nothing."""
        ids = [known for sweep in sweeps if (known := self.known_experiment(sweep)) is not None]
        return self._search(ids, "tags.`sumi.kind` = 'cell'")

    def _search(self, experiments: str | list[str], condition: str) -> list[Run]:
        return search_runs(self.reader, [experiments] if isinstance(experiments, str) else experiments, condition)

    def _log_params(self, run: Run, config: Mapping[str, Any]) -> None:
        """Log what the run lacks: all of it, or what a killed process did not get to. Params cannot be changed, so the
        section ``evaluation``, which may be another one for the same model, is a tag instead."""
        from mlflow.entities import Param

        made = {section: value for section, value in config.items() if section != "evaluation"}
        flat = [Param(key, _text(value)[:_PARAM_LENGTH]) for key, value in flatten(made)]
        fresh = [param for param in flat if param.key not in run.data.params]
        for start in range(0, len(fresh), _BATCH_PARAMS):
            self.client.log_batch(run.info.run_id, params=fresh[start : start + _BATCH_PARAMS])

    def _log_figures(self, run: Run, prefix: str, summary: Mapping[str, Any], model_id: str | None) -> None:
        """Log the numbers of a summary that the run lacks or has otherwise, so that the latest value is the current
        one. MLflow takes the latest of one step by its time: a new value is given a later one than the old."""
        from mlflow.entities import Metric

        now, fresh = int(time.time() * 1000), []
        for key, value in flatten(summary):
            if not isinstance(value, int | float) or isinstance(value, bool):
                continue
            name, stamp = f"{prefix}/{key}", now
            if name in run.data.metrics:
                if _same(run.data.metrics[name], float(value)):
                    continue
                logged = self.client.get_metric_history(run.info.run_id, name)
                stamp = max(now, *(metric.timestamp + 1 for metric in logged))
            fresh.append(Metric(name, float(value), stamp, 0, model_id=model_id))
        for start in range(0, len(fresh), _BATCH_METRICS):
            self.client.log_batch(run.info.run_id, metrics=fresh[start : start + _BATCH_METRICS])

    def _log_dataset(self, run_id: str, name: str, artifact: Artifact, context: str, digest: str = "") -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=name,
            digest=digest or artifact.fingerprint,
            source_type="sumi",
            source=json.dumps({"folder": str(artifact.folder), "fingerprint": artifact.fingerprint}),
            profile=json.dumps(artifact.summary),
        )
        tags = [InputTag("mlflow.data.context", context)]
        self.client.log_inputs(run_id, datasets=[DatasetInput(dataset, tags)])

    def _log_model(self, run: Run, artifact: Artifact) -> str:
        """A logged model that points at the exported folder; the weights stay in the store, recorded by SHA-256."""
        existing = run.data.tags.get("sumi.model_id")
        if existing:
            return str(existing)
        client = self.client
        weights = artifact.manifest["files"].get("model.safetensors", {})
        model = client.create_logged_model(
            run.info.experiment_id,
            name=str(run.data.tags["sumi.cell"]).replace(".", "-"),
            source_run_id=run.info.run_id,
            tags={
                "sumi.folder": str(artifact.folder),
                "sumi.fingerprint": artifact.fingerprint,
                "sumi.weights.sha256": str(weights.get("sha256")),
            },
            params={
                key: _text(value) for key, value in flatten(named_references(artifact.manifest["experiment"]["model"]))
            },
            model_type=str(artifact.summary.get("stock_class") or "denoiser"),
        )
        client.finalize_logged_model(model.model_id, "READY")
        client.set_tag(run.info.run_id, "sumi.model_id", model.model_id)
        return str(model.model_id)


def _tags(cell: Cell, fingerprints: Mapping[str, str]) -> dict[str, str]:
    """What a cell's run says of it."""
    return {
        "sumi.kind": "cell",
        "sumi.sweep": cell.sweep,
        "sumi.cell": cell.key,
        "sumi.overrides": " ".join(cell.overrides),
        "sumi.evaluation": json.dumps(cell.experiment.to_dict()["evaluation"])[:_TAG_LENGTH],
        **{f"sumi.axis.{axis}": label for axis, label in cell.labels.items()},
        **{f"sumi.fingerprint.{stage}": value for stage, value in fingerprints.items()},
    }


def _sweep_condition(sweep: str) -> str:
    return f"tags.`sumi.kind` = 'sweep' and tags.`sumi.sweep` = '{sweep}'"


def _same(old: float, new: float) -> bool:
    return old == new or (math.isnan(old) and math.isnan(new))


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


@contextlib.contextmanager
def tracked_failure(tracking: Tracking | None, run_id: str | None) -> Iterator[None]:
    """Mark the run failed when the body raises, interruptions included, and let the exception pass."""
    try:
        yield
    except BaseException as error:
        if tracking is not None and run_id is not None:
            tracking.close(run_id, failed=f"{type(error).__name__}: {error}")
        raise


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
