"""From any name back to what made the thing."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from sumi_core.base.errors import SumiError
from sumi_core.lineage.project import Project
from sumi_core.lineage.reproduction import reproduce
from sumi_core.lineage.targets import LineageError, find_target
from sumi_core.lineage.trace import trace, trace_lines
from sumi_core.stages.identity import experiment_fingerprints
from sumi_core.stages.store import Artifact
from tests.lineage.fakes import PLAIN_STAGES, compute, fake_project

DAGSTER_RUN = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = fake_project(tmp_path / "project", monkeypatch)
    compute(project, "demo.s0", dagster_run_id=DAGSTER_RUN, mlflow_run_id="a" * 32)
    return project


def folder_of(project: Project, stage: str, key: str = "demo.s0") -> Path:
    cell = next(cell for cell in project.sweeps()["demo"].cells if cell.key == key)
    return project.store.folder(stage, experiment_fingerprints(cell.experiment)[stage])


def test_every_kind_of_name_leads_to_the_same_stages(project: Project) -> None:
    wanted = find_target(project, "demo.s0").fingerprints
    assert list(wanted) == list(PLAIN_STAGES)
    evaluation = folder_of(project, "evaluation")
    for given in (str(evaluation), str(evaluation / "manifest.json"), evaluation.name, DAGSTER_RUN):
        assert find_target(project, given).fingerprints == wanted, given


def measurement_of(project: Project, name: str, inputs: tuple[str, ...]) -> Artifact:
    """An output of a measurement in the store, of the current models of demo.s0."""
    cell = next(cell for cell in project.sweeps()["demo"].cells if cell.key == "demo.s0")
    prints = experiment_fingerprints(cell.experiment)
    made = {stage: prints[stage] for stage in inputs}
    with project.store.building(f"evaluation.{name}", "0123456789abcdef") as build:
        (build.folder / "findings.json").write_text("{}")
        manifest = {"key": "demo.s0", "experiment": cell.experiment.to_dict(), "identity": {"version": "1"}}
        provenance = {"dagster_run_id": DAGSTER_RUN}
        return build.finish(
            {
                **manifest,
                "inputs": made,
                "summary": {"nats": 2.5},
                "seconds": 1.0,
                "started": 1.0,
                "provenance": provenance,
            }
        )


@pytest.mark.parametrize(
    ("name", "inputs", "behind"),
    [
        ("likelihood", ("token_shards", "exported_model"), PLAIN_STAGES[:-1]),
        ("yardsticks", ("corpus", "tokenizer", "token_shards"), PLAIN_STAGES[:3]),
    ],
)
def test_a_measurement_leads_to_what_it_read(
    project: Project, name: str, inputs: tuple[str, ...], behind: tuple[str, ...]
) -> None:
    artifact = measurement_of(project, name, inputs)
    for given in (str(artifact.folder), artifact.fingerprint):
        traced = trace(project, given)
        assert [stage.stage for stage in traced.stages] == [*behind, artifact.stage]
        assert {stage.state for stage in traced.stages} == {"whole"}
    told = " ".join("\n".join(trace_lines(traced)).split())
    assert f"{artifact.stage} {artifact.fingerprint} whole, 1 files" in told
    assert "figures nats 2.5" in told
    assert find_target(project, DAGSTER_RUN).last == "evaluation", "a measurement stands before its evaluation"
    with pytest.raises(LineageError, match=r"is one measurement, which is computed again with its evaluation"):
        reproduce(traced, project.home / "again", None, log=lambda line: None)  # type: ignore[arg-type]


def test_an_evaluation_names_its_measurements(project: Project) -> None:
    (folder_of(project, "evaluation") / "measurements.json").write_text('{"likelihood": "0123456789abcdef"}')
    assert "measured likelihood 0123456789abcdef" in " ".join(" ".join(trace_lines(trace(project, "demo.s0"))).split())


def test_a_long_name_is_cut_where_it_only_says_what_an_output_was_made_for(project: Project) -> None:
    path = folder_of(project, "corpus") / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(
        json.dumps({**manifest, "started": 0.0, "seconds": 1.0, "key": f"demo.s0[corpus.paths={'x' * 200}]"})
    )
    told = " ".join("\n".join(trace_lines(trace(project, "demo.s0"))).split())
    assert re.search(r"for demo\.s0\[corpus\.paths=x+…, by version", told)
    assert "x" * 60 not in told


def test_a_folder_upstream_leads_to_what_it_was_made_from_only(project: Project) -> None:
    target = find_target(project, str(folder_of(project, "token_shards")))
    assert list(target.fingerprints) == ["corpus", "tokenizer", "token_shards"]


def test_the_trace_holds_data_config_code_and_seed(project: Project) -> None:
    traced = trace(project, "demo.s0")
    assert {stage.state for stage in traced.stages} == {"whole"}
    plain = json.loads(json.dumps(traced.to_dict()))
    assert plain["seed"] == 0
    assert plain["corpus"]["licence"] == "public domain"
    assert plain["corpus"]["source"] == {"name": "text", "path": "corpus.txt"}
    assert len(plain["corpus"]["identity"]["sha256"]) == 64
    assert plain["experiment"]["runtime"]["threads"] == 1
    evaluation = plain["stages"]["evaluation"]
    assert evaluation["state"] == "whole"
    assert evaluation["provenance"]["dagster_run_id"] == DAGSTER_RUN
    assert {"git", "packages", "python", "host"} <= evaluation["provenance"].keys()
    assert plain["mlflow_run_id"] == "a" * 32
    assert plain["mlflow_url"] is None, "there is no MLflow store here"


def test_the_text_names_what_a_person_looks_for(project: Project) -> None:
    text = "\n".join(trace_lines(trace(project, "demo.s0"), 1000))
    for wanted in (
        "seed        0",
        "text(path=corpus.txt), licence: public domain",
        "every SHA-256 verified",
        "bits_per_byte 2.",
        f"run {DAGSTER_RUN}",
        "commit ",
        "torch=",
        str(folder_of(project, "pretrained_denoiser")),
    ):
        assert wanted in text, wanted
    order = [text.index(f"{name}  {own}") for name, own in find_target(project, "demo.s0").fingerprints.items()]
    assert order == sorted(order, reverse=True), "from the result back to the data"


def change_record(folder: Path, **provenance: object) -> None:
    """Let a stage have been made under other circumstances."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["provenance"] |= provenance
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_circumstances_are_told_once_or_at_each_stage_that_differs(project: Project) -> None:
    def lines() -> list[list[str]]:
        """Of the overview, then of each stage."""
        blocks = "\n".join(trace_lines(trace(project, "demo.s0"))).split("\n\n")
        return [[line.strip() for line in block.splitlines()] for block in blocks]

    for stage in PLAIN_STAGES:
        change_record(
            folder_of(project, stage),
            git={"commit": "c0ffee"},
            uncommitted="",
            packages={"torch": "1.0", "numpy": "2.0"},
        )
    overview, *stages = lines()
    assert {"code        commit c0ffee", f"Dagster run {DAGSTER_RUN}"} <= set(overview)
    assert not [
        line for stage in stages for line in stage if line.startswith(("code", "Dagster", "MLflow", "packages"))
    ]
    other = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
    packages = {"torch": "1.1", "numpy": "2.0"}
    git = {"commit": "beef", "dirty": True}
    change_record(folder_of(project, "evaluation"), git=git, packages=packages, dagster_run_id=other)
    overview, evaluation, exported, *_ = lines()
    assert not [line for line in overview if line.startswith(("code", "Dagster run"))], "it would not hold for all"
    assert "packages    python=" in " ".join(overview)
    assert "numpy=2.0" in " ".join(overview)
    assert {"code        commit beef with uncommitted changes", "packages    torch=1.1"} <= set(evaluation)
    assert f"Dagster run {other}" in evaluation
    assert {"code        commit c0ffee", f"Dagster run {DAGSTER_RUN}", "packages    torch=1.0"} <= set(exported)


