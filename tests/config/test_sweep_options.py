"""What a file says of all its cells: reference, groups, budget, cron, retries; and the short ways to say things."""

from __future__ import annotations

from pathlib import Path

import pytest

from sumi_core.experiments.budget import training_flops_per_token
from sumi_core.experiments.sweeps import load_sweep
from tests.config.sweep_files import Write, complaint, load

# --- reference, groups, budget, cron, retries -------------------------------------------------------------------------

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


# --- presets of corruption, fractions of the warm-up ------------------------------------------------------------------


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


def test_contrasts_are_pairs_of_groups(write: Write) -> None:
    write("base/ground", "training: {steps: 7, warmup_steps: 5}")
    named = "contrasts: [[uniform.cosine, grid.uniform.linear]]"
    assert load(write("grid", f"{COMPARED}{named}")).contrasts == (("grid.uniform.cosine", "grid.uniform.linear"),)
    for wrong, sentence in {
        "[[uniform.cosin, uniform.linear]]": "contrasts[0]: no cells are called 'uniform.cosin', without",
        "[[uniform.cosine, uniform.linear], [uniform.cosine]]": "contrasts[1]: expected the names of two different",
        "[[uniform.cosine, uniform.cosine]]": "contrasts[0]: expected the names of two different groups",
        "[uniform.cosine]": "contrasts: expected a list of lists, got",
    }.items():
        file = write("grid", f"{COMPARED}contrasts: {wrong}")
        assert sentence in complaint(lambda file=file: load(file))
