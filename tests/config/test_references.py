"""Cells that take outputs of other cells, and phases: what the names mean, and what is refused."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from sumi_core.base.options import ConfigError
from sumi_core.experiments.references import ancestors, located, stage_refs
from sumi_core.experiments.resolve import resolve, resolve_for, resolve_recorded
from sumi_core.experiments.size import experiment_size
from sumi_core.experiments.sweeps import Cell, load_sweep, load_sweeps, select_cells, with_ancestors
from sumi_core.stages.identity import stage_fingerprint

Write = Callable[[str, str], Path]
CAUSAL = "process: null\nobjective: autoregressive\nmodel: {attention: causal}\n"
KEY = "model.initialiser.of"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(name: str, text: str) -> Path:
        file = tmp_path / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
        return file

    return written


def of(name: str) -> str:
    return f"model: {{initialiser: {{name: cell, of: {name}}}}}\n"


def cells(folder: Path, *overrides: str) -> dict[str, Cell]:
    sweeps = load_sweeps(folder, overrides)
    assert not sweeps.broken, sweeps.broken
    return {cell.plain: cell for sweep in sweeps.values() for cell in sweep.cells}


def parents(found: dict[str, Cell]) -> dict[str, list[str]]:
    return {key: [parent.key for parent in cell.parents] for key, cell in found.items() if cell.parents}


# --- names ----------------------------------------------------------------------------------------------------------


def test_a_name_is_that_of_a_cell_or_of_a_group_in_this_or_another_file(write: Write, tmp_path: Path) -> None:
    write("ar", f"{CAUSAL}axes: {{seed: [0, 1]}}")
    write("sub/single", CAUSAL)
    write("exact", of("ar.s1"))
    write("seeds", f"{of('ar')}axes: {{seed: [0, 1]}}")
    write("only", f"seed: 7\n{of('single')}")
    write(
        "own",
        """
        axes:
          start:
            scratch: {}
            other: {model.initialiser: {name: cell, of: own.scratch}}
          seed: [3, 4]
        """,
    )
    found = cells(tmp_path)
    assert parents(found) == {
        "exact": ["ar.s1"],
        "seeds.s0": ["ar.s0"],
        "seeds.s1": ["ar.s1"],
        "only": ["single"],
        "own.other.s3": ["own.scratch.s3"],
        "own.other.s4": ["own.scratch.s4"],
    }
    (ref,) = stage_refs(found["exact"].experiment)
    assert (ref.key, ref.cell, ref.stage) == (KEY, "ar.s1", "pretrained_denoiser")
    assert ref.experiment == found["ar.s1"].experiment


def test_one_file_reads_only_those_that_it_names(write: Write, tmp_path: Path) -> None:
    write("ar", CAUSAL)
    write("torn", "modle: {}")
    (cell,) = load_sweep(write("child", of("ar")), tmp_path).cells
    assert [parent.key for parent in cell.parents] == ["ar"]


def test_a_resolved_experiment_is_whole_by_itself(write: Write, tmp_path: Path) -> None:
    write("a", CAUSAL)
    write("b", of("a"))
    write("c", of("b"))
    experiment = cells(tmp_path)["c"].experiment
    again = resolve_recorded(experiment.to_dict(), "manifest.json")
    assert again == experiment
    assert [ref.cell for ref in ancestors(again)] == ["a", "b"]
    folders = located(experiment, {KEY: tmp_path})
    assert folders.model.initialiser["of"]["folder"] == str(tmp_path.resolve())
    assert "folder" not in experiment.model.initialiser["of"]
    assert folders.identity() == experiment.identity()


def test_a_parents_evaluation_may_name_parts_that_are_gone(write: Write, tmp_path: Path) -> None:
    """The child is made from the parent's weights, which no measurement decides."""
    write("a", CAUSAL)
    write("b", of("a"))
    write("c", of("b"))
    experiment = cells(tmp_path)["c"].experiment
    record = experiment.to_dict()
    parent = record["model"]["initialiser"]["of"]["experiment"]
    for own in (parent, parent["model"]["initialiser"]["of"]["experiment"]):
        own["evaluation"]["measurements"].append({"name": "mine"})
        own["evaluation"]["sampler"] = {"name": "mine"}
    again = resolve_recorded(record, "manifest.json")
    assert [ref.cell for ref in ancestors(again)] == ["a", "b"]
    assert stage_fingerprint(again, "evaluation") == stage_fingerprint(experiment, "evaluation")
    own["training"]["steps"] = 0
    with pytest.raises(ConfigError, match=r"manifest\.json: .*\(b\): .*\(a\): training\.steps: must be at least 1"):
        resolve_recorded(record, "manifest.json")