@pytest.mark.parametrize("width", [100, 60])
def test_the_text_fits_its_width(project: Project, width: int) -> None:
    deepest = 40  # the tree's indentation, and at least some words
    for line in "\n".join(trace_lines(trace(project, "demo.s0"), width)).splitlines():
        words = max(line.split(), key=len, default="")
        assert len(line) <= max(width, deepest) or len(words) > width - deepest, line


def test_damage_is_found_and_named(project: Project) -> None:
    weights = folder_of(project, "pretrained_denoiser") / "weights.safetensors"
    weights.write_text("x" * weights.stat().st_size)
    traced = trace(project, "demo.s0")
    assert [stage.stage for stage in traced.stages if stage.state == "damaged"] == ["pretrained_denoiser"]
    assert f"{weights} differs from its recorded SHA-256" in " ".join(" ".join(trace_lines(traced)).split())
    assert {stage.state for stage in trace(project, "demo.s0", verify=False).stages} == {"whole"}


def test_a_copied_artifact_is_traced_where_it_is(project: Project, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder_of(project, "exported_model"), copy)
    (copy / "model.safetensors").write_text("tampered")
    traced = trace(project, str(copy))
    exported = traced.stages[-1]
    assert exported.folder == copy
    assert exported.state == "damaged"
    assert [stage.state for stage in traced.stages[:-1]] == ["whole"] * 4


