"""Cells side by side, as data: figures, differences, ranks, and the yardsticks among them.

One row type, whoever asks: the report of a sweep reads its figures from the store, `sumi compare` from MLflow.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.evaluation.comparison import (
    SIGNIFICANCE,
    CellLikelihood,
    Difference,
    all_differences,
    oriented,
    paired_interval,
    ranks,
)
from sumi_core.evaluation.rendering import counted

if TYPE_CHECKING:
    from sumi_core.lineage.store import Artifact
    from sumi_core.sweeps import Cell

TRAINING_FIGURES = ("parameters", "tokens_seen", "flops", "seconds", "tokens_per_second")


@dataclass
class Row:
    """A cell or a yardstick. In JSON and CSV its columns are these names; None is null, or empty.

    kind, name              ``cell`` or ``yardstick``, and what it is called
    state, why              of a cell, as `sumi list` tells: done, failed, stale …, and why
    labels                  axis → label of a cell; in CSV one column ``axis.<axis>`` each
    objective … seed        what was trained
    exact                   whether bits_per_byte is exact (true) or an upper bound (false)
    bits_per_byte, stderr   of the validation text, and one standard error over documents; None without figures
    mc_stderr               the part of that error which is Monte-Carlo noise
    rank                    1 + the number of cells that are significantly better
    reference               the cell that differences are taken to: the best, unless another was asked for
    difference              bits_per_byte minus that of the reference; above 0 is worse
    difference_stderr       its standard error: over documents and paired if ``paired``, else of independent figures
    difference_low_95, difference_high_95   bootstrap interval of a paired difference, not corrected
    p_adjusted              two-sided p of the difference, Holm-corrected over all pairs of cells in the comparison
    significant             whether p_adjusted < 0.05
    parameters              of the denoiser
    tokens_seen, flops     seen and spent in training (forward and backward)
    seconds, tokens_per_second   of training, by the clock
    fingerprint             of the evaluation
    mlflow_run_id           where the figures were read, if that was MLflow
    """

    kind: str
    name: str
    state: str = "done"
    why: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    objective: str | None = None
    process: str | None = None
    schedule: str | None = None
    seed: int | None = None
    exact: bool | None = None
    bits_per_byte: float | None = None
    stderr: float | None = None
    mc_stderr: float | None = None
    rank: int | None = None
    reference: str | None = None
    difference: float | None = None
    difference_stderr: float | None = None
    difference_low_95: float | None = None
    difference_high_95: float | None = None
    paired: bool | None = None
    p_adjusted: float | None = None
    significant: bool | None = None
    parameters: int | None = None
    tokens_seen: int | None = None
    flops: float | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    fingerprint: str | None = None
    mlflow_run_id: str | None = None

    @classmethod
    def of_cell(cls, cell: Cell, state: str, why: str) -> Row:
        """What is known of a cell before it is measured."""
        config = cell.experiment
        return cls(
            "cell",
            cell.key,
            state,
            why,
            labels=dict(cell.labels),
            objective=config.objective["name"],
            process=config.process["name"] if config.process else None,
            schedule=config.schedule["name"] if config.process else None,
            seed=config.seed,
        )

    @property
    def sign(self) -> str:
        """``=`` exact, ``≤`` an upper bound, nothing for a yardstick."""
        return {True: "=", False: "≤", None: ""}[self.exact]

    def flat(self) -> dict[str, Any]:
        """The row with a column for each axis."""
        plain = asdict(self)
        labels = plain.pop("labels")
        return {**plain, **{f"axis.{axis}": label for axis, label in labels.items()}}


@dataclass(frozen=True)
class Comparison:
    """Rows: cells from best to worst with the yardsticks in between, then cells without figures."""

    rows: list[Row]
    reference: str | None  # the cell that differences are taken to
    differences: list[Difference]
    overrides: tuple[str, ...] = ()  # what the command line changed in every cell

    @property
    def cell_rows(self) -> list[Row]:
        """The cells, those with figures first."""
        return [row for row in self.rows if row.kind == "cell"]

    def to_dict(self) -> dict[str, Any]:
        """Plain data without NaN, the standing's sentence included."""
        plain: dict[str, Any] = {
            "overrides": list(self.overrides),
            "reference": self.reference,
            "standing": standing(self),
            "rows": [asdict(row) for row in self.rows],
            "differences": [{**asdict(d), "significant": d.significant} for d in self.differences],
        }
        return dict(_without_nan(plain))

    def to_csv(self) -> str:
        """The rows as CSV."""
        flat = [row.flat() for row in self.rows]
        columns = list(dict.fromkeys([*_COLUMNS, *(name for row in flat for name in row)]))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_without_nan(flat))
        return text.getvalue()


def compare_rows(
    rows: Iterable[Row],
    likelihoods: Mapping[str, CellLikelihood],
    *,
    reference: str | None = None,
    overrides: tuple[str, ...] = (),
) -> Comparison:
    """Order the rows, rank their cells and take differences to the reference, where the likelihoods are at hand.

    reference: a cell; without it, or where it has no likelihoods, the best that has."""
    rows = list(rows)
    ordered = sorted((row for row in rows if row.bits_per_byte is not None), key=_figure)
    measured = {row.name: likelihoods[row.name] for row in ordered if row.kind == "cell" and row.name in likelihoods}
    differences = all_differences(measured)
    if reference not in measured:
        reference = next(iter(measured), None)
    places = ranks(measured, differences)
    for row in ordered:
        if row.kind == "cell" and row.name in measured and reference is not None:
            row.rank, row.reference = places[row.name], reference
            if row.name != reference:
                _add_difference(row, oriented(differences, row.name, reference), measured)
    absent = [row for row in rows if row.bits_per_byte is None]
    return Comparison([*ordered, *absent], reference, differences, overrides)