def test_for_the_sake_of_an_evaluation_a_record_is_taken_as_it_is() -> None:
    record = resolve({}, "a.yaml").to_dict()
    record["evaluation"]["metrics"].append({"name": "mine"})
    with pytest.raises(ConfigError, match=r"evaluation\.metrics\[4\]: no sample metric is called 'mine'"):
        resolve_for("evaluation", record, "manifest.json")
    assert resolve_for("exported_model", record, "manifest.json") == resolve({}, "a.yaml")


def test_runtime_and_places_of_the_parent_are_no_part_of_the_recipe(write: Write, tmp_path: Path) -> None:
    write("a", "runtime: {log_every: 1}")
    write("b", of("a"))
    before = cells(tmp_path)["b"].experiment
    write("a", "runtime: {log_every: 2}")
    after = cells(tmp_path)["b"].experiment
    assert before != after
    assert before.recipe() == after.recipe()
    write("a", "training: {steps: 900}")
    assert cells(tmp_path)["b"].experiment.recipe() != before.recipe()


def test_cells_of_one_method_differ_in_their_seeds_and_those_of_their_parents(write: Write, tmp_path: Path) -> None:
    write("ar", f"{CAUSAL}axes: {{seed: [0, 1]}}")
    write("child", f"{of('ar')}axes: {{seed: [0, 1]}}")
    found = cells(tmp_path)
    first, second = found["child.s0"].experiment, found["child.s1"].experiment
    assert first.recipe() != second.recipe()
    assert first.method() == second.method()


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("model: {initialiser: cell}", f"{KEY}: is missing; write the name of a cell, such as demo.uniform"),
        ("model: {initialiser: {name: cell, of: 3}}", f"{KEY}: expected the name of a cell, got '3'"),
        (of("arr.s0"), f"{KEY}: no experiment is called 'arr'; did you mean 'ar'?"),
        (of("ar.s7"), f"{KEY}: no cell is called 'ar.s7'; did you mean 'ar.s1'?"),
        (of("grid"), f"{KEY}: 'grid' has 2 cells (grid.a, grid.b); name one of them, or a group of seeds"),
        (f"seed: 5\n{of('ar')}", f"{KEY}: 'ar' has no cells of seed 5 (ar.s0, ar.s1); name one of them"),
        (of("child"), f"{KEY}: child → child is a circle; start one of these cells from another"),
        (of("back"), f"{KEY}: child → back → child is a circle; start one of these cells from another"),
        (of("torn"), f"{KEY}: 'torn' cannot be taken, since {{folder}}/torn.yaml: modle: unknown key; "),
        (of("same"), f"{KEY}: 'same' could be in one/same.yaml and two/same.yaml; rename one of them"),
        (
            "model: {num_layers: 7, initialiser: {name: cell, of: ar}}",
            "model.num_layers: is 7, and 4 in 'ar.s0', where the weights start; set it to 4",
        ),
        (
            "model: {rope_theta: 5e5, initialiser: {name: cell, of: ar}}",
            "model.rope_theta: is 500000.0, and 10000.0 in 'ar.s0', where the weights start; set it to 10000.0",
        ),
        (of("timed"), "model.time_conditioning: is none, and token in 'timed', where the weights start"),
        (of("normed"), "model.qk_norm: is false, and true in 'normed', where the weights start; set it to true"),
        (f"tokenizer: bpe\n{of('ar')}", "tokenizer: is not that of 'ar.s0', whose weights know its tokens only"),
        (
            f"corpus: {{validation_fraction: 0.2}}\ntokenizer: bpe\n{of('bpe')}",
            "corpus: is not that of 'bpe', where the weights start, and a bpe tokenizer that learns from another",
        ),
    ],
)
def test_each_mistake_is_one_sentence(write: Write, tmp_path: Path, text: str, sentence: str) -> None:
    write("ar", f"{CAUSAL}axes: {{seed: [0, 1]}}")
    write("grid", "axes: {time: {a: {}, b: {training.steps: 7}}}\ntraining: {warmup_steps: 0}")
    write("back", of("child"))
    write("torn", "modle: {}")
    write("one/same", "seed: 0")
    write("two/same", "seed: 0")
    write("timed", "model: {time_conditioning: token}")
    write("normed", "model: {qk_norm: true}")
    write("bpe", "tokenizer: bpe")
    file = write("child", text)
    error = load_sweeps(tmp_path).broken[file]
    assert str(error).startswith(f"{file}: " + sentence.replace("{folder}", str(tmp_path)))
    assert "\n" not in str(error)


