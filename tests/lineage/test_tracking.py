"""MLflow as the record of cells: one run each, whatever is repeated, interrupted or done at once."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from sumi_core.base.hashing import flatten
from sumi_core.experiments.sweeps import Cell
from sumi_core.lineage import mlflow_store, tracking
from sumi_core.lineage.project import Project
from sumi_core.lineage.tracking import Tracking, tracked_failure
from sumi_core.stages.identity import experiment_fingerprints
from sumi_core.stages.store import Artifact
from tests.lineage import fakes
from tests.lineage.fakes import PLAIN_STAGES, cell_of, compute, record
from tests.lineage.runs import artifact_of, run_of


def test_a_cell_is_one_run_below_its_sweeps_run(project: Project) -> None:
    tracking, cell = project.tracking, cell_of(project, "demo.s0")
    run_id = tracking.open_cell(cell, "four seeds", {"dagster.run_id": "run-7"})
    assert tracking.open_cell(cell, "four seeds", {"dagster.run_id": "run-8"}) == run_id
    other = tracking.open_cell(cell_of(project, "demo.s1"))
    assert other != run_id
    assert {run.info.run_id for run in tracking.cell_runs(["demo"])} == {run_id, other}

    run = run_of(project, run_id)
    assert (run.info.run_name, run.info.status) == ("demo.s0", "RUNNING")
    tags = run.data.tags
    assert tags["dagster.run_id"] == "run-8"
    assert (tags["sumi.kind"], tags["sumi.sweep"], tags["sumi.cell"]) == ("cell", "demo", "demo.s0")
    assert tags["sumi.axis.seed"] == "s0"
    for stage, own in experiment_fingerprints(cell.experiment).items():
        assert tags[f"sumi.fingerprint.{stage}"] == own
    parent = run_of(project, tags["mlflow.parentRunId"])
    assert (parent.data.tags["sumi.kind"], parent.info.run_name) == ("sweep", "demo (sweep)")
    assert parent.data.tags["mlflow.note.content"] == "four seeds"
    assert tracking.open_sweep("demo") == parent.info.run_id == run_of(project, other).data.tags["mlflow.parentRunId"]


def test_every_field_that_made_the_model_is_a_param_and_the_evaluation_a_tag(project: Project) -> None:
    cell = cell_of(project, "demo.s2")
    data = run_of(project, project.tracking.open_cell(cell)).data
    params, config = data.params, cell.experiment.to_dict()
    evaluation = config.pop("evaluation")
    expected = {key: value if isinstance(value, str) else json.dumps(value) for key, value in flatten(config)}
    absent = ("objective.time_density", "objective.feedback", "model.feedback")
    expected = {key: "none" if value == "null" else value for key, value in expected.items() if key not in absent}
    assert params == {"axis.seed": "2", **{f"{key}.name": "none" for key in absent}, **expected}
    assert json.loads(data.tags["sumi.evaluation"]) == evaluation
    assert (params["seed"], params["process.name"], params["training.steps"]) == ("2", "uniform", "4")


def test_params_that_a_killed_process_did_not_log_are_added(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = cell_of(project, "demo.s0")
    with monkeypatch.context() as patch:
        patch.setattr(Tracking, "_log_params", lambda *arguments: None)
        run_id = project.tracking.open_cell(cell)
    assert run_of(project, run_id).data.params == {}
    assert project.tracking.open_cell(cell) == run_id
    assert run_of(project, run_id).data.params["training.steps"] == "4"


def test_another_recipe_is_another_run_and_another_runtime_is_not(project: Project) -> None:
    cell = cell_of(project, "demo.s0")
    changed = project.sweeps(["training.steps=5"])["demo"].cells[0]
    elsewhere = project.sweeps(["runtime.log_every=7"])["demo"].cells[0]
    first = project.tracking.open_cell(cell)
    second = project.tracking.open_cell(changed)
    assert second != first
    assert project.tracking.open_cell(elsewhere) == first
    assert run_of(project, second).info.run_name == "demo.s0[training.steps=5]"
    assert run_of(project, second).data.tags["sumi.overrides"] == "training.steps=5"


def test_a_run_keeps_the_sources_that_no_commit_has(project: Project) -> None:
    run_id = record(project, compute(project, "demo.s0", uncommitted="+++ b/parts/tempered.py\n"))
    path = project.tracking.client.download_artifacts(run_id, "pretrained_denoiser/uncommitted.patch")
    assert Path(path).read_text() == "+++ b/parts/tempered.py\n"


def test_a_finished_cell_is_complete_and_holds_figures_data_and_model(project: Project) -> None:
    cell = compute(project, "demo.s0")
    assert not project.tracking.is_complete(cell)
    run_id = record(project, cell)
    assert project.tracking.is_complete(cell)
    run = run_of(project, run_id)
    evaluation, training = artifact_of(project, cell, "evaluation"), artifact_of(project, cell, "pretrained_denoiser")
    assert run.info.status == "FINISHED"
    metrics = run.data.metrics
    assert metrics["bits_per_byte"] == pytest.approx(evaluation.summary["bits_per_byte"], abs=1e-12)
    assert metrics["training_seconds"] == 1.0
    assert metrics["train/loss"] == 0.5
    assert set(metrics) == {
        *("bits_per_byte", "bits_per_byte_stderr", "training_seconds", "tokens_per_second"),
        *("train/loss", "by_tokens/train_loss", "tokens_seen"),
    }
    assert min(metrics) == "bits_per_byte", "what a comparison of runs opens on"
    assert run.data.params["parameters"] == "1000"
    assert run.data.params["corpus/documents"] == "1"
    assert json.loads(run.data.tags["sumi.evaluation.constants"])["evaluation/yardsticks.unigram"] == 4.5

    inputs = {item.dataset.name: item.dataset for item in run.inputs.dataset_inputs}
    assert set(inputs) == {"corpus", "token_shards"}
    for stage, dataset in inputs.items():
        artifact = artifact_of(project, cell, stage)
        assert dataset.digest == artifact.fingerprint
        assert json.loads(dataset.source)["folder"] == artifact.place
        assert json.loads(dataset.profile) == artifact.summary

    client = project.tracking.client
    model = client.get_logged_model(run.data.tags["sumi.model_id"])
    exported = artifact_of(project, cell, "exported_model")
    assert (model.source_run_id, str(model.status)) == (run_id, "READY")
    assert model.tags["sumi.folder"] == exported.place
    assert model.tags["sumi.weights.sha256"] == exported.manifest["files"]["model.safetensors"]["sha256"]
    assert model.params["num_layers"] == "4"
    on_model = {metric.key for metric in model.metrics or []}
    assert "bits_per_byte" in on_model

    tags = run.data.tags
    assert tags["sumi.folder.pretrained_denoiser"] == training.place
    for stage, own in experiment_fingerprints(cell.experiment).items():
        assert project.tracking.is_recorded(run, stage, own)
    assert [file.path for file in client.list_artifacts(run_id, "exported_model")] == ["exported_model/sumi.json"]


def test_a_corpus_of_many_files_is_recorded(project: Project) -> None:
    """MLflow takes 65,535 characters of a data set's source; the digests of a thousand files are more."""
    cell = compute(project, "demo.s0")
    corpus = artifact_of(project, cell, "corpus")
    files = [{"name": f"texts/{i:04}.txt", "bytes": 1, "sha256": "a" * 64} for i in range(1000)]
    manifest = {**corpus.manifest, "identity": {**corpus.manifest["identity"], "source": {"files": files}}}
    run_id = project.tracking.open_cell(cell)
    project.tracking.record_stage(run_id, replace(corpus, manifest=manifest))
    (found,) = run_of(project, run_id).inputs.dataset_inputs
    assert json.loads(found.dataset.source) == {"folder": corpus.place, "fingerprint": corpus.fingerprint}


