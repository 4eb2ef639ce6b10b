"""MLflow: one run per model of a cell, nested under one run per sweep, in an MLflow experiment named after the sweep.

A run carries what made the model as params, every stage's fingerprint and the Dagster run as tags, the corpus and
token shards as dataset inputs, the training history and what came out as metrics (``tracked_figures``), the exported
model as a logged model, and what people look at (plots, reports) as artifacts. Recording a stage twice changes
nothing. Another evaluation of a cell's model, and its likelihood of other texts, go into the same run: the latest value
of a metric is that of the latest evaluation. What the command line changed is a cell of its own, with a run of its own.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from sumi_core.base.files import json_text
from sumi_core.base.hashing import flatten
from sumi_core.base.locks import locked
from sumi_core.base.process import repeats_ignored
from sumi_core.base.references import named_references
from sumi_core.experiments.sweeps import Cell, Sweep
from sumi_core.lineage.links import dagster_partition, mlflow_page
from sumi_core.lineage.mlflow_store import NOTE, MlflowStore, search_runs
from sumi_core.lineage.tracked_figures import (
    CONSTANTS,
    NONE,
    TRAINING_SECONDS,
    config_params,
    constants,
    metrics,
    report_metrics,
    text_metrics,
    text_of,
)
from sumi_core.stages import STAGES
from sumi_core.stages.identity import experiment_fingerprints
from sumi_core.stages.store import Artifact
from sumi_core.training.publishing import sync_history

if TYPE_CHECKING:
    from mlflow.entities import Run

# MLflow's own limits for one request.
_BATCH_METRICS, _BATCH_PARAMS, _PARAM_LENGTH, _TAG_LENGTH = 1000, 100, 6000, 8000
_NAME_LENGTH = 250
_NO_NAME = re.compile(r"[^\w\-. :/]", re.ASCII)
_RECORDING = 3  # the way in which figures are recorded


class Tracking(MlflowStore):
    """The runs of a project in its MLflow store."""

    def open_sweep(self, sweep: str, description: str = "", change: str = "") -> str:
        """The run id of a sweep's parent run, created if missing. change: what the names of its cells end in. A new one
        takes the cells of one that was deleted."""
        experiment, client = self.experiment_id(sweep, description), self.client
        with locked(self.locks / f"mlflow-{sweep}.lock"):
            name = f"{sweep}{change} (sweep)"  # that of its only cell may be the same without
            found = self._find_sweep(experiment, sweep + change)
            if found is not None:
                if found.info.run_name != name:
                    client.set_tag(found.info.run_id, "mlflow.runName", name)
                return str(found.info.run_id)
            tags = {"sumi.kind": "sweep", "sumi.sweep": sweep + change, NOTE: description}
            condition = f"tags.`sumi.kind` = 'cell' and tags.`sumi.sweep` = '{sweep + change}'"
            cells = search_runs(client, [experiment], condition)
            started = min((cell.info.start_time for cell in cells), default=None)
            made = client.create_run(experiment, start_time=started, tags=tags, run_name=name)
            run_id = str(made.info.run_id)
            client.set_terminated(run_id, "FINISHED")
            for cell in cells:
                client.set_tag(cell.info.run_id, "mlflow.parentRunId", run_id)
            return run_id

    def _find_sweep(self, experiment: str, key: str) -> Run | None:
        condition = f"tags.`sumi.kind` = 'sweep' and tags.`sumi.sweep` = '{key}'"
        return next(iter(search_runs(self.reader, [experiment], condition)), None)

    def open_cell(self, cell: Cell, description: str = "", tags: Mapping[str, str] | None = None) -> str:
        """The run id of a cell's current model: found by the model's fingerprint, else created, and set running unless
        it holds the current evaluation. The tags of a run that is found follow the cell as it is now."""
        fingerprints = experiment_fingerprints(cell.experiment)
        parent = self.open_sweep(cell.sweep, description, cell.change)
        experiment, client = self.experiment_id(cell.sweep), self.client
        current = {**_tags(cell, fingerprints), "mlflow.parentRunId": parent, **(tags or {})}
        with locked(self.locks / f"mlflow-{cell.sweep}.lock"):
            run = self.find_cell(cell)
            if run is None:
                note = {NOTE: _note(cell, description)}
                run = client.create_run(experiment, run_name=cell.key, tags={**note, **current})
                self._log_params(run, config_params(cell.experiment, cell.labels))
                return str(run.info.run_id)
            self._log_params(run, config_params(cell.experiment, cell.labels))
        run_id = str(run.info.run_id)
        with self._writing(run_id):
            for key, value in {**current, "mlflow.runName": cell.key}.items():
                if run.data.tags.get(key) != value:
                    client.set_tag(run_id, key, value)
            if not self.is_recorded(run, "evaluation", fingerprints["evaluation"]):
                client.update_run(run_id, status="RUNNING")
        return run_id

    def find_cell(self, cell: Cell) -> Run | None:
        """The run of a cell's current model, or None."""
        model, experiment = (
            experiment_fingerprints(cell.experiment)["exported_model"],
            self.known_experiment(cell.sweep),
        )
        return self.find_model(model, experiment, cell.key) if experiment is not None else None

    def find_model(self, fingerprint: str, experiment: str | None = None, key: str | None = None) -> Run | None:
        """The newest run of an exported model, or None: in any experiment and of any cell, unless one is named."""
        experiments = [experiment] if experiment else [own.experiment_id for own in self.reader.search_experiments()]
        condition = f"tags.`sumi.kind` = 'cell' and tags.`sumi.fingerprint.exported_model` = '{fingerprint}'"
        found = search_runs(self.reader, experiments, condition)
        return next((run for run in found if key in (None, run.data.tags.get("sumi.cell"))), None)

    def is_complete(self, cell: Cell) -> bool:
        """Whether the cell's current model has a finished run with all figures of its current evaluation."""
        run, own = self.find_cell(cell), experiment_fingerprints(cell.experiment)["evaluation"]
        return run is not None and run.info.status == "FINISHED" and self.is_recorded(run, "evaluation", own)

    @staticmethod
    def is_recorded(run: Run, stage: str, fingerprint: str) -> bool:
        """Whether a stage's figures are already in the run."""
        return bool(run.data.tags.get(mlflow_name(f"sumi.recorded.{stage}")) == _recorded(fingerprint))

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
            self._log_metrics(run, text_metrics(summary, text), run.data.tags.get("sumi.model_id"))
            self.client.set_tag(run_id, mlflow_name(f"sumi.recorded.{text}"), _recorded(artifact.fingerprint))

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
        self._log_metrics(run, metrics(artifact), model_id)
        if records.of_model:  # those of another evaluation may differ: params could not follow
            client.set_tag(run_id, CONSTANTS, json.dumps(constants(artifact))[:_TAG_LENGTH])
        else:
            self._log_params(run, {name: json.dumps(value) for name, value in constants(artifact).items()})
        for name in records.files:
            if (artifact.folder / name).is_file():
                client.log_artifact(run_id, str(artifact.folder / name), artifact.stage)
        if (artifact.folder / "plots").is_dir():
            client.log_artifacts(run_id, str(artifact.folder / "plots"), f"{artifact.stage}/plots")
        git = artifact.manifest["provenance"].get("git", {})
        if patch := artifact.manifest["provenance"].get("uncommitted"):
            client.log_text(run_id, patch, f"{artifact.stage}/uncommitted.patch")
        client.set_tag(run_id, "sumi.git.commit", str(git.get("commit")))
        client.set_tag(run_id, "sumi.git.dirty", str(git.get("dirty")))
        client.set_tag(run_id, f"sumi.folder.{artifact.stage}", artifact.place)
        client.set_tag(run_id, f"sumi.recorded.{artifact.stage}", _recorded(artifact.fingerprint))

    def record_report(self, sweep: Sweep, report: Artifact) -> str:
        """Put a sweep's comparison into its parent run: the report's files, what was found as a tag, the best figures
        and the training time as metrics, its duration from its first cell to its last; returns that run's id. Does
        nothing the second time."""
        run_id = self.open_sweep(sweep.name, sweep.description, sweep.key.removeprefix(sweep.name))
        with self._writing(run_id):
            run, client = self.client.get_run(run_id), self.client
            if self.is_recorded(run, report.stage, report.fingerprint):
                return run_id
            client.log_artifacts(run_id, str(report.folder), "report")
            client.set_tag(run_id, "sumi.findings", str(report.summary.get("findings", ""))[:_PARAM_LENGTH])
            cells = [found for cell in sweep.cells if (found := self._complete_cell(cell)) is not None]
            spent = [found.data.metrics[TRAINING_SECONDS] for found in cells if TRAINING_SECONDS in found.data.metrics]
            figures = report_metrics(report.summary) | ({TRAINING_SECONDS: sum(spent)} if spent else {})
            self._log_metrics(run, figures, None)
            self._align_params(cells)
            ended = [found.info.end_time for found in cells if found.info.end_time]
            client.set_terminated(run_id, "FINISHED", end_time=max([run.info.start_time, *ended]))
            client.set_tag(run_id, f"sumi.recorded.{report.stage}", _recorded(report.fingerprint))
        return run_id

    def _complete_cell(self, cell: Cell) -> Run | None:
        """The run of a cell that has all its figures: params of another could not be corrected later."""
        evaluation = experiment_fingerprints(cell.experiment)["evaluation"]
        run = self.find_cell(cell)
        return run if run is not None and self.is_recorded(run, "evaluation", evaluation) else None

    def _align_params(self, runs: Sequence[Run]) -> None:
        """Give each cell the params that only others have, as ``none``: a comparison would show gaps."""
        every = dict.fromkeys(key for run in runs for key in run.data.params)
        for run in runs:
            with self._writing(str(run.info.run_id)):
                self._log_params(run, dict.fromkeys(every, NONE))

    def has_report(self, sweep: Sweep, report: Artifact) -> bool:
        """Whether this report of a sweep is in its parent run."""
        experiment = self.known_experiment(sweep.name)
        run = self._find_sweep(experiment, sweep.key) if experiment is not None else None
        return run is not None and self.is_recorded(run, report.stage, report.fingerprint)

    def comparison_url(self, cells: Iterable[Cell]) -> str | None:
        """The page of the web interface that compares the runs of these cells' current recipes; None for fewer than
        two runs."""
        runs = [run for cell in cells if (run := self.find_cell(cell)) is not None]
        if len(runs) < 2:
            return None
        ids = json.dumps([run.info.run_id for run in runs], separators=(",", ":"))
        experiments = json.dumps(sorted({run.info.experiment_id for run in runs}), separators=(",", ":"))
        return mlflow_page(self.ui, "compare-runs", runs=ids, experiments=experiments)

    def close(self, run_id: str, *, failed: str | None = None, cancelled: str | None = None) -> None:
        """End a run well, as failed, or as killed, with the reason."""
        reason = failed if failed is not None else cancelled
        with self._writing(run_id):
            if reason is not None:
                self.client.set_tag(run_id, "sumi.error", reason[:5000])
            elif "sumi.error" in self.client.get_run(run_id).data.tags:
                self.client.delete_tag(run_id, "sumi.error")
            status = "FAILED" if failed is not None else "KILLED" if cancelled is not None else "FINISHED"
            self.client.set_terminated(run_id, status)

    def cell_runs(self, sweeps: Iterable[str]) -> list[Run]:
        """Every cell run of the named sweeps, newest first; creates nothing."""
        ids = [known for sweep in sweeps if (known := self.known_experiment(sweep)) is not None]
        return search_runs(self.reader, ids, "tags.`sumi.kind` = 'cell'")

    def _log_params(self, run: Run, params: Mapping[str, str]) -> None:
        """Log what the run lacks: all of it, or what a killed process did not get to. Params cannot be changed."""
        from mlflow.entities import Param

        fresh = [
            Param(mlflow_name(key), value[:_PARAM_LENGTH])
            for key, value in params.items()
            if mlflow_name(key) not in run.data.params
        ]
        for start in range(0, len(fresh), _BATCH_PARAMS):
            self.client.log_batch(run.info.run_id, params=fresh[start : start + _BATCH_PARAMS])

    def _log_metrics(self, run: Run, figures: Mapping[str, float], model_id: str | None) -> None:
        """Log the figures that the run lacks or has otherwise, so that the latest value is the current one. MLflow
        takes the latest of one step by its time: a new value is given a later one than the old."""
        from mlflow.entities import Metric

        now, fresh = int(time.time() * 1000), []
        for key, value in figures.items():
            name, stamp = mlflow_name(key), now
            if name in run.data.metrics:
                if _same(run.data.metrics[name], value):
                    continue
                logged = self.client.get_metric_history(run.info.run_id, name)
                stamp = max(now, *(metric.timestamp + 1 for metric in logged))
            fresh.append(Metric(name, value, stamp, 0, model_id=model_id))
        for start in range(0, len(fresh), _BATCH_METRICS):
            self.client.log_batch(run.info.run_id, metrics=fresh[start : start + _BATCH_METRICS])

    def _log_dataset(self, run_id: str, name: str, artifact: Artifact, context: str, digest: str = "") -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=name,
            digest=digest or artifact.fingerprint,
            source_type="sumi",
            source=json.dumps({"folder": artifact.place, "fingerprint": artifact.fingerprint}),
            profile=json_text(artifact.summary, None),
        )
        tags = [InputTag("mlflow.data.context", context)]
        with locked(self.locks / "mlflow-datasets.lock"):  # cells share data: each of two runs would find it missing
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
            name=re.sub(r"[^A-Za-z0-9_+-]+", "-", str(run.data.tags["sumi.cell"])).strip("-"),
            source_run_id=run.info.run_id,
            tags={
                "sumi.folder": artifact.place,
                "sumi.fingerprint": artifact.fingerprint,
                "sumi.weights.sha256": str(weights.get("sha256")),
            },
            params={
                mlflow_name(key): text_of(value)
                for key, value in flatten(named_references(artifact.manifest["experiment"]["model"]))
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
        "sumi.sweep": cell.sweep_key,
        "sumi.cell": cell.key,
        "sumi.overrides": " ".join(cell.overrides),
        "sumi.evaluation": json.dumps(cell.experiment.to_dict()["evaluation"])[:_TAG_LENGTH],
        **{mlflow_name(f"sumi.axis.{axis}"): label for axis, label in cell.labels.items()},
        **{f"sumi.fingerprint.{stage}": value for stage, value in fingerprints.items()},
    }


