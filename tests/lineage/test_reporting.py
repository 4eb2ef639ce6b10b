"""The report of a sweep as an artifact: what makes it anew, what does not, and what it says of an unfinished sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sumi_core.lineage.project import Project
from sumi_core.reports.artifact import build_sweep_report, compare_sweep, sweep_question
from sumi_core.stages.identity import stage_fingerprint
from sumi_core.stages.store import Artifact
from tests.lineage.fakes import cell_of, compute, fake_project

METHODS = (
    "axes: {method: {cold: {training.learning_rate: 0.001}, warm: {training.learning_rate: 0.002}}, seed: [0, 1]}\n"
)
SEEDS = "axes: {seed: [0, 1, 2, 3]}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Two methods with two seeds each; a report's samples and metrics are of real evaluations, so fakes leave some."""
    project = fake_project(tmp_path / "project", monkeypatch)
    rewrite(project, SEEDS, "reference: cold\n" + METHODS)
    return project


def rewrite(project: Project, old: str, new: str) -> None:
    file = project.experiments / "demo.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def build(project: Project) -> tuple[Artifact, bool]:
    return build_sweep_report(project.store, project.sweeps()["demo"], lambda _: None)


def fail(project: Project, key: str, why: str) -> None:
    (project.store.root / "pretrained_denoiser").mkdir(parents=True, exist_ok=True)
    own = stage_fingerprint(cell_of(project, key).experiment, "pretrained_denoiser")
    project.store.record_failure("pretrained_denoiser", own, key, why)


def rows(report: Artifact) -> dict[str, dict[str, Any]]:
    data = json.loads((report.folder / "report.json").read_text(encoding="utf-8"))
    return {row["name"]: row for row in data["rows"]}


def test_an_unfinished_sweep_has_a_report_that_says_what_is_missing(project: Project) -> None:
    fail(project, "demo.warm.s1", "the loss is NaN")
    report, _ = build(project)
    told = rows(report)
    assert (told["demo.warm.s1"]["state"], told["demo.warm.s0"]["state"]) == ("failed", "missing")
    assert report.summary == {"cells": 4, "evaluated": 0}
    page = (report.folder / "report.html").read_text(encoding="utf-8")
    assert "demo.warm.s1 is failed: pretrained_denoiser: the loss is NaN (attempt 1)" in page
    assert "demo.cold.s0 is missing: corpus: never computed" in page
    assert "No figures yet for 4 of 4 cells" in page


def test_a_failure_that_becomes_another_makes_the_report_anew(project: Project) -> None:
    first, _ = build(project)
    again, found = build(project)
    assert (again.fingerprint, found) == (first.fingerprint, True)
    fail(project, "demo.warm.s1", "the loss is NaN")
    other, found = build(project)
    assert (other.fingerprint != first.fingerprint, found) == (True, False)


def test_the_question_is_part_of_the_report(project: Project) -> None:
    first, _ = build(project)
    question = sweep_question(project.sweeps()["demo"])
    assert (question.reference, question.axes) == ("demo.cold", {"method": ["cold", "warm"], "seed": ["s0", "s1"]})
    rewrite(project, "reference: cold", "reference: warm")
    second, found = build(project)
    assert (second.fingerprint != first.fingerprint, found) == (True, False)
    rewrite(project, "training: {steps: 4, warmup_steps: 0}", "budget: {tokens: 32768}\ntraining: {warmup_steps: 0}")
    asked = sweep_question(project.sweeps()["demo"])
    assert asked.budget == "32.8 k tokens for every cell"
    assert asked.config_digest != question.config_digest


def test_one_more_seed_makes_only_the_report_anew(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that was evaluated is evaluated again, and every figure of the old cells stays what it was."""
    import tests.lineage.fakes as fakes

    leave_samples(monkeypatch)
    for key in ("demo.cold.s0", "demo.cold.s1", "demo.warm.s0", "demo.warm.s1"):
        compute(project, key)
    first, _ = build(project)
    before = rows(first)
    assert (before["demo.cold"]["seeds"], before["demo.cold"]["kind"]) == (2, "group")
    assert before["demo.warm"]["difference_stderr_seeds"] is not None
    assert before["demo.warm"]["reference"] == "demo.cold"
    rewrite(project, "seed: [0, 1]", "seed: [0, 1, 2]")
    calls = []
    real = fakes.build_evaluation
    monkeypatch.setattr(fakes, "build_evaluation", lambda context: calls.append(context.key) or real(context))
    for key in ("demo.cold.s0", "demo.warm.s1", "demo.cold.s2"):
        compute(project, key)
    assert calls == ["demo.cold.s2"]
    second, found = build(project)
    after = rows(second)
    assert not found
    assert second.fingerprint != first.fingerprint
    assert (after["demo.cold"]["seeds"], after["demo.warm"]["seeds"], after["demo.warm"]["seeds_planned"]) == (3, 2, 3)
    assert after["demo.warm"]["seeds_compared"] == 2
    assert after["demo.warm"]["difference"] == before["demo.warm"]["difference"], "over the seeds that both have"
    for key in ("demo.cold.s0", "demo.cold.s1", "demo.warm.s0", "demo.warm.s1"):
        assert after[key]["bits_per_byte"] == before[key]["bits_per_byte"]
    assert build(project) == (second, True)
    live = compare_sweep(project.store, project.sweeps()["demo"])
    assert {row.name: row.bits_per_byte for row in live.rows} == {n: row["bits_per_byte"] for n, row in after.items()}


def leave_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the fake evaluations leave the files and figures that a report is made from."""
    import pandas as pd

    import tests.lineage.fakes as fakes

    real = fakes.build_evaluation

    def build_evaluation(context: Any) -> dict[str, Any]:
        summary = real(context)
        sample = {"steps": [8], "nfe": [8], "sample": [0], "tokens": [[1]], "text": ["in the beginning"]}
        pd.DataFrame(sample).to_parquet(context.folder / "samples.parquet", index=False)
        figure = {"group": ["samples"], "name": ["distinct_1"], "steps": [8], "value": [0.5], "stderr": [0.1]}
        pd.DataFrame(figure).to_parquet(context.folder / "metrics.parquet", index=False)
        described = {"steps_8": {"distinct_1": 0.5}, "validation": {"distinct_1": 0.6}}
        return {**summary, "samples": described, "sample_steps": 8}

    monkeypatch.setattr(fakes, "build_evaluation", build_evaluation)
