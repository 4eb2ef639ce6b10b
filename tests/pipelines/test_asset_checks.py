"""Asset checks read the artifact: each of them passes on a sound one and fails on one that is not."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetCheckResult, AssetCheckSeverity

from assets.factory import check_results
from sumi_core.lineage.project import Project
from sumi_core.stages import STAGES
from sumi_core.stages.identity import stage_fingerprint
from sumi_core.stages.store import Artifact
from tests.pipelines.tiny import enter, tiny_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return tiny_project(tmp_path_factory)


@pytest.fixture
def artifacts(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Artifact]:
    """The outputs of a real cell, linked into a folder of the test: files may be replaced there."""
    enter(project, monkeypatch)
    experiment = project.sweeps()["tiny"].cells[0].experiment
    found = {}
    for stage in ("corpus", "tokenizer", "exported_model"):
        artifact = project.store.find(stage, stage_fingerprint(experiment, stage))
        assert artifact is not None
        folder = tmp_path / stage
        folder.mkdir()
        for path in artifact.folder.iterdir():
            (folder / path.name).symlink_to(path)
        found[stage] = Artifact(stage, artifact.fingerprint, folder, json.loads(json.dumps(artifact.manifest)))
    return found


def told(results: Iterable[AssetCheckResult]) -> dict[str | None, bool]:
    return {result.check_name: result.passed for result in results}


def test_sound_artifacts_pass(artifacts: dict[str, Artifact]) -> None:
    assert told(check_results(STAGES["corpus"], artifacts["corpus"])) == {"validation_has_its_share": True}
    assert told(check_results(STAGES["tokenizer"], artifacts["tokenizer"])) == {"any_text_survives": True}
    checks = told(check_results(STAGES["exported_model"], artifacts["exported_model"]))
    assert checks == {"weights_are_as_recorded": True, "stock_transformers_opens_it": True}


@pytest.mark.parametrize(("fraction", "passed"), [(0.3, True), (0.01, False), (0.5, True)])
def test_a_split_far_from_what_was_asked_is_told(artifacts: dict[str, Artifact], fraction: float, passed: bool) -> None:
    artifact = artifacts["corpus"]
    summary: dict[str, Any] = artifact.manifest["summary"]
    share = summary["validation_bytes"] / (summary["train_bytes"] + summary["validation_bytes"])
    assert 0.25 <= share <= 0.6
    artifact.manifest["experiment"]["corpus"]["validation_fraction"] = fraction
    [result] = check_results(STAGES["corpus"], artifact)
    assert (result.passed, result.severity) == (passed, AssetCheckSeverity.WARN)


def test_a_tokenizer_that_loses_text_or_does_not_open_is_told(artifacts: dict[str, Artifact]) -> None:
    folder = artifacts["tokenizer"].folder
    saved = json.loads((folder / "tokenizer.json").read_text())
    about = json.loads((folder / "sumi_tokenizer.json").read_text())
    saved["normalizer"] = {"type": "Lowercase"}
    for name, content in (("tokenizer.json", saved), ("sumi_tokenizer.json", {**about, "ids_are_bytes": False})):
        (folder / name).unlink()
        (folder / name).write_text(json.dumps(content))
    [lossy] = check_results(STAGES["tokenizer"], artifacts["tokenizer"])
    assert not lossy.passed
    assert "does not survive a round trip" in str(lossy.description)
    (folder / "tokenizer.json").write_text("{")
    [damaged] = check_results(STAGES["tokenizer"], artifacts["tokenizer"])
    assert not damaged.passed
    assert "is missing or damaged" in str(damaged.description)


def test_other_weights_than_the_recorded_ones_are_told(artifacts: dict[str, Artifact]) -> None:
    path = artifacts["exported_model"].folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    path.write_bytes(content)
    assert (
        told(check_results(STAGES["exported_model"], artifacts["exported_model"]))["weights_are_as_recorded"] is False
    )


def test_a_model_that_its_stock_class_does_not_open_is_told_and_one_without_such_a_class_is_no_fault(
    artifacts: dict[str, Artifact],
) -> None:
    artifact = artifacts["exported_model"]
    artifact.manifest["summary"] |= {"stock_loadable": False, "reason": "qk_norm is on", "max_logit_difference": None}
    _, result = check_results(STAGES["exported_model"], artifact)
    assert (result.passed, result.severity) == (False, AssetCheckSeverity.WARN)
    assert result.description == "qk_norm is on"
    artifact.manifest["summary"]["stock_class"] = None
    _, result = check_results(STAGES["exported_model"], artifact)
    assert (result.passed, result.description) == (True, "not applicable: qk_norm is on")


@pytest.mark.parametrize(("steps", "passed"), [(20, True), (100_000, False)])
def test_a_model_worse_than_token_frequencies_is_told_if_it_could_have_learned(
    tmp_path: Path, steps: int, passed: bool
) -> None:
    recorded = {
        "training": {"steps": steps, "batch_size": 16, "accumulation": 1},
        "shards": {"sequence_length": 64},
    }
    summary = {"bits_per_byte": 7.0, "yardsticks": {"unigram_tokens": 4.0}}
    artifact = Artifact("evaluation", "0" * 16, tmp_path, {"summary": summary, "experiment": recorded})
    [result] = check_results(STAGES["evaluation"], artifact)
    assert result.passed is passed
    assert ("not applicable: 20,480 tokens" in str(result.description)) is passed
