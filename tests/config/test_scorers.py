"""Evaluations that ask other cells' models, or their own: what the names mean, and that no model is made from them."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from sumi_core.experiments.references import ancestors, located, stage_refs, unlocated
from sumi_core.experiments.resolve import resolve_recorded
from sumi_core.experiments.size import experiment_size
from sumi_core.experiments.sweeps import Cell, load_sweep, load_sweeps, select_cells, with_ancestors
from sumi_core.stages.identity import experiment_fingerprints, foreign_refs, stage_identity

CAUSAL = "{process: null, objective: autoregressive, model.attention: causal}"
KEY = "evaluation.measurements[1].scorer.of"


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(textwrap.dedent(text))
    return file


def scored(of: str) -> str:
    return f"evaluation: {{measurements: [likelihood, {{name: frontier, scorer: {{name: cell, of: {of}}}}}]}}\n"


def cells(folder: Path, *overrides: str) -> dict[str, Cell]:
    sweeps = load_sweeps(folder, overrides)
    assert not sweeps.broken, sweeps.broken
    return {cell.plain: cell for sweep in sweeps.values() for cell in sweep.cells}


def parents(found: dict[str, Cell]) -> dict[str, list[str]]:
    return {key: [parent.key for parent in cell.parents] for key, cell in found.items() if cell.parents}


SWEEP = f"""
    {scored("sweep.left").strip()}
    axes:
      method: {{uniform: {{}}, left: {CAUSAL}}}
      seed: [0, 1]