def test_every_run_is_found_however_many_there_are(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_store, "_PAGE", 2)
    opened = {project.tracking.open_cell(cell_of(project, f"demo.s{i}")) for i in range(4)}
    assert {run.info.run_id for run in project.tracking.cell_runs(["demo"])} == opened
    assert project.tracking.cell_runs([]) == []


def test_recording_twice_changes_nothing(project: Project) -> None:
    cell = compute(project, "demo.s0")
    run_id = record(project, cell)
    client = project.tracking.client
    before = run_of(project, run_id)
    names = sorted(before.data.metrics)
    points = {name: len(client.get_metric_history(run_id, name)) for name in names}
    assert set(points.values()) == {1}
    assert record(project, cell) == run_id
    after = run_of(project, run_id)
    assert {name: len(client.get_metric_history(run_id, name)) for name in names} == points
    assert sorted(after.data.metrics) == names
    assert after.data.tags == before.data.tags
    assert len(client.search_logged_models([before.info.experiment_id])) == 1


def test_a_recording_that_was_killed_halfway_is_completed(project: Project) -> None:
    """All but the closing tag was written: what is there is not written again."""
    cell = compute(project, "demo.s0")
    run_id = record(project, cell)
    client = project.tracking.client
    for stage in PLAIN_STAGES:
        client.delete_tag(run_id, f"sumi.recorded.{stage}")
    record(project, cell)
    run = run_of(project, run_id)
    assert {len(client.get_metric_history(run_id, name)) for name in run.data.metrics} == {1}
    assert len(run.inputs.dataset_inputs) == 2
    assert len(client.search_logged_models([run.info.experiment_id])) == 1
    assert all(f"sumi.recorded.{stage}" in run.data.tags for stage in PLAIN_STAGES)