def test_a_record_holds_the_recipe_and_a_file_the_name() -> None:
    with pytest.raises(ConfigError, match=rf"{KEY}: expected a cell with its resolved experiment, got 'ar'"):
        resolve({"model": {"initialiser": {"name": "cell", "of": "ar"}}}, "manifest.json")


def test_data_lengths_attention_and_objective_may_differ(write: Write, tmp_path: Path) -> None:
    write("ar", CAUSAL)
    changes = "corpus: {validation_fraction: 0.2}\nshards: {sequence_length: 512}\n"
    write("child", f"{changes}model: {{time_conditioning: adaln, qk_norm: true, initialiser: {{name: cell, of: ar}}}}")
    assert parents(cells(tmp_path)) == {"child": ["ar"]}


# --- overrides ------------------------------------------------------------------------------------------------------


def test_changes_hold_for_a_file_and_of_others_for_the_runtime(write: Write, tmp_path: Path) -> None:
    write("far", CAUSAL)
    write(
        "near",
        "axes: {start: {a: {}, b: {model.initialiser: {name: cell, of: near.a}}, c: {model.initialiser: "
        "{name: cell, of: far}}}}",
    )
    found = cells(tmp_path, "training.steps=900", "runtime.threads=3")
    near, far = found["near.b"].parents[0], found["near.c"].parents[0]
    assert near == found["near.a"]
    assert (near.experiment.training.steps, near.experiment.runtime.threads) == (900, 3)
    assert (far.experiment.training.steps, far.experiment.runtime.threads) == (1000, 3)
    assert far.overrides == ("runtime.threads=3",)


def test_changes_that_do_not_fit_a_parent_refuse_its_children_too(write: Write, tmp_path: Path) -> None:
    write(
        "near",
        "axes: {kind: {a: {training.warmup_steps: 50}, b: {training.warmup_steps: 1, model.initialiser: "
        "{name: cell, of: near.a}}}}",
    )
    sweeps = load_sweeps(tmp_path, ["training.steps=20"])
    assert sweeps["near"].refused.keys() == {"near.a", "near.b"}
    with pytest.raises(ConfigError, match=r"'near.a' cannot be taken, since .*50 warm-up steps exceed"):
        select_cells(sweeps, ["near.b"])


def test_ancestors_come_first_and_once(write: Write, tmp_path: Path) -> None:
    write("a", CAUSAL)
    write("b", of("a"))
    write("c", of("b"))
    write("d", of("a"))
    sweeps = load_sweeps(tmp_path)
    assert [cell.key for cell in with_ancestors(select_cells(sweeps, ["c", "a", "d"]))] == ["a", "b", "c", "d"]


# --- phases ---------------------------------------------------------------------------------------------------------