"""


def test_all_cells_of_a_sweep_may_have_one_of_them_as_scorer_itself_too(tmp_path: Path) -> None:
    write(tmp_path, "sweep", SWEEP)
    found = cells(tmp_path)
    assert parents(found) == {"sweep.uniform.s0": ["sweep.left.s0"], "sweep.uniform.s1": ["sweep.left.s1"]}
    for seed in "01":
        scorer = experiment_fingerprints(found[f"sweep.left.s{seed}"].experiment)["exported_model"]
        for method in ("uniform", "left"):
            experiment = found[f"sweep.{method}.s{seed}"].experiment
            (ref,) = stage_refs(experiment)
            assert (ref.key, ref.cell, ref.stage) == (KEY, f"sweep.left.s{seed}", "exported_model")
            assert stage_identity(experiment, "evaluation")["inputs"][KEY] == scorer
            assert KEY not in stage_identity(experiment, "exported_model")["inputs"]
            assert len(foreign_refs(experiment)) == (method == "uniform")


def test_one_cell_is_one_scorer_of_all_seeds(tmp_path: Path) -> None:
    write(tmp_path, "sweep", SWEEP.replace("of: sweep.left", "of: sweep.left.s1"))
    refs = [stage_refs(cell.experiment)[0].cell for cell in cells(tmp_path).values()]
    assert refs == ["sweep.left.s1"] * 4
    assert parents(cells(tmp_path))["sweep.left.s0"] == ["sweep.left.s1"]


def test_a_scorer_decides_the_evaluation_alone(tmp_path: Path) -> None:
    write(tmp_path, "sweep", SWEEP)
    before = cells(tmp_path)["sweep.uniform.s0"].experiment
    write(tmp_path, "sweep", SWEEP.replace(f"left: {CAUSAL}", f"left: {CAUSAL[:-1]}, training.learning_rate: 0.5}}"))
    after = cells(tmp_path)["sweep.uniform.s0"].experiment
    own, other = experiment_fingerprints(before), experiment_fingerprints(after)
    assert {stage for stage in own if own[stage] != other[stage]} == {"evaluation"}


def test_the_training_of_a_scorer_is_no_cost_of_the_model(tmp_path: Path) -> None:
    """Not even where the scorer is made from another training."""
    write(tmp_path, "first", "process: null\nobjective: autoregressive\nmodel: {attention: causal}\n")
    write(tmp_path, "second", "base: first\nmodel: {initialiser: {name: cell, of: first}}\n")
    write(tmp_path, "child", f"budget: {{total_flops: 1e15}}\n{scored('second')}")
    experiment = cells(tmp_path)["child"].experiment
    size = experiment_size(experiment, 257)
    assert size.total_flops == size.flops == pytest.approx(1e15, rel=1e-2)
    assert [ref.cell for ref in ancestors(experiment)] == ["first", "second"]
    assert ancestors(experiment, of_model=True) == []


def test_a_budget_is_that_of_the_scorer_too(tmp_path: Path) -> None:
    """The recipe of a cell that scores itself holds the steps that it takes."""
    write(tmp_path, "sweep", "budget: {tokens: 1e6}\n" + textwrap.dedent(SWEEP))
    for cell in cells(tmp_path).values():
        (ref,) = stage_refs(cell.experiment)
        assert ref.experiment.training.steps == cell.experiment.training.steps < 1000


def test_cells_of_which_each_scores_the_other_are_refused(tmp_path: Path) -> None:
    one = write(
        tmp_path, "one", f"process: null\nobjective: autoregressive\nmodel: {{attention: causal}}\n{scored('two')}"
    )
    write(tmp_path, "two", f"process: null\nobjective: autoregressive\nmodel: {{attention: causal}}\n{scored('one')}")
    assert "one → two → one is a circle" in str(load_sweeps(tmp_path).broken[one])


def test_only_exact_likelihoods_score(tmp_path: Path) -> None:
    write(tmp_path, "noise", "seed: 3")
    file = write(tmp_path, "child", scored("noise"))
    assert str(load_sweeps(tmp_path).broken[file]) == (
        f"{file}: evaluation.measurements: 'noise' cannot score texts: its objective is 'nelbo', whose likelihood is "
        "not exact; name a cell with objective: autoregressive"
    )


def test_changes_on_the_command_line_hold_for_a_scorer_of_the_same_file(tmp_path: Path) -> None:
    file = write(tmp_path, "sweep", SWEEP)
    for cell in load_sweep(file, tmp_path, ["training.steps=900"]).cells:
        (ref,) = stage_refs(cell.experiment)
        assert (ref.cell, ref.experiment.training.steps) == (f"{ref.cell[:13]}[training.steps=900]", 900)
        assert not any(parent.plain == cell.plain for parent in cell.parents)


def test_how_a_model_is_measured_on_the_command_line_leaves_its_scorer_as_it_is(tmp_path: Path) -> None:
    """An autoregressive model cannot write by this sampler, and need not."""
    write(tmp_path, "sweep", SWEEP)
    sweeps = load_sweeps(tmp_path, ["evaluation.sampler=predictor_corrector"])
    changed = {cell.plain: cell for cell in sweeps["sweep"].cells}
    assert list(changed) == ["sweep.uniform.s0", "sweep.uniform.s1"]
    assert list(sweeps["sweep"].refused) == ["sweep.left.s0", "sweep.left.s1"]
    assert parents(changed) == {"sweep.uniform.s0": ["sweep.left.s0"], "sweep.uniform.s1": ["sweep.left.s1"]}


def test_a_scorer_that_does_not_take_the_changes_is_named_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path, "sweep", SWEEP)
    complaint = str(load_sweeps(tmp_path, ["process=absorbing"])["sweep"].refused["sweep.uniform.s0"])
    assert f"{KEY}: 'sweep.left' cannot be taken" in complaint
    assert complaint.endswith("; overrides hold for this cell too, which is in the same file")


def test_the_scorer_comes_first(tmp_path: Path) -> None:
    write(tmp_path, "sweep", SWEEP)
    selected = select_cells(load_sweeps(tmp_path), ["sweep.uniform.s1"])
    assert [cell.key for cell in with_ancestors(selected)] == ["sweep.left.s1", "sweep.uniform.s1"]


def test_a_record_is_read_back_with_its_scorer_and_without_folders(tmp_path: Path) -> None:
    write(tmp_path, "sweep", SWEEP)
    for cell in cells(tmp_path).values():
        experiment = cell.experiment
        again = resolve_recorded(experiment.to_dict(), "manifest.json")
        assert experiment_fingerprints(again) == experiment_fingerprints(experiment)
        there = located(experiment, {KEY: tmp_path})
        assert there.evaluation.measurements[1]["scorer"]["of"]["folder"] == str(tmp_path)
        assert unlocated(there) == experiment