def compute_edited(project: Project) -> Cell:
    """The same model with another evaluation, as its file says from now on."""
    file = project.experiments / "demo.yaml"
    file.write_text(file.read_text() + "evaluation: {samples: 3}\n")
    return compute(project, "demo.s0")


# --- one run per model ------------------------------------------------------------------------------------------------


def test_another_evaluation_goes_into_the_run_of_its_model(project: Project) -> None:
    tracking, client = project.tracking, project.tracking.client
    cell = compute(project, "demo.s0")
    run_id = record(project, cell)
    before = run_of(project, run_id)
    fakes.DRIFT["bits_per_byte"] = -0.5  # lower than before: the latest value counts, not the largest
    other = compute_edited(project)
    assert not tracking.is_complete(other)
    assert tracking.open_cell(other) == run_id
    assert run_of(project, run_id).info.status == "RUNNING"
    assert record(project, other) == run_id
    assert {run.info.run_id for run in tracking.cell_runs(["demo"])} == {run_id}

    run, new = run_of(project, run_id), artifact_of(project, other, "evaluation")
    assert run.data.metrics["bits_per_byte"] == new.summary["bits_per_byte"]
    assert new.summary["bits_per_byte"] == before.data.metrics["bits_per_byte"] - 0.5
    points = {name: len(client.get_metric_history(run_id, name)) for name in run.data.metrics}
    assert {name for name, count in points.items() if count == 2} == {"bits_per_byte"}
    assert set(points.values()) == {1, 2}
    tags, changed = run.data.tags, {"sumi.fingerprint.evaluation", "sumi.evaluation"}
    changed |= {"sumi.recorded.evaluation", "sumi.folder.evaluation"}
    assert {name for name in tags if tags[name] != before.data.tags.get(name)} == changed
    assert tags["sumi.fingerprint.evaluation"] == new.fingerprint
    assert json.loads(tags["sumi.evaluation"])["samples"] == 3
    assert run.data.params == before.data.params
    assert len(client.search_logged_models([run.info.experiment_id])) == 1
    model = client.get_logged_model(tags["sumi.model_id"])
    assert new.summary["bits_per_byte"] in [m.value for m in model.metrics if m.key == "bits_per_byte"]

    assert tracking.is_complete(other)
    assert not tracking.is_complete(cell), "the run shows the other evaluation now"
    fakes.DRIFT.clear()
    assert record(project, cell) == run_id
    assert run_of(project, run_id).data.metrics == before.data.metrics
    assert (tracking.is_complete(cell), tracking.is_complete(other)) == (True, False)


def test_a_value_that_comes_with_an_earlier_clock_is_still_the_latest(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine's clock may be behind; MLflow takes the latest of one step by its time."""
    run_id = record(project, compute(project, "demo.s0"))
    fakes.DRIFT["bits_per_byte"] = -0.25
    other = compute_edited(project)
    monkeypatch.setattr(tracking.time, "time", lambda: 1.0)
    record(project, other)
    own = artifact_of(project, other, "evaluation").summary["bits_per_byte"]
    assert run_of(project, run_id).data.metrics["bits_per_byte"] == own


def test_a_figure_that_is_not_a_number_is_logged_once(project: Project) -> None:
    cell = compute(project, "demo.s0")
    run_id = record(project, cell)
    client, evaluation = project.tracking.client, artifact_of(project, cell, "evaluation")
    for number, known in enumerate((math.nan, math.nan, 0.5)):
        manifest = {**evaluation.manifest, "summary": {"odd": known}}
        fresh = replace(evaluation, fingerprint=str(number) * 16, manifest=manifest)
        project.tracking.record_stage(run_id, fresh)
    values = [metric.value for metric in client.get_metric_history(run_id, "odd")]
    assert len(values) == 2
    assert values[-1] == run_of(project, run_id).data.metrics["odd"] == 0.5


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("corpus/skipped.no text in column 'text'", "corpus/skipped.no text in column _text_"),
        (
            "corpus/skipped.0-text: no text in column 'a/../b//c'",
            "corpus/skipped.0-text: no text in column _a/_/b/_/c_",
        ),
        ("corpus/skipped.μ [%]", "corpus/skipped._ ___"),
    ],
)
def test_a_figure_of_any_name_is_recorded(project: Project, written: str, wanted: str) -> None:
    cell = compute(project, "demo.s0")
    run_id = record(project, cell)
    corpus = artifact_of(project, cell, "corpus")
    summary = {"skipped": {written.removeprefix("corpus/skipped."): 3}}
    fresh = replace(corpus, fingerprint="1" * 16, manifest={**corpus.manifest, "summary": summary})
    project.tracking.record_stage(run_id, fresh)
    assert run_of(project, run_id).data.params[wanted] == "3", "of the data: given, not an outcome"
    project.tracking.record_stage(run_id, replace(fresh, fingerprint="2" * 16))
    assert run_of(project, run_id).data.params[wanted] == "3", "the same figure is found again"
    evaluation = artifact_of(project, cell, "evaluation")
    measured = {written.removeprefix("corpus/"): 3}
    other = replace(evaluation, fingerprint="3" * 16, manifest={**evaluation.manifest, "summary": measured})
    project.tracking.record_stage(run_id, other)
    assert run_of(project, run_id).data.metrics[wanted.replace("corpus", "evaluation")] == 3


