"""Names of cells that the command line changed: a name of their own, that every command reads back."""

from __future__ import annotations

from pathlib import Path

import pytest
from dagster import StaticPartitionsDefinition
from hypothesis import given
from hypothesis import strategies as st

from sumi_core.base.options import ConfigError
from sumi_core.experiments.changed_names import (
    change_suffix,
    deciding_changes,
    is_changed_name,
    is_override,
    is_shortened,
    split_name,
)
from sumi_core.experiments.sweeps import load_sweeps, select_cells, split_arguments
from sumi_core.lineage.changed_cells import ChangedCells


@pytest.mark.parametrize(
    ("overrides", "suffix"),
    [
        ((), ""),
        (("runtime.threads=3", "runtime={device: cpu}"), ""),
        (("training.steps=6",), "[training.steps=6]"),
        (("training.steps=6", "runtime.threads=3", "seed=1"), "[seed=1,training.steps=6]"),
        (("training.steps=6", "training.steps=7"), "[training.steps=7]"),
        (("evaluation.sampling_steps=[4,8]", "seed=1"), "[evaluation.sampling_steps=[4,8],seed=1]"),
        (("process={name: clustered, late: 2}",), "[process={name: clustered, late: 2}]"),
    ],
)
def test_a_name_holds_what_decides_a_result_in_any_order(overrides: tuple[str, ...], suffix: str) -> None:
    assert change_suffix(overrides) == change_suffix(overrides[:-1] + overrides[-1:]) == suffix
    if suffix:
        assert split_name(f"demo.s0{suffix}") == ("demo.s0", deciding_changes(overrides))
        assert is_changed_name(f"demo.s0{suffix}")
        assert not is_override(f"demo.s0{suffix}")


@pytest.mark.parametrize("value", ["a,b", "]", "[", "'x'", '"a b"', "a\nb", "a...b", "a|b", "x" * 90, " a", "~1", "\\"])
def test_a_value_that_a_name_cannot_hold_is_shortened(value: str) -> None:
    suffix = change_suffix([f"corpus.source.path={value}"])
    plain, changes = split_name(f"demo{suffix}")
    assert (plain, is_shortened(changes), len(changes)) == ("demo", True, 1)
    assert suffix != change_suffix([f"corpus.source.path={value}!"])


@given(st.lists(st.text(max_size=80), min_size=1, max_size=6))
def test_any_changes_give_a_name_that_dagster_and_mlflow_take_and_that_is_read_back(values: list[str]) -> None:
    overrides = [f"corpus.k{number}={value}" for number, value in enumerate(values)]
    name = f"demo{change_suffix(overrides)}"
    StaticPartitionsDefinition([name])
    assert len(name) <= 160
    assert name.isprintable()
    assert not set(name) & set("'\"`\\|")
    plain, changes = split_name(name)
    assert plain == "demo"
    assert is_shortened(changes) or changes == deciding_changes(overrides)
    assert split_arguments([name, *overrides]) == ([name], tuple(overrides))


@pytest.mark.parametrize("glob", ["demo.s[01]", "demo.[a-c]*", "demo", "*"])
def test_globs_are_no_changed_names(glob: str) -> None:
    assert not is_changed_name(glob)
    assert split_name(glob) == (glob, ())


# --- cells and sweeps -----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "experiments").mkdir()
    text = "axes: {method: {a: {}, b: {process: absorbing}}, seed: [0, 1]}\nreference: a\n"
    (tmp_path / "experiments" / "demo.yaml").write_text(text)
    return tmp_path / "experiments"


def test_cells_groups_sweeps_and_references_carry_the_change(folder: Path) -> None:
    sweeps = load_sweeps(folder, ["training.steps=600", "runtime.threads=2"])
    sweep, change = sweeps["demo"], "[training.steps=600]"
    assert (sweep.name, sweep.key, sweep.reference) == ("demo", f"demo{change}", f"demo.a{change}")
    assert list(sweep.groups) == [f"demo.a{change}", f"demo.b{change}"]
    cell = select_cells(sweeps, ["demo.a.s1"])[0]
    assert (cell.key, cell.plain, cell.sweep, cell.sweep_key) == (
        f"demo.a.s1{change}",
        "demo.a.s1",
        "demo",
        f"demo{change}",
    )
    assert cell.request == "demo.a.s1 training.steps=600 runtime.threads=2"
    assert sweeps.of(cell) is sweep


def test_a_changed_name_selects_beside_plain_ones(folder: Path) -> None:
    sweeps = load_sweeps(folder)
    found = select_cells(sweeps, ["demo.a.s0", "demo.a.s0[training.steps=600]"])
    assert [cell.key for cell in found] == ["demo.a.s0", "demo.a.s0[training.steps=600]"]
    assert [cell.experiment.training.steps for cell in found] == [1000, 600]
    assert [sweeps.of(cell).key for cell in found] == ["demo", "demo[training.steps=600]"]
    assert len(select_cells(sweeps, ["demo[training.steps=600]"])) == 4, "a sweep's changed name means all of its cells"


def test_a_shortened_name_is_read_from_what_the_project_remembers(folder: Path, tmp_path: Path) -> None:
    memory = ChangedCells(tmp_path / "changed.json", tmp_path / "locks")
    overrides = ["evaluation.sampling_steps=[" + ", ".join(map(str, range(1, 40))) + "]"]
    [cell] = select_cells(load_sweeps(folder, overrides), ["demo.a.s0"])
    sweeps = load_sweeps(folder, remembered=memory.names)
    with pytest.raises(ConfigError, match=r"newest changed cells only; write demo\.a\.s0, and after it each key=value"):
        select_cells(sweeps, [cell.key])
    given = load_sweeps(folder, overrides, remembered=memory.names)
    for name in (cell.key, cell.sweep_key):  # with its changes beside it, a name needs no memory
        assert select_cells(given, [name])[0].experiment == cell.experiment
    memory.remember([cell, *select_cells(sweeps, ["demo.a.s1"])])
    assert [known.name for known in memory.read()] == [cell.key], "what was not changed is in the files"
    [found] = select_cells(sweeps, [cell.key])
    assert (found.key, found.experiment) == (cell.key, cell.experiment)
    assert [other.plain for other in select_cells(sweeps, [cell.sweep_key])][:1] == ["demo.a.s0"]


def test_the_newest_are_remembered_and_all_that_is_asked_for_at_once(folder: Path, tmp_path: Path) -> None:
    memory = ChangedCells(tmp_path / "changed.json", tmp_path / "locks")
    for steps in range(501, 521):
        memory.remember(load_sweeps(folder, [f"training.steps={steps}"])["demo"].cells)
    assert len(memory.read()) == 50 + 4
    assert memory.read()[-1].overrides == ("training.steps=520",)
    memory.remember(load_sweeps(folder, ["training.steps=520"])["demo"].cells)
    assert len({known.name for known in memory.read()}) == len(memory.read()) == 50 + 4


def test_a_damaged_memory_is_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "changed.json").write_text('[{"name": 1}]')
    memory = ChangedCells(tmp_path / "changed.json", tmp_path / "locks")
    assert memory.read() == []
    assert memory.names() == {}
