"""Outputs of other cells: fingerprints, plans, computation, traces and reproductions follow them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from sumi_core.experiments.references import stage_refs
from sumi_core.lineage.plan import CellPlan, plan, plan_with_ancestors
from sumi_core.lineage.project import Project
from sumi_core.lineage.reproduction import reproduce
from sumi_core.lineage.trace import trace, trace_lines
from sumi_core.stages.base import MissingInput
from sumi_core.stages.computation import Computation
from sumi_core.stages.identity import experiment_fingerprints, refresh_source_identities, stage_identity
from tests.lineage.fakes import DRIFT, cell_of, compute, fake_project

KEY = "model.initialiser.of"
TRAINING = "pretrained_denoiser"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = fake_project(tmp_path / "project", monkeypatch)
    text = (project.experiments / "demo.yaml").read_text().replace("seed: [0, 1, 2, 3]", "seed: [0, 1]")
    (project.experiments / "demo.yaml").write_text(text)
    (project.experiments / "child.yaml").write_text(
        "base: demo\nmodel: {initialiser: {name: cell, of: demo}}\naxes: {seed: [0, 1]}\n"
    )
    (project.experiments / "grandchild.yaml").write_text("base: demo\nmodel: {initialiser: {name: cell, of: child}}\n")
    return project


def change(project: Project, name: str, old: str, new: str) -> None:
    file = project.experiments / f"{name}.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def fingerprints(project: Project, key: str) -> Mapping[str, str]:
    refresh_source_identities()
    return experiment_fingerprints(cell_of(project, key).experiment)


def plans(project: Project, *keys: str) -> dict[str, CellPlan]:
    refresh_source_identities()
    found = plan_with_ancestors([cell_of(project, key) for key in keys], project.store)
    assert len({planned.cell.key for planned in found}) == len(found)
    return {planned.cell.key: planned for planned in found}


# --- fingerprints ---------------------------------------------------------------------------------------------------


def test_the_parents_training_is_an_input_of_the_childs(project: Project) -> None:
    child, parent = cell_of(project, "child.s1"), cell_of(project, "demo.s1")
    identity = stage_identity(child.experiment, TRAINING)
    assert identity["inputs"][KEY] == experiment_fingerprints(parent.experiment)[TRAINING]
    assert identity["config"]["model"]["initialiser"] == {"name": "cell"}
    for stage in ("corpus", "tokenizer", "token_shards", "exported_model", "evaluation"):
        assert KEY not in stage_identity(child.experiment, stage)["inputs"]
    own, other = experiment_fingerprints(child.experiment), experiment_fingerprints(parent.experiment)
    assert {stage for stage in own if own[stage] == other[stage]} == {"corpus", "tokenizer", "token_shards"}


def test_a_child_follows_its_ancestors_recipes_and_data_and_nothing_else_of_them(project: Project) -> None:
    before = fingerprints(project, "grandchild")
    change(project, "demo", "runtime: {threads: 1}", "runtime: {threads: 2}\nevaluation: {samples: 3}")
    assert fingerprints(project, "grandchild")[TRAINING] == before[TRAINING]
    change(project, "demo", "training: {steps: 4,", "training: {steps: 5,")
    change(project, "grandchild", "base: demo", "base: demo\ntraining: {steps: 4}")
    after = fingerprints(project, "grandchild")
    assert after[TRAINING] != before[TRAINING]
    assert after["token_shards"] == before["token_shards"]
    (project.root / "other.txt").write_text("in the end\n")
    change(project, "demo", "runtime", "seed: 0\nruntime")
    change(project, "grandchild", "base: demo", "base: demo\ncorpus: {source: {path: other.txt}}")
    middle = fingerprints(project, "grandchild")
    (project.root / "corpus.txt").write_text("a parent's data\n")  # the grandchild's own are other.txt
    assert fingerprints(project, "grandchild")["corpus"] == middle["corpus"]
    assert fingerprints(project, "grandchild")[TRAINING] != middle[TRAINING]


# --- plans ----------------------------------------------------------------------------------------------------------


def test_a_plan_shows_what_is_needed_of_other_experiments_first(project: Project) -> None:
    assert [*plans(project, "grandchild", "demo.s1")] == ["demo.s0", "child.s0", "grandchild", "demo.s1"]
    compute(project, "child.s0")  # and with it the training of demo.s0, but not its evaluation
    assert [*plans(project, "grandchild")] == ["grandchild"]
    assert [*plans(project, "child.s0", "child.s1")] == ["child.s0", "demo.s1", "child.s1"]
    assert plans(project, "child.s0")["child.s0"].state == "done"


def test_a_changed_parent_makes_the_child_stale_and_the_plan_says_why(project: Project) -> None:
    compute(project, "grandchild")
    change(project, "child", "base: demo", "base: demo\ntraining: {learning_rate: 0.5}")
    told = plans(project, "grandchild")
    assert [*told] == ["child.s0", "grandchild"]
    assert told["child.s0"].why == f"{TRAINING}: training.learning_rate 0.001 → 0.5"
    assert told["grandchild"].why == (
        f"{TRAINING}: {TRAINING} of child.s0 ({KEY}) changes: training.learning_rate 0.001 → 0.5"
    )
    change(project, "child", "training: {learning_rate: 0.5}", "")
    assert plans(project, "grandchild")["grandchild"].state == "done"
    (project.root / "corpus.txt").write_text("in the end\n")
    change(project, "grandchild", "of: child", "of: child.s1")
    words = plans(project, "grandchild")["grandchild"].stages[3].why
    assert words == f"{KEY} child.s0 → child.s1"


def test_a_parent_whose_data_are_gone_blocks_its_child(project: Project) -> None:
    change(project, "child", "base: demo", "base: demo\ncorpus: {source: {path: gone.txt}}")
    told = plans(project, "grandchild")["grandchild"]
    assert [stage.state for stage in told.stages] == ["missing", "missing", "missing", *["blocked"] * 3]
    assert told.why == f"{TRAINING}: gone.txt: No such file or directory"


# --- computation ----------------------------------------------------------------------------------------------------


def test_a_stage_asks_for_the_parents_output_by_name(project: Project) -> None:
    cell = cell_of(project, "child.s0")
    computation = Computation(project.store, log=lambda _: None)
    for stage in ("corpus", "tokenizer", "token_shards"):
        computation.ensure(cell.experiment, cell.key, stage)
    with pytest.raises(MissingInput) as caught:
        computation.ensure(cell.experiment, cell.key, TRAINING)
    assert str(caught.value) == (
        f"{TRAINING} of 'child.s0' needs {TRAINING} of 'demo.s0' ({KEY}), which is not computed; "
        "materialize 'demo.s0' first, or let `sumi run child.s0` do both"
    )
    assert list(project.store.failures()) == []


def test_all_stages_of_a_child_compute_its_ancestors_trainings_first(project: Project) -> None:
    cell = compute(project, "grandchild")
    made = [artifact for artifact in project.store.artifacts() if artifact.stage == TRAINING]
    by_start = sorted(made, key=lambda artifact: artifact.manifest["started"])
    assert [artifact.manifest["key"] for artifact in by_start] == ["demo.s0", "child.s0", "grandchild"]
    assert [a.manifest["key"] for a in project.store.artifacts() if a.stage == "evaluation"] == ["grandchild"]
    manifest = by_start[-1].manifest
    assert manifest["references"] == {
        KEY: {"cell": "child.s0", "stage": TRAINING, "fingerprint": by_start[1].fingerprint}
    }
    assert manifest["experiment"] == cell.experiment.to_dict(), "without the folders of this machine"


# --- traces and reproductions ---------------------------------------------------------------------------------------


def test_a_trace_leads_on_to_the_parents(project: Project) -> None:
    compute(project, "grandchild")
    traced = trace(project, "grandchild")
    child = traced.parents[KEY]
    assert (child.target.key, child.target.last) == ("child.s0", TRAINING)
    assert [stage.stage for stage in child.stages] == ["corpus", "tokenizer", "token_shards", TRAINING]
    assert child.parents[KEY].target.key == "demo.s0"
    assert {stage.state for stage in child.parents[KEY].stages} == {"whole"}
    plain = json.loads(json.dumps(traced.to_dict()))
    assert plain["references"][KEY]["references"][KEY]["key"] == "demo.s0"
    lines = [line for text in trace_lines(traced, 200) for line in text.split("\n")]
    assert f"{KEY}:" in lines
    assert f"   {KEY}:" in lines
    own = fingerprints(project, "demo.s0")[TRAINING]
    assert f"      demo.s0  ({TRAINING} {own})" in lines
    assert f"{KEY} {own} ({TRAINING} of demo.s0)" in " ".join(" ".join(lines).split())


def test_damage_of_a_parent_is_seen_from_the_child(project: Project) -> None:
    compute(project, "child.s0")
    assert not trace(project, "child.s0").is_damaged
    weights = project.store.folder(TRAINING, fingerprints(project, "demo.s0")[TRAINING]) / "weights.safetensors"
    weights.write_text("other")
    assert trace(project, "child.s0").is_damaged
    assert not trace(project, "child.s0", verify=False).is_damaged


def test_a_trace_of_a_model_whose_parent_is_not_at_hand_says_so(project: Project) -> None:
    import shutil

    cell = compute(project, "child.s0")
    own = fingerprints(project, "demo.s0")[TRAINING]
    shutil.rmtree(project.store.folder(TRAINING, own))
    parent = trace(project, "child.s0").parents[KEY]
    assert [stage.state for stage in parent.stages] == ["whole", "whole", "whole", "missing"]
    assert parent.experiment == stage_refs(cell.experiment)[0].experiment.to_dict()


def test_a_reproduction_computes_the_parents_anew_and_compares_them(project: Project) -> None:
    compute(project, "grandchild")
    change(project, "demo", "training: {steps: 4,", "training: {steps: 9,")  # the record counts, not the file
    folder = project.home / "reproduce" / "it"
    traced = trace(project, project.store.folder("evaluation", _evaluation(project)).as_posix())
    result = reproduce(traced, folder, None, log=lambda _: None)  # type: ignore[arg-type]
    assert result.equal
    compared = {f.stage for f in result.files}
    assert {f"{TRAINING} of demo.s0", f"{TRAINING} of child.s0", TRAINING} <= compared
    assert len(list((folder / "store" / TRAINING).glob("*/manifest.json"))) == 3
    DRIFT["weights"] = 1.0
    again = reproduce(traced, folder, None, log=lambda _: None)  # type: ignore[arg-type]
    assert f"{TRAINING} of demo.s0" in {f.stage for f in again.different}


def _evaluation(project: Project) -> str:
    (found,) = (artifact for artifact in project.store.artifacts() if artifact.stage == "evaluation")
    return found.fingerprint


def test_cells_that_refer_to_nothing_are_planned_as_before(project: Project) -> None:
    cells = list(project.sweeps()["demo"].cells)
    assert plan_with_ancestors(cells, project.store) == plan(cells, project.store)
    assert "references" not in stage_identity(cells[0].experiment, TRAINING)