def test_a_model_is_found_by_its_fingerprint_alone(project: Project) -> None:
    cell = cell_of(project, "demo.s1")
    model = experiment_fingerprints(cell.experiment)["exported_model"]
    assert project.tracking.find_model(model) is None
    run_id = project.tracking.open_cell(cell)
    project.tracking.open_cell(cell_of(project, "demo.s0"))
    found = project.tracking.find_model(model)
    assert found is not None
    assert found.info.run_id == run_id
    assert project.tracking.find_model(model, key="demo.s0") is None


def test_another_text_is_a_dataset_and_metrics_of_its_own(project: Project, tmp_path: Path) -> None:
    cell = compute(project, "demo.s0")
    run_id = record(project, cell)
    before = run_of(project, run_id)
    summary = {"name": "notes-01234567", "text": "0123456789abcdef", "bits_per_byte": 3.5, "exact": False}
    text = Artifact("evaluation.text", "f" * 16, tmp_path, {"summary": summary})
    for _ in range(2):
        project.tracking.record_text(run_id, text)
    run = run_of(project, run_id)
    new = {name: value for name, value in run.data.metrics.items() if name not in before.data.metrics}
    assert new == {"text/notes-01234567/bits_per_byte": 3.5}
    assert len(project.tracking.client.get_metric_history(run_id, next(iter(new)))) == 1
    datasets = {item.dataset.name: item for item in run.inputs.dataset_inputs}
    assert set(datasets) == {"corpus", "token_shards", "notes-01234567"}
    added = datasets["notes-01234567"]
    assert added.dataset.digest == "0123456789abcdef"
    assert {tag.key: tag.value for tag in added.tags} == {"mlflow.data.context": "evaluation"}
    assert run.info.status == "FINISHED"
    assert project.tracking.is_complete(cell)


def test_a_failed_run_says_why_until_it_ends_well(project: Project) -> None:
    cell, tracking = cell_of(project, "demo.s0"), project.tracking
    run_id = tracking.open_cell(cell)

    def fail() -> None:
        with tracked_failure(tracking, run_id):
            raise ValueError("diverged at step 3")

    with pytest.raises(ValueError, match="diverged"):
        fail()
    failed = run_of(project, run_id)
    assert (failed.info.status, failed.data.tags["sumi.error"]) == ("FAILED", "ValueError: diverged at step 3")
    assert not tracking.is_complete(cell)

    assert tracking.open_cell(cell) == run_id
    assert run_of(project, run_id).info.status == "RUNNING"
    compute(project, "demo.s0")
    record(project, cell)
    healed = run_of(project, run_id)
    assert healed.info.status == "FINISHED"
    assert "sumi.error" not in healed.data.tags


def test_a_sweep_is_told_from_its_only_cell_and_an_earlier_name_is_corrected(project: Project) -> None:
    sweep = project.tracking.open_sweep("demo")
    project.tracking.client.set_tag(sweep, "mlflow.runName", "demo")
    assert project.tracking.open_sweep("demo") == sweep
    assert run_of(project, sweep).info.run_name == "demo (sweep)"


def test_an_interrupted_run_is_killed_with_the_reason_and_no_tracking_is_fine(project: Project) -> None:
    run_id = project.tracking.open_cell(cell_of(project, "demo.s0"))

    def interrupt(tracking: Tracking | None) -> None:
        with tracked_failure(tracking, run_id):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt(None)
    assert run_of(project, run_id).info.status == "RUNNING"
    with pytest.raises(KeyboardInterrupt):
        interrupt(project.tracking)
    killed = run_of(project, run_id)
    assert killed.info.status == "KILLED"
    assert killed.data.tags["sumi.error"] == (
        "cancelled before it was done (KeyboardInterrupt); `sumi run` continues it"
    )
