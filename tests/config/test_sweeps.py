"""Experiment files: inheritance, axes, cells, and the sentence each mistake gets."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sumi_core.data import SOURCES
from tests.config.sweep_files import Write, complaint, load

# --- one file ---------------------------------------------------------------------------------------------------------


def test_a_plain_file_is_a_sweep_of_one_cell(write: Write) -> None:
    sweep = load(write("one", "description: a test\ntraining: {steps: 7, warmup_steps: 0, learning_rate: 1e-4}"))
    assert (sweep.name, sweep.description, sweep.axes) == ("one", "a test", {})
    (cell,) = sweep.cells
    assert (cell.key, cell.sweep, cell.labels, cell.overrides) == ("one", "one", {}, ())
    assert (cell.experiment.training.steps, cell.experiment.training.learning_rate) == (7, 1e-4)


def test_labels_are_text_as_they_are_written(write: Write) -> None:
    text = """
        axes:
          tie:
            on: {model.tie_embeddings: true}
            off: {model.tie_embeddings: false}
          beta:
            0.9: {training.beta2: 0.9}
            0.90: {training.beta2: 0.95}
            1e3: {training.beta2: 0.99}
            null: {}
        reference: on.0.90
        """
    sweep = load(write("x", text))
    assert sweep.axes == {"tie": ["on", "off"], "beta": ["0.9", "0.90", "1e3", "null"]}
    assert [cell.key for cell in sweep.cells[:4]] == ["x.on.0.9", "x.on.0.90", "x.on.1e3", "x.on.null"]
    assert [cell.experiment.training.beta2 for cell in sweep.cells[:3]] == [0.9, 0.95, 0.99]
    assert sweep.options.reference == "x.on.0.90"
    one_axis = "axes: {beta: {0.9: {training.beta2: 0.9}, 0.90: {training.beta2: 0.95}}}\nreference: 0.90"
    assert load(write("y", one_axis)).options.reference == "y.0.90"


def test_values_that_are_one_are_refused(write: Write) -> None:
    file = write("x", "axes: {training.steps: [1e3, 1_000]}")
    assert complaint(lambda: load(file)) == f"{file}: axes.training.steps: 1000.0 and 1000 are one; remove one of them"
    file = write("y", "axes: {process: [uniform, {name: hybrid}, uniform]}")
    assert complaint(lambda: load(file)) == f"{file}: axes.process: 'uniform' is written twice; remove one of them"


def test_an_empty_file_is_the_default_experiment(write: Write) -> None:
    (cell,) = load(write("empty")).cells
    assert cell.experiment.process == {"name": "uniform"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("trainning: {}", "trainning: unknown key; did you mean 'training'?"),
        ("axis: {}", "axis: unknown key; did you mean 'axes'?"),
        ("training: {step: 3}", "training.step: unknown key; did you mean 'steps'?"),
        ("training: 5", "training: expected a mapping of keys, got 5"),
        ("description: 5", "description: expected text, got 5; put it in quotes"),
        ("training: {steps: x}", "training.steps: expected an integer, got 'x'"),
        ("process: uniforn", "process: no corruption process is called 'uniforn'; did you mean 'uniform'?"),
        ("axes: {}", "axes: expected at least one axis, written as name: [values] or name: {label: {key: value}}"),
        ("axes:", "axes: expected at least one axis, written as name: [values] or name: {label: {key: value}}"),
        ("axes: {seed: []}", "axes.seed: expected at least one value, as in [0, 1], got nothing"),
        ("axes: {seed: 3}", "axes.seed: expected at least one value, as in [0, 1], got 3"),
        ("axes: {seed: [0, 0]}", "axes.seed: 0 is written twice; remove one of them"),
        (
            "axes: {evaluation.temperature: [null, ~]}",
            "axes.evaluation.temperature: null is written twice; remove one of them",
        ),
        ("axes: {runtime.compile: [true, True]}", "axes.runtime.compile: true is written twice; remove one of them"),
        (
            f"axes: {{seed: {list(range(101))}, training.steps: {list(range(100, 200))}}}",
            "axes: make 10,100 cells, more than 10,000; write fewer or split them",
        ),
        ("axes: {sede: [0]}", "axes.sede: sede: unknown key; did you mean 'seed'?"),
        ("axes: {training.step: [3]}", "axes.training.step: training.step: unknown key; did you mean 'steps'?"),
        ("axes: {m: {a: {proces: uniform}}}", "axes.m.a: proces: unknown key; did you mean 'process'?"),
        ("training.steps: 7", "training.steps: unknown key; write it as training: {steps: …}"),
        ("base: [a, b]", "base: expected the name of one file below experiments/, got ['a', 'b']"),
        (
            "axes: {m: {a: {training: {steps: 5}, training.steps: 6}}}",
            "axes.m.a: the key 'training.steps' is written twice; remove one of them",
        ),
        (
            "axes: {m: {a: {process: uniform, process.name: unigram}}}",
            "axes.m.a: the key 'process' is written twice; remove one of them",
        ),
        (
            "axes: {m: {a: uniform}}",
            "axes.m.a: expected the keys this label sets, such as {process: uniform}, got 'uniform'",
        ),
        (
            "axes: {m: {a b: {seed: 1}}}",
            "axes.m: 'a b' cannot name a cell; use letters, digits, '_', '+', '-' and '.'",
        ),
        ("axes: {m: {a: {seed: -1}}}", "seed: must be at least 0, got -1"),
        ("seed: 1\nseed: 2", "line 2: not valid YAML: the key 'seed' is written twice"),
        ("refrence: a", "refrence: unknown key; did you mean 'reference'?"),
        ("reference: 5", "reference: no cells are called '5', without a seed; known: bad"),
        (
            "axes: {process: [uniform, absorbing], seed: [0, 1]}\nreference: unifrm",
            "reference: no cells are called 'unifrm', without a seed; did you mean 'uniform'?",
        ),
        (
            "axes: {process: [uniform, absorbing], seed: [0, 1]}\nreference: uniform.s0",
            "reference: no cells are called 'uniform.s0', without a seed; did you mean 'uniform'?",
        ),
        ("budget: 5", "budget: expected a mapping of keys, got 5"),
        ("budget:", "budget: expected tokens, supervised_tokens, flops or total_flops, got neither"),
        (
            "budget: {tokens: 4096, flops: 1e9}",
            "budget: expected tokens, supervised_tokens, flops or total_flops, got tokens and flops",
        ),
        ("budget: {token: 4096}", "budget.token: unknown key; did you mean 'tokens'?"),
        ("budget: {tokens: 0}", "budget.tokens: must be above 0, got 0"),
        (
            "budget: {tokens: 5e5}\ntraining: {steps: 5}",
            "training.steps: 'bad' has a budget, which decides its steps; remove training.steps or the budget",
        ),
        (
            "budget: {tokens: 5e5}\naxes: {training.steps: [5]}",
            "training.steps: 'bad.steps5' has a budget, which decides its steps; remove training.steps or the budget",
        ),
        (
            "budget: {tokens: 5e5}\ntraining: {warmup_steps: 200}",
            "training.warmup_steps: 200 warm-up steps exceed training.steps 122; set it to 122 or less too",
        ),
        (
            "cron: hourly",
            "cron: 'hourly' is not a cron expression; write minute hour day month weekday, as in 0 3 * * *",
        ),
        ("retries: -1", "retries: must be at least 0, got -1"),
        ("retries: 11", "retries: must be at most 10, got 11"),
        ("retries: 0.5", "retries: expected an integer, got 0.5"),
    ],
)
def test_each_mistake_has_its_sentence(write: Write, text: str, sentence: str) -> None:
    file = write("bad", text)
    assert complaint(lambda: load(file)) == f"{file}: {sentence}"


# --- inheritance ------------------------------------------------------------------------------------------------------


def test_a_file_lies_over_its_base_and_the_base_of_that(write: Write) -> None:
    write("base/ground", "training: {steps: 100, batch_size: 8}\nprocess: absorbing\nseed: 1")
    write("middle", "base: base/ground\ntraining: {steps: 200}\ndescription: middle\naxes: {seed: [4, 5]}")
    (cell,) = load(write("top", "base: middle\nprocess: uniform\ntraining:\n")).cells
    made = cell.experiment
    assert (made.training.steps, made.training.batch_size, made.seed) == (200, 8, 1)
    assert made.process == {"name": "uniform"}


def test_description_and_axes_are_a_files_own(write: Write) -> None:
    write("middle", "description: middle\naxes: {seed: [4, 5]}")
    sweep = load(write("top", "base: middle"))
    assert (sweep.description, sweep.axes, len(sweep.cells)) == ("", {}, 1)


def test_a_missing_base_is_named_with_the_nearest(write: Write, folder: Path) -> None:
    write("base/ground")
    file = write("top", "base: base/grund")
    missing = folder / "base/grund.yaml"
    assert complaint(lambda: load(file)) == f"{file}: base: there is no {missing}; did you mean 'base/ground'?"


def test_a_circle_of_bases_is_shown(write: Write) -> None:
    write("b", "base: c")
    c = write("c", "base: a")
    a = write("a", "base: b")
    assert complaint(lambda: load(a)) == f"{c}: base: a → b → c → a is a circle; remove one of these bases"
    own = write("own", "base: own")
    assert complaint(lambda: load(own)) == f"{own}: base: own → own is a circle; remove one of these bases"


def test_a_complaint_names_the_file_that_wrote_the_key(write: Write) -> None:
    base = write("base/ground", "training: {steps: 10, warmup_steps: 0}\nmodel: {num_heads: 3}")
    top = write("top", "base: base/ground\ntraining: {learning_rate: -1}")
    assert complaint(lambda: load(top)) == f"{top}: training.learning_rate: must be above 0, got -1"
    heads = "model.num_heads: 3 heads do not divide hidden_size 128; choose a divisor"
    fine = write("fine", "base: base/ground\ntraining: {learning_rate: 1}")
    assert complaint(lambda: load(fine)) == f"{base}: {heads}"
    assert complaint(lambda: load(fine, "model.num_heads=3")) == f"{base}: {heads}"


# --- axes -------------------------------------------------------------------------------------------------------------


def test_cells_are_the_product_of_the_axes_in_the_order_written(write: Write) -> None:
    sweep = load(
        write(
            "grid",
            """
            training: {warmup_steps: 1}
            axes:
              method:
                plain:
                masked: {process: absorbing, training.steps: 30}
                left: {process: null, objective: autoregressive, model.attention: causal}
              schedule: [linear, {name: cosine}]
              seed: [1, 0]
            """,
        )
    )
    assert [cell.key for cell in sweep.cells] == [
        f"grid.{method}.{schedule}.{seed}"
        for method, schedule, seed in itertools.product(["plain", "masked", "left"], ["linear", "cosine"], ["s1", "s0"])
    ]
    assert sweep.axes == {
        "method": ["plain", "masked", "left"],
        "schedule": ["linear", "cosine"],
        "seed": ["s1", "s0"],
    }
    cell = next(cell for cell in sweep.cells if cell.key == "grid.masked.cosine.s0")
    assert cell.labels == {"method": "masked", "schedule": "cosine", "seed": "s0"}
    made = cell.experiment
    assert (made.process, made.schedule, made.seed) == ({"name": "absorbing"}, {"name": "cosine"}, 0)
    assert made.training.steps == 30
    left = next(cell for cell in sweep.cells if cell.key == "grid.left.cosine.s1").experiment
    assert (left.process, left.schedule, left.model.attention) == (None, None, {"name": "causal"})


def test_numbers_are_labelled_with_their_key(write: Write) -> None:
    text = "axes: {training.learning_rate: [1e-3, 5e-05], model.num_layers: [2], training.precision: [bf16]}"
    keys = [cell.key for cell in load(write("n", text)).cells]
    assert keys == ["n.learning_rate0.001.num_layers2.bf16", "n.learning_rate5e-05.num_layers2.bf16"]


def test_a_part_that_an_axis_replaces_loses_its_old_options(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES._entries, "fake", "tests.config.parts:FakeSource")
    sweep = load(
        write(
            "parts",
            """
            corpus: {source: {name: fake, path: x, rows: 2}}
            axes:
              data:
                more: {corpus.source.rows: 9}
                other: {corpus.source: web-bible}
            """,
        )
    )
    more, other = (cell.experiment.corpus.source for cell in sweep.cells)
    assert (more["name"], more["path"], more["rows"]) == ("fake", "x", 9)
    assert other["name"] == "web-bible"
    assert "path" not in other


_sizes = st.lists(st.integers(1, 3), min_size=1, max_size=3)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_sizes)
def test_every_combination_is_one_cell(write: Write, sizes: list[int]) -> None:
    names = ["seed", "training.warmup_steps", "training.batch_size"]
    axes = {name: [index + 1 for index in range(size)] for name, size in zip(names, sizes, strict=False)}
    sweep = load(write("grid", f"axes: {axes}"))
    made = [
        (c.experiment.seed, c.experiment.training.warmup_steps, c.experiment.training.batch_size) for c in sweep.cells
    ]
    assert len({cell.key for cell in sweep.cells}) == len(sweep.cells)
    assert [m[: len(sizes)] for m in made] == list(itertools.product(*axes.values()))


# --- keys that meet ---------------------------------------------------------------------------------------------------


def test_a_key_without_its_section_is_recognised(write: Write) -> None:
    file = write("a", "steps: 30\n")
    assert complaint(lambda: load(file)) == f"{file}: steps: unknown key; did you mean 'training.steps'?"


@pytest.mark.parametrize(
    ("axes", "sentence"),
    [
        ("training.steps: [6, 7]\n  x: {a: {training.steps: 8}}", "'training.steps' and 'x' both set training.steps"),
        ("seed: [1, 2]\n  x: {a: {seed: 5}}", "'seed' and 'x' both set seed"),
        ("process: [uniform]\n  x: {a: {process: {name: clustered, late: 2}}}", "both set process"),
    ],
)
def test_two_axes_that_set_one_key_are_refused(write: Write, axes: str, sentence: str) -> None:
    file = write("a", f"axes:\n  {axes}\n")
    assert sentence in complaint(lambda: load(file))


@pytest.mark.parametrize("order", [1, -1], ids=["name first", "name last"])
def test_an_axis_may_set_an_option_of_another_axis_part(write: Write, order: int) -> None:
    axes = ["  process: [clustered]\n", "  process.late: [1, 2]\n"][::order]
    cells = load(write("a", "axes:\n" + "".join(axes))).cells
    assert [cell.experiment.process["late"] for cell in cells] == [1.0, 2.0]


def test_a_conflict_names_the_file_that_brings_it_in_not_its_innocent_base(write: Write) -> None:
    write("low", "process: uniform\n")
    file = write("high", "base: low\nphases: {a: {objective: autoregressive}, b: {}}\n")
    assert complaint(lambda: load(file)).startswith(f"{file}: process: objective 'autoregressive' corrupts nothing")
    broken = write("broken", "process: {name: mixture, share: 5}\n")
    assert complaint(lambda: load(write("above", "base: broken\nseed: 2\n"))).startswith(f"{broken}: process.share")
