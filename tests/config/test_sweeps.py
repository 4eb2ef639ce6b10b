"""Experiment files: inheritance, axes, cells, overrides, and the sentence each mistake gets."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sumi_core.base.options import ConfigError
from sumi_core.data import SOURCES
from sumi_core.experiments.budget import training_flops_per_token
from sumi_core.experiments.files import ExperimentFiles
from sumi_core.experiments.layered import SHIPPED
from sumi_core.experiments.sweeps import Sweep, load_sweep, load_sweeps, parse_overrides, select_cells, split_arguments

Write = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "experiments"
    made.mkdir()
    return made


@pytest.fixture
def write(folder: Path) -> Write:
    def put(name: str, text: str = "") -> Path:
        file = folder / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        return file

    return put


def load(file: Path, *overrides: str) -> Sweep:
    folder = next(parent for parent in file.parents if parent.name == "experiments")
    return load_sweep(file, folder, overrides)


def complaint(function: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        function()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- one file -------------------------------------------------------------------------------------------------------


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
        ("budget:", "budget: expected tokens, flops or total_flops, got neither"),
        ("budget: {tokens: 4096, flops: 1e9}", "budget: expected tokens, flops or total_flops, got tokens and flops"),
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


# --- inheritance ----------------------------------------------------------------------------------------------------


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


# --- axes -----------------------------------------------------------------------------------------------------------


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


# --- reference, groups, budget, cron, retries -----------------------------------------------------------------------

COMPARED = """
base: base/ground
budget: {tokens: 81920}
reference: uniform.linear
cron: "0 3 * * *"
retries: 3
axes:
  process: [uniform, absorbing]
  seed: [0, 1, 2]
  schedule: [linear, cosine]