def _figure(row: Row) -> float:
    assert row.bits_per_byte is not None
    return row.bits_per_byte


def _add_difference(row: Row, d: Difference, likelihoods: Mapping[str, CellLikelihood]) -> None:
    row.difference, row.difference_stderr, row.paired = d.value, d.stderr, d.paired
    row.p_adjusted, row.significant = d.p_adjusted, d.significant
    if interval := paired_interval(likelihoods, d.first, d.second):
        row.difference_low_95, row.difference_high_95 = interval


def yardstick_rows(values: Mapping[str, Mapping[str, float]]) -> list[Row]:
    """Rows of ``{cell: {yardstick: bits per byte}}``: each yardstick once, or once for each of the values it has where
    cells differ in text or tokenizer."""
    found: dict[tuple[str, float], list[str]] = {}
    for key, yardsticks in values.items():
        for name, value in yardsticks.items():
            found.setdefault((name, round(value, 9)), []).append(key)
    names = [name for name, _ in found]
    return [
        Row("yardstick", name if names.count(name) == 1 else f"{name} ({', '.join(owners)})", bits_per_byte=value)
        for (name, value), owners in found.items()
    ]


def tied_with_best(comparison: Comparison) -> list[str]:
    """Cells that cannot be told apart from the best one, as far as their likelihoods are known."""
    best, *others = [row.name for row in comparison.cell_rows if row.rank is not None] or [""]
    return [key for key in others if not oriented(comparison.differences, best, key).significant]


def standing(comparison: Comparison) -> str:
    """The ranking in a sentence, with what the p-values are corrected for."""
    ranked = [row.name for row in comparison.cell_rows if row.rank is not None]
    if len(ranked) < 2:
        return f"{counted(len(ranked), 'cell')} evaluated: nothing to rank."
    pairs = len(comparison.differences)
    every = "the one pair" if pairs == 1 else f"all {pairs} pairs"
    level = f"at {SIGNIFICANCE:.0%}, p-values Holm-corrected over {every} of cells"
    lead = f"{ranked[0]} has the fewest bits per byte"
    if tied := tied_with_best(comparison):
        return f"{lead}, but cannot be told apart from {', '.join(tied)} ({level})."
    return f"{lead}, and every difference to it is significant ({level})."


# --- the cells of a sweep, from the store ---------------------------------------------------------------------------


@dataclass(frozen=True)
class ReportCell:
    """A cell and what is whole of it. ``state`` and ``why`` are those of the plan: done, failed, missing …"""

    cell: Cell
    state: str
    why: str
    corpus: Artifact | None = None
    pretrained_denoiser: Artifact | None = None
    exported_model: Artifact | None = None
    evaluation: Artifact | None = None

    @property
    def key(self) -> str:
        """The cell's name."""
        return self.cell.key


@dataclass(frozen=True, kw_only=True)
class SweepComparison(Comparison):
    """What the report of a sweep says."""

    name: str
    description: str
    cells: dict[str, ReportCell]  # those that are evaluated, best first


def compare_cells(
    name: str, description: str, cells: Sequence[ReportCell], reference: str | None = None
) -> SweepComparison:
    """Read what the evaluated cells of sweep ``name`` left and set it side by side."""
    done = {c.key: c for c in cells if c.evaluation is not None}
    likelihoods = {key: CellLikelihood.load(folder_of(c) / "likelihood.parquet") for key, c in done.items()}
    rows = [_cell_row(c) for c in cells]
    rows += yardstick_rows({key: figures_of(c)["yardsticks"] for key, c in done.items()})
    overrides = cells[0].cell.overrides if cells else ()
    made = compare_rows(rows, likelihoods, reference=reference, overrides=overrides)
    best_first = {row.name: done[row.name] for row in made.cell_rows if row.name in done}
    return SweepComparison(
        made.rows, made.reference, made.differences, overrides, name=name, description=description, cells=best_first
    )


def _cell_row(cell: ReportCell) -> Row:
    row = Row.of_cell(cell.cell, cell.state, cell.why)
    if cell.evaluation is not None:
        figures = figures_of(cell)
        row.state, row.why = "done", ""
        row.exact, row.fingerprint = figures["exact"], cell.evaluation.fingerprint
        row.bits_per_byte, row.stderr = figures["bits_per_byte"], figures["bits_per_byte_stderr"]
        row.mc_stderr = figures.get("bits_per_byte_mc_stderr")
    trained = cell.pretrained_denoiser.summary if cell.pretrained_denoiser else {}
    for name in TRAINING_FIGURES:
        setattr(row, name, trained.get(name))
    return row


def figures_of(cell: ReportCell) -> dict[str, Any]:
    """The summary of an evaluated cell."""
    assert cell.evaluation is not None
    return cell.evaluation.summary


def folder_of(cell: ReportCell) -> Path:
    """What the evaluation of a cell wrote."""
    assert cell.evaluation is not None
    return cell.evaluation.folder


def first_sample(cell: ReportCell) -> tuple[int, str]:
    """The first sample at the most steps (never a chosen one): steps and text."""
    import pandas as pd

    samples = pd.read_parquet(folder_of(cell) / "samples.parquet", columns=["steps", "sample", "text"])
    last = samples.sort_values(["steps", "sample"], ascending=[False, True]).iloc[0]
    return int(last["steps"]), str(last["text"])


_COLUMNS = tuple(f.name for f in fields(Row) if f.name != "labels")


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: unknown figures become null."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
