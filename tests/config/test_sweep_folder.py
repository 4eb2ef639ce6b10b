"""Many experiment files, what is chosen among them, and what the command line lays over them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sumi_core.experiments.files import ExperimentFiles
from sumi_core.experiments.layered import SHIPPED
from sumi_core.experiments.sweeps import Sweep, load_sweep, load_sweeps, parse_overrides, select_cells, split_arguments
from tests.config.sweep_files import Write, complaint, load

# --- overrides --------------------------------------------------------------------------------------------------------


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


# --- many files -------------------------------------------------------------------------------------------------------


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


# --- mistakes that nobody foresees ------------------------------------------------------------------------------------


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