"""


def test_cells_that_differ_in_their_seed_alone_are_a_group(write: Write) -> None:
    write("base/ground", "training: {steps: 7, warmup_steps: 5}\ncron: '@daily'\nretries: 9")
    sweep = load(write("grid", COMPARED))
    assert sweep.reference == "grid.uniform.linear"
    assert list(sweep.groups) == [f"grid.{p}.{s}" for p in ("uniform", "absorbing") for s in ("linear", "cosine")]
    for group, cells in sweep.groups.items():
        assert [cell.experiment.seed for cell in cells] == [0, 1, 2]
        assert {cell.group for cell in cells} == {group}
        first, *others = ({**cell.experiment.to_dict(), "seed": 0} for cell in cells)
        assert all(other == first for other in others)
    assert (
        load(write("named", COMPARED.replace("reference: ", "reference: named."))).reference == "named.uniform.linear"
    )


def test_options_are_a_files_own_and_have_defaults(write: Write) -> None:
    write("base/ground", "training: {steps: 7, warmup_steps: 5}\ncron: '@daily'\nretries: 9\nbudget: {tokens: 8192}")
    options = load(write("grid", COMPARED)).options
    assert (options.cron, options.retries, options.budget.tokens) == ("0 3 * * *", 3, 81920)
    plain = load(write("plain", "base: base/ground"))
    assert (plain.options.cron, plain.options.retries, plain.reference) == (None, 1, None)
    assert plain.cells[0].experiment.training.steps == 7
    assert list(plain.groups) == ["plain"]


def test_a_budget_decides_the_steps_of_every_cell(write: Write) -> None:
    write("base/ground", "training: {steps: 7, warmup_steps: 5, batch_size: 16}")
    file = write(
        "sizes",
        """
        base: base/ground
        budget: {tokens: 81920}
        axes:
          training.batch_size: [8, 16]
          shards.sequence_length: [64, 128]
        """,
    )
    spent = {}
    for cell in load(file).cells:
        training, length = cell.experiment.training, cell.experiment.shards.sequence_length
        spent[cell.key] = training.steps * training.batch_size * length
    assert set(spent.values()) == {81920}
    assert len(spent) == 4
    file = write("flops", "base: base/ground\nbudget: {flops: 1e13}\naxes: {model.preset: [nano, tiny]}")
    small, large = load(file).cells
    assert small.experiment.training.steps > 2 * large.experiment.training.steps
    for cell in (small, large):
        price = training_flops_per_token(cell.experiment, "flops.yaml") * 16 * 128
        assert cell.experiment.training.steps * price == pytest.approx(1e13, rel=0.01)


def test_the_command_line_changes_what_a_budget_buys_or_leaves_it(write: Write) -> None:
    file = write("one", "training: {warmup_steps: 5}\nbudget: {tokens: 81920}\naxes: {training.batch_size: [8, 16]}")
    assert [cell.experiment.training.steps for cell in load(file).cells] == [80, 40]
    longer = load(file, "shards.sequence_length=64")
    assert [cell.experiment.training.steps for cell in longer.cells] == [160, 80]
    assert [cell.experiment.training.steps for cell in load(file, "training.steps=9").cells] == [9, 9]
    refused = load(file, "shards.sequence_length=5000").refused["one.batch_size16"]
    assert str(refused).startswith(f"{file}: budget.tokens: 81920 are 1.024 steps of 80000, and whole steps miss it")


# --- overrides ------------------------------------------------------------------------------------------------------


def test_overrides_lie_on_top_and_are_remembered(write: Write) -> None:
    file = write("one", "training: {steps: 7, warmup_steps: 0}")
    (cell,) = load(file, "training.steps=9", "process.name=absorbing", "training.learning_rate=1e-4").cells
    assert (cell.experiment.training.steps, cell.experiment.training.learning_rate) == (9, 1e-4)
    assert cell.experiment.process == {"name": "absorbing"}
    assert cell.overrides == ("training.steps=9", "process.name=absorbing", "training.learning_rate=1e-4")


def test_overrides_are_read_like_files() -> None:
    assert parse_overrides(["evaluation.sampling_steps=[1, 2]", "training.steps=10", "process=null"]) == {
        "evaluation": {"sampling_steps": [1, 2]},
        "training": {"steps": 10},
        "process": None,
    }


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("training.stepz=1", "command line: training.stepz: unknown key; did you mean 'steps'?"),
        ("training=1", "command line: training: expected a mapping of keys, got 1"),
        ("base=other", "command line: base: unknown key; known: "),
        ("seed=[1", "command line: seed=[1: line 2: not valid YAML: did not find expected ',' or ']'"),
        ("seed", "command line: seed: expected key=value"),
    ],
)
def test_wrong_overrides(override: str, sentence: str) -> None:
    assert complaint(lambda: parse_overrides([override])).startswith(sentence)


METHODS = """
axes:
  method:
    uniform: {process: uniform}
    left: {process: null, objective: autoregressive, model.attention: causal}