def mlflow_name(text: str) -> str:
    """A metric, param or tag as MLflow takes its name: what it refuses (quotes, brackets, other letters) is ``_``.

    >>> mlflow_name("corpus/skipped.no text in column 'text'")
    'corpus/skipped.no text in column _text_'
    """
    parts = _NO_NAME.sub("_", text)[:_NAME_LENGTH].split("/")
    return "/".join("_" if part in ("", ".", "..") else part for part in parts)  # it has to be a path in normal form


def _same(old: float, new: float) -> bool:
    return old == new or (math.isnan(old) and math.isnan(new))


@contextlib.contextmanager
def tracked_failure(tracking: Tracking | None, run_id: str | None) -> Iterator[None]:
    """Mark the run failed when the body raises, or killed when it is interrupted, and let the exception pass."""
    try:
        yield
    except BaseException as error:
        if tracking is not None and run_id is not None:
            told = f"{type(error).__name__}: {error}".removesuffix(": ")
            if isinstance(error, Exception):
                tracking.close(run_id, failed=told)
            else:  # Ctrl-C, SIGTERM, or Dagster's button
                with repeats_ignored():
                    tracking.close(run_id, cancelled=f"cancelled before it was done ({told}); `sumi run` continues it")
        raise


def _recorded(fingerprint: str) -> str:
    """The mark of a stage whose figures are in a run. Those of an earlier way of recording are recorded again."""
    return f"{fingerprint} {_RECORDING}"


def _note(cell: Cell, description: str) -> str:
    """The description of a cell's run, in Markdown."""
    place = dagster_partition("evaluation", cell.key)
    return f"{description}\n\n[`{cell.key}` in Dagster]({place}) · `sumi lineage {shlex.quote(cell.key)}`".strip()