def test_an_exported_folder_tells_its_lineage_far_from_any_store(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder_of(project, "exported_model"), copy)
    (copy / "manifest.json").unlink()
    shutil.rmtree(project.store.root)
    traced = trace(project, str(copy))
    assert {stage.state for stage in traced.stages} == {"missing"}
    assert traced.experiment["seed"] == 0
    text = "\n".join(trace_lines(traced))
    assert "commit c0ffee" in text
    assert "train_loss" in text
    assert "as sumi.json tells" in text
    (copy / "model.safetensors").write_text("tampered")
    assert trace(project, str(copy)).stages[-1].state == "damaged"


def test_a_missing_upstream_output_is_shown_as_missing(project: Project) -> None:
    shutil.rmtree(folder_of(project, "token_shards"))
    states = {stage.stage: stage.state for stage in trace(project, "demo.s0").stages}
    assert states.pop("token_shards") == "missing"
    assert set(states.values()) == {"whole"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("demo", "'demo' has 4 cells; name one of demo.s0, demo.s1"),
        ("0badcafe", "no cell, run, fingerprint or folder is called '0badcafe'"),
        ("demo.s1", "'demo.s1' is not computed in its current recipe; run `sumi run demo.s1` first"),
        ("demo.s9", "no cell, run, fingerprint or folder is called 'demo.s9'; did you mean 'demo.s"),
        ("b" * 32, "there is no MLflow store to look up run"),
        ("b" * 16, "belongs to the fingerprint"),
        ("00000000-0000-0000-0000-000000000000", "belongs to the Dagster run"),
        ("./experiments", "holds neither manifest.json nor sumi.json"),
    ],
)
def test_what_cannot_be_traced_is_told_in_a_sentence(project: Project, given: str, told: str) -> None:
    with pytest.raises(LineageError) as error:
        find_target(project, given)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "overrides", "told"),
    [
        ("demo.s0", ["training.steps=3"], "'demo.s0' is not computed with training.steps=3; run `sumi run demo.s0 tr"),
        ("demo.s0", ["training.stepz=3"], "stepz"),
        ("demo.s0", ["demo.s1"], "expected key=value"),
        ("demo.s0", ["seed=1"], "'demo.s0' is named for a key that these overrides change"),
        ("demo", ["training.steps=3"], "'demo' has 4 cells"),
        ("demo.s9", ["training.steps=3"], "did you mean"),
        ("a" * 32, ["training.steps=3"], "is one result, which nothing can change; leave out training.steps=3"),
        ("experiments", ["training.steps=3"], "is one result, which nothing can change"),
    ],
)
def test_overrides_that_name_nothing_are_told(project: Project, given: str, overrides: list[str], told: str) -> None:
    with pytest.raises(SumiError) as error:
        find_target(project, given, overrides)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "manifest.json is damaged"),
        ('{"name": "somebody\'s package"}', "not ours"),
        ('{"stage": "ablation_report", "fingerprint": "0", "key": "demo", "summary": {}, "files": {}}', "comparison"),
    ],
)
def test_a_folder_that_is_no_record_is_told(project: Project, tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(LineageError, match=told):
        find_target(project, str(tmp_path))


def test_a_foreign_export_record_is_refused(project: Project, tmp_path: Path) -> None:
    (tmp_path / "sumi.json").write_text("{}")
    with pytest.raises(LineageError, match="records no fingerprints"):
        find_target(project, str(tmp_path))
    (tmp_path / "sumi.json").write_text("{")
    with pytest.raises(LineageError, match=r"sumi\.json is damaged"):
        find_target(project, str(tmp_path))