"""


def test_an_override_that_one_cell_refuses_leaves_the_others_alone(write: Write, folder: Path) -> None:
    write("methods", METHODS)
    write("other", "training: {steps: 5, warmup_steps: 0}")
    sweeps = load_sweeps(folder, ["model.time_conditioning=adaln"])
    assert [cell.plain for cell in sweeps["methods"].cells] == ["methods.uniform"]
    assert [cell.plain for cell in select_cells(sweeps, ["methods.uniform"])] == ["methods.uniform"]
    sentence = (
        "command line: model.time_conditioning: objective 'autoregressive' has no noise level to condition on; "
        "write none (cell methods.left)"
    )
    assert complaint(lambda: select_cells(sweeps, ["methods"])) == sentence
    assert complaint(lambda: select_cells(sweeps, ["methods.l*"])) == sentence


def test_an_override_may_not_make_a_cells_name_untrue(write: Write, folder: Path) -> None:
    write("methods", METHODS)
    sweeps = load_sweeps(folder, ["process=absorbing"])
    assert complaint(lambda: select_cells(sweeps, ["methods.uniform"])) == (
        "command line: 'methods.uniform' is named for a key that these overrides change; choose another cell, "
        "or drop the override (cell methods.uniform)"
    )
    same = load_sweeps(folder, ["process=uniform"])
    assert [cell.plain for cell in same["methods"].cells] == ["methods.uniform"]


# --- many files -----------------------------------------------------------------------------------------------------


def test_files_below_base_serve_others_only(write: Write, folder: Path) -> None:
    write("base/ground", "seed: 3")
    write("deep/one", "base: base/ground")
    sweeps = load_sweeps(folder)
    assert list(sweeps) == ["one"]
    assert sweeps["one"].cells[0].experiment.seed == 3


def test_what_the_folder_may_hold(write: Write, folder: Path) -> None:
    nowhere = folder / "nowhere"
    assert complaint(lambda: load_sweeps(nowhere)) == (
        f"{nowhere}: there is no experiments folder; run sumi from a project, or name one in SUMI_PROJECT"
    )
    first, second = write("a/one"), write("b/one")
    sweeps = load_sweeps(folder)
    assert list(sweeps) == []
    taken = f"{second}: the name 'one' is taken by {first}; rename one of the files"
    assert complaint(lambda: select_cells(sweeps, ["one"])) == taken
    second.unlink()
    odd = write("c/o.ne")
    (folder / "one.yml").touch()
    sweeps = load_sweeps(folder)
    assert [cell.key for cell in select_cells(sweeps, ["one"])] == ["one"], "the name means the sound file"
    assert {file.name: str(error) for file, error in sweeps.broken.items()} == {
        "o.ne.yaml": f"{odd}: a file's name names its cells; use letters, digits, '_', '+' and '-'",
        "one.yml": f"{folder / 'one.yml'}: experiment files end in .yaml; rename it",
    }


def test_a_broken_file_hides_no_other_and_is_told_when_asked_for(write: Write, folder: Path) -> None:
    write("sound", "axes: {seed: [0, 1]}")
    file = write("torn", "training: {steps: [1")
    sweeps = load_sweeps(folder, ["training.batch_size=8"])
    assert list(sweeps) == ["sound"]
    for pattern in ("sound", "sound.s1", "s*", "*.s0"):
        assert select_cells(sweeps, [pattern])
    sentence = str(sweeps.broken[file])
    assert sentence.startswith(f"{file}: line 2: not valid YAML: ")
    for pattern in ("torn", "torn.s0", "t*", "*"):
        assert complaint(lambda pattern=pattern: select_cells(sweeps, [pattern])) == sentence
    missing = "experiments: sond: no experiment or cell has this name; did you mean 'sound'?"
    assert complaint(lambda: select_cells(sweeps, ["sond"])) == missing


def test_a_mistake_on_the_command_line_is_no_files(write: Write, folder: Path) -> None:
    write("sound")
    told = complaint(lambda: load_sweeps(folder, ["training.stepz=8"]))
    assert told == "command line: training.stepz: unknown key; did you mean 'steps'?"


@pytest.fixture
def two_sweeps(write: Write, folder: Path) -> dict[str, Sweep]:
    write("first", "axes: {seed: [0, 1], training.precision: [fp32, bf16]}")
    write("second", "axes: {seed: [0, 1]}")
    return load_sweeps(folder)


@pytest.mark.parametrize(
    ("patterns", "keys"),
    [
        (["second"], ["second.s0", "second.s1"]),
        (["second.s1", "second.s0"], ["second.s1", "second.s0"]),
        (["second.s1", "second"], ["second.s1", "second.s0"]),
        (["first.*.bf16"], ["first.s0.bf16", "first.s1.bf16"]),
        (["s*"], ["second.s0", "second.s1"]),
        (["*.s0*"], ["first.s0.fp32", "first.s0.bf16", "second.s0"]),
    ],
)
def test_names_and_globs_choose_cells(two_sweeps: dict[str, Sweep], patterns: list[str], keys: list[str]) -> None:
    assert [cell.key for cell in select_cells(two_sweeps, patterns)] == keys


def test_a_folder_is_named_by_a_glob(write: Write, folder: Path) -> None:
    write("deep/one", "axes: {seed: [0, 1]}")
    write("deep/two")
    write("three")
    sweeps = load_sweeps(folder)
    assert [cell.key for cell in select_cells(sweeps, ["deep/*"])] == ["one.s0", "one.s1", "two"]
    assert [cell.key for cell in select_cells(sweeps, ["deep/two"])] == ["two"]
    write("deep/torn", "modle: 5")
    sweeps = load_sweeps(folder)
    assert [cell.key for cell in select_cells(sweeps, ["deep/t[w]*"])] == ["two"]
    assert "torn.yaml: modle: unknown key" in complaint(lambda: select_cells(sweeps, ["deep/*"]))


def test_a_name_that_chooses_nothing(two_sweeps: dict[str, Sweep]) -> None:
    assert complaint(lambda: select_cells(two_sweeps, ["secund"])) == (
        "experiments: secund: no experiment or cell has this name; did you mean 'second'?"
    )
    assert complaint(lambda: select_cells(two_sweeps, ["zzz*"])) == (
        "experiments: zzz*: no experiment or cell has this name; known: first, second"
    )


def test_names_and_overrides_come_apart() -> None:
    assert split_arguments(["demo", "seed=1", "smoke"]) == (["demo", "smoke"], ("seed=1",))
    assert complaint(lambda: split_arguments(["seed=1"])) == (
        "command line: name at least one experiment, cell or glob; `sumi list` shows them"
    )


# --- corruption presets ---------------------------------------------------------------------------------------------


def test_a_corruption_preset_is_short_for_a_process_and_a_clock(write: Write) -> None:
    write("base/b", "process: absorbing\nclock: {name: spans, window: 0.9}\n")
    text = "base: base/b\naxes:\n  noise:\n    plain: {}\n    both: {corruption: structured}\n"
    text += "    narrow: {corruption: structured, clock.window: 0.25, process.late: 2}\n"
    plain, both, narrow = (cell.experiment for cell in load(write("a", text)).cells)
    assert plain.process == {"name": "absorbing"}
    assert both.process == {"name": "clustered", "late": 1.0}
    assert both.clock == {"name": "spans", "mean_length": 8.0, "window": 0.5, "conditioned": True}, (
        "over the base's, whole"
    )
    assert (narrow.process["late"], narrow.clock["window"]) == (2.0, 0.25)


def test_an_unknown_corruption_preset_is_refused_by_the_file_that_names_it(write: Write) -> None:
    file = write("a", "corruption: structure\n")
    assert complaint(lambda: load(file)) == (
        f"{file}: corruption: no preset is called 'structure'; did you mean 'structured'?"
    )


@pytest.mark.parametrize("beside", ["process: uniform", "process: null", "clock: shared"])
def test_a_corruption_preset_beside_something_else_is_refused(write: Write, beside: str) -> None:
    file = write("a", f"corruption: structured\n{beside}\n")
    assert "is written beside it; drop one of them" in complaint(lambda: load(file))


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


@pytest.mark.parametrize("order", [1, -1], ids=["name first", "name last"])
def test_options_on_the_command_line_belong_to_the_part_named_there(write: Write, order: int) -> None:
    (cell,) = load(write("a", "seed: 1\n"), *["process=clustered", "process.late=2"][::order]).cells
    assert cell.experiment.process == {**cell.experiment.process, "name": "clustered", "late": 2.0}


WEIGHT = "1" + "0" * 400


@pytest.mark.parametrize(
    "text",
    [
        "process: {name: [uniform]}",
        "process: {name: {a: 1}}",
        'training: {steps: "\\\\${seed}"}',
        f"training: {{learning_rate: {WEIGHT}}}",
        f"budget: {{tokens: {WEIGHT}}}",
        f"corpus: {{source: {{name: mixture, parts: [{{source: web-bible, weight: {WEIGHT}}}, {{source: byte}}]}}}}",
        f'cron: "{"1" * 6000} 0 * * *"',
        f"base: {'a' * 5000}",
        "seed: !!bool foo",
        "seed: !!timestamp foo",
    ],
)
def test_what_no_loader_expects_ends_in_a_sentence_and_hides_no_other(write: Write, folder: Path, text: str) -> None:
    file = write("odd", text + "\n")
    write("sound", "seed: 1\n")
    assert complaint(lambda: load(file)).startswith(str(file))
    assert set(load_sweeps(folder)) == {"sound"}


def test_a_mistake_that_nobody_foresaw_hides_no_other_file(
    write: Write, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = write("odd", "seed: 1\n")
    write("sound", "seed: 1\n")
    real = ExperimentFiles.sweep

    def broken(self: ExperimentFiles, file: Path) -> Sweep:
        if file == odd:
            raise ZeroDivisionError("?")
        return real(self, file)

    monkeypatch.setattr(ExperimentFiles, "sweep", broken)
    loaded = load_sweeps(folder)
    assert set(loaded) == {"sound"}
    assert "ZeroDivisionError" in str(loaded.broken[odd])


def test_a_conflict_names_the_file_that_brings_it_in_not_its_innocent_base(write: Write) -> None:
    write("low", "process: uniform\n")
    file = write("high", "base: low\nphases: {a: {objective: autoregressive}, b: {}}\n")
    assert complaint(lambda: load(file)).startswith(f"{file}: process: objective 'autoregressive' corrupts nothing")
    broken = write("broken", "process: {name: mixture, share: 5}\n")
    assert complaint(lambda: load(write("above", "base: broken\nseed: 2\n"))).startswith(f"{broken}: process.share")


def test_a_project_elsewhere_finds_the_shipped_bases_and_prefers_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "experiments"
    (folder / "base").mkdir(parents=True)
    (folder / "mine.yaml").write_text("base: base/nano-bible\n")
    shipped = load_sweep(folder / "mine.yaml", folder).cells[0].experiment
    assert shipped == load_sweep(SHIPPED / "base" / "nano-bible.yaml", SHIPPED).cells[0].experiment
    assert shipped.corpus.source["name"] == "web-bible"
    (folder / "base" / "nano-bible.yaml").write_text("training: {steps: 7, warmup_steps: 0}\n")
    assert load_sweep(folder / "mine.yaml", folder).cells[0].experiment.training.steps == 7
    (folder / "mine.yaml").write_text("base: base/nano-bibel\n")
    assert "did you mean 'base/nano-bible'?" in complaint(lambda: load_sweep(folder / "mine.yaml", folder))
    (folder / "mine.yaml").write_text("base: demo\n")  # an experiment, not a base
    assert "there is no" in complaint(lambda: load_sweep(folder / "mine.yaml", folder))


@pytest.mark.parametrize(
    ("written", "steps"), [("0.05", 10), ("7", 7), ("7.0", 7), ("'0.5'", 100), ("0", 0), ("0.0", 0), ("1", 1)]
)
def test_a_warm_up_below_one_is_a_fraction_of_the_steps(tmp_path: Path, written: str, steps: int) -> None:
    (tmp_path / "one.yaml").write_text(f"training: {{steps: 200, warmup_steps: {written}}}\n")
    found = load_sweep(tmp_path / "one.yaml", tmp_path).cells[0].experiment.training.warmup_steps
    assert (found, type(found)) == (steps, int)


def test_a_fraction_of_the_warm_up_is_of_the_budgets_steps_and_nothing_between_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    file.write_text("budget: {tokens: 4.096e6}\ntraining: {warmup_steps: 0.1, batch_size: 32}\n")
    training = load_sweep(file, tmp_path).cells[0].experiment.training
    assert (training.steps, training.warmup_steps) == (1000, 100)
    file.write_text("training: {warmup_steps: 1.5}\n")
    told = complaint(lambda: load_sweep(file, tmp_path))
    assert told.endswith("training.warmup_steps: expected whole steps or a fraction of them below 1, got 1.5")