PHASES = """
    training: {learning_rate: 1e-3}
    phases:
      pretraining: {process: absorbing}
      midtraining: {shards.sequence_length: 256, training: {learning_rate: 1e-4}}
      ending: {corpus.validation_fraction: 0.2}
    axes:
      model.tie_embeddings: [true, false]
      seed: [0, 1]
"""


def test_phases_chain_the_cells_that_agree_in_all_else(write: Write, tmp_path: Path) -> None:
    write("recipe", PHASES)
    found = cells(tmp_path)
    assert len(found) == 12
    for tied in ("tie_embeddingsTrue", "tie_embeddingsFalse"):
        for seed in ("s0", "s1"):
            keys = [f"recipe.{phase}.{tied}.{seed}" for phase in ("pretraining", "midtraining", "ending")]
            assert [parents(found).get(key, []) for key in keys] == [[], [keys[0]], [keys[1]]]
            assert found[keys[2]].labels == {"phase": "ending", "model.tie_embeddings": tied, "seed": seed}
            assert found[keys[2]].group == f"recipe.ending.{tied}"
    first, second, third = (
        found[f"recipe.{phase}.tie_embeddingsTrue.s0"].experiment for phase in ("pretraining", "midtraining", "ending")
    )
    assert first.model.initialiser == {"name": "random"}
    assert [e.process["name"] for e in (first, second, third)] == ["absorbing", "uniform", "uniform"]  # type: ignore[index]
    assert [e.shards.sequence_length for e in (first, second, third)] == [128, 256, 128]
    assert [e.training.learning_rate for e in (first, second, third)] == [1e-3, 1e-4, 1e-3]


def test_the_first_phase_starts_where_the_file_says(write: Write, tmp_path: Path) -> None:
    write("ar", CAUSAL)
    write("recipe", f"{of('ar')}phases: {{a: {{}}, b: {{}}}}\n")
    assert parents(cells(tmp_path)) == {"recipe.a": ["ar"], "recipe.b": ["recipe.a"]}


def test_the_command_line_does_not_break_a_chain(write: Write, tmp_path: Path) -> None:
    write("recipe", "phases: {a: {}, b: {}}")
    refused = load_sweeps(tmp_path, ["model.initialiser=random"])["recipe"].refused
    assert "named for a key that these overrides change" in str(refused["recipe.b"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("phases:", "phases: expected at least one phase, written as name: {key: value}, got None"),
        ("phases: [a, b]", "phases: expected at least one phase, written as name: {key: value}, got ['a', 'b']"),
        ("phases: {a: 3}", "phases.a: expected the keys this label sets, such as {process: uniform}, got 3"),
        ("phases: {a: {stepz: 1}}", "phases.a: stepz: unknown key; "),
        ("phases: {a b: {}}", "phases: 'a b' cannot name a cell; "),
        (
            "phases: {a: {}, b: {model.initialiser: random}}",
            "phases.b: a phase starts from the one before it; remove model.initialiser, or write it in the file",
        ),
        (
            "phases: {a: {}, b: {model: {initialiser: {name: exported, folder: x}}}}",
            "phases.b: a phase starts from the one before it; ",
        ),
        (
            "phases: {a: {}}\naxes: {phase: {x: {}}}",
            "axes.phase: is the axis that phases make; call this one otherwise",
        ),
        (
            "phases: {a: {seed: 1}}\naxes: {seed: [0, 1]}",
            "axes: 'phase' and 'seed' both set seed; let one of them do it",
        ),
        ("phases: {a: {}, b: {tokenizer: bpe}}", "tokenizer: is not that of 'child.a', whose weights know its tokens"),
        (
            "phases: {a: {}, b: {}}\nbudget: {total_flops: 1e15}",
            "budget.total_flops: every cell of this file has the same budget, and 'child.a', which another one starts "
            "from, spends all of it; write budget: {flops: …}, which counts each cell by itself, or move 'child.a' to "
            "a file of its own",
        ),
    ],
)
def test_each_mistake_of_phases_is_one_sentence(write: Write, tmp_path: Path, text: str, sentence: str) -> None:
    file = write("child", text)
    error = str(load_sweeps(tmp_path).broken[file])
    assert error.startswith(f"{file}: {sentence}")
    assert "\n" not in error


