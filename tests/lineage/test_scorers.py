"""Models that are asked in an evaluation: plans, traces and reproductions follow them, and a cell may ask its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from sumi_core.lineage.plan import plan_with_ancestors
from sumi_core.lineage.project import Project
from sumi_core.lineage.reproduction import reproduce
from sumi_core.lineage.trace import trace
from sumi_core.stages.identity import experiment_fingerprints
from tests.lineage.fakes import cell_of, compute, fake_project

KEY = "evaluation.measurements[1].scorer.of"
LEFT = "{process: null, objective: autoregressive, model.attention: causal}"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = fake_project(tmp_path / "project", monkeypatch)
    (project.experiments / "asked.yaml").write_text(
        "base: demo\n"
        "evaluation: {measurements: [likelihood, {name: frontier, scorer: {name: cell, of: asked.left}}]}\n"
        f"axes: {{method: {{uniform: {{}}, left: {LEFT}}}}}\n"
    )
    return project


def test_the_scorers_export_is_computed_first(project: Project) -> None:
    compute(project, "asked.uniform")
    made = [a for a in project.store.artifacts() if a.stage in ("exported_model", "evaluation")]
    order = [(a.manifest["key"], a.stage) for a in sorted(made, key=lambda a: a.manifest["started"])]
    assert order == [
        ("asked.left", "exported_model"),
        ("asked.uniform", "exported_model"),
        ("asked.uniform", "evaluation"),
    ]


def test_a_cell_that_asks_itself_is_computed_once_and_in_order(project: Project) -> None:
    compute(project, "asked.left")
    made = sorted(project.store.artifacts(), key=lambda a: a.manifest["started"])
    assert [a.stage for a in made][-3:] == ["pretrained_denoiser", "exported_model", "evaluation"]
    assert len(made) == 6
    own = experiment_fingerprints(cell_of(project, "asked.left").experiment)["exported_model"]
    assert made[-1].manifest["references"][KEY]["fingerprint"] == own


def test_plans_ask_for_the_scorer_and_say_why_an_evaluation_is_stale(project: Project) -> None:
    def plans() -> list[str]:
        return [p.cell.key for p in plan_with_ancestors([cell_of(project, "asked.uniform")], project.store)]

    assert plans() == ["asked.left", "asked.uniform"]
    compute(project, "asked.uniform")
    assert plans() == ["asked.uniform"]
    file = project.experiments / "asked.yaml"
    file.write_text(file.read_text().replace("causal}", "causal, training.learning_rate: 0.5}"))
    assert plans() == ["asked.left", "asked.uniform"]
    (_, own) = plan_with_ancestors([cell_of(project, "asked.uniform")], project.store)
    assert {stage.stage for stage in own.pending} == {"evaluation"}
    assert f"exported_model of asked.left ({KEY}) changes" in own.why


def test_a_trace_and_a_reproduction_go_through_the_scorer(project: Project, tmp_path: Path) -> None:
    for key in ("asked.uniform", "asked.left"):
        compute(project, key)
        traced = trace(project, key)
        scorer = traced.parents[KEY]
        assert (scorer.target.key, scorer.target.last) == ("asked.left", "exported_model")
        assert not traced.is_damaged
        result = reproduce(traced, tmp_path / key, None, log=lambda _: None)  # type: ignore[arg-type]
        assert result.equal
        assert "exported_model of asked.left" in {figure.stage for figure in result.figures}
    weights = scorer.stages[-1].folder
    assert weights is not None
    (weights / "model.safetensors").write_text("other")
    assert trace(project, "asked.uniform").is_damaged