def test_phases_are_not_inherited(write: Write, tmp_path: Path) -> None:
    write("recipe", "phases: {a: {}, b: {}}")
    write("heir", "base: recipe")
    assert "heir" in cells(tmp_path)


# --- cost -----------------------------------------------------------------------------------------------------------


def test_flops_add_up_along_a_chain(write: Write, tmp_path: Path) -> None:
    write("a", f"training: {{steps: 700}}\n{CAUSAL}")
    write("b", f"training: {{steps: 500}}\n{of('a')}")
    write("c", f"training: {{steps: 300}}\nshards: {{sequence_length: 256}}\n{of('b')}")
    sizes = {key: experiment_size(cell.experiment, 257) for key, cell in cells(tmp_path).items()}
    assert sizes["a"].total_flops == sizes["a"].flops > 0
    assert sizes["b"].total_flops == sizes["a"].flops + sizes["b"].flops
    assert sizes["c"].total_flops == pytest.approx(sum(size.flops for size in sizes.values()))


def test_what_is_advised_for_a_total_of_phases_works(write: Write, tmp_path: Path) -> None:
    write("recipe", "phases: {a: {}, b: {}}\nbudget: {flops: 1e15}")
    sizes = [experiment_size(cell.experiment, 257).flops for cell in cells(tmp_path).values()]
    assert sizes == [pytest.approx(1e15, rel=1e-2)] * 2
    write("recipe", "training: {steps: 300}")
    write("after", f"{of('recipe')}budget: {{total_flops: 1e15}}")
    assert experiment_size(cells(tmp_path)["after"].experiment, 257).total_flops == pytest.approx(1e15, rel=1e-2)


@pytest.mark.parametrize("total", ["1e15", "1.3e15", "5e12"])
def test_a_total_is_refused_wherever_a_cell_starts_from_one_of_its_file(
    write: Write, tmp_path: Path, total: str
) -> None:
    """Rounding to whole steps may leave a step of the budget: the child would spend that one alone."""
    axes = "axes: {start: {x: {}, y: {model.initialiser: {name: cell, of: own.x}}}}"
    file = write("own", f"budget: {{total_flops: {total}}}\n{axes}")
    assert "'own.x', which another one starts from, spends all of it" in str(load_sweeps(tmp_path).broken[file])
    assert load_sweep(write("own", f"training: {{steps: 300}}\n{axes}"), tmp_path).cells


def test_a_budget_of_total_flops_leaves_a_child_what_its_parents_did_not_spend(write: Write, tmp_path: Path) -> None:
    write("ar", f"training: {{steps: 700}}\n{CAUSAL}")
    file = write(
        "fair",
        """
        budget: {total_flops: 1e15}
        axes:
          start:
            scratch: {}
            converted: {model.initialiser: {name: cell, of: ar}}
        """,
    )
    found = cells(tmp_path)
    sizes = {key: experiment_size(cell.experiment, 257) for key, cell in found.items()}
    assert sizes["fair.converted"].total_flops == pytest.approx(1e15, rel=1e-3)
    assert sizes["fair.scratch"].total_flops == pytest.approx(1e15, rel=1e-3)
    assert sizes["fair.scratch"].flops - sizes["fair.converted"].flops == pytest.approx(sizes["ar"].flops, rel=1e-2)
    little = sizes["ar"].flops + 0.5 * sizes["ar"].flops / 700  # half a step more
    file.write_text(file.read_text().replace("1e15", f"{little}"))
    assert str(load_sweeps(tmp_path).broken[file]) == (
        f"{file}: budget.total_flops: the cells that this one starts from spend {sizes['ar'].flops:.6g} of "
        f"{little:.6g}, so no step is left for it; write more"
    )
