"""Cells side by side, as data: figures, differences, ranks, and the yardsticks among them.

Cells that differ only in their seed are one method, and one row. There is one row type: the report of a sweep
reads its figures from the store, `sumi compare` from MLflow.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.base.files import without_nan
from sumi_core.base.tables import read_table
from sumi_core.base.text import counted
from sumi_core.experiments.changed_names import deciding_changes
from sumi_core.reports.differences import (
    SIGNIFICANCE,
    CellLikelihood,
    Difference,
    SeedGroup,
    all_differences,
    bootstrap_interval,
    corrected,
    oriented,
    ranks,
)
from sumi_core.reports.readings import mean_readings
from sumi_core.reports.row import SEED_AXIS, TRAINING_METRICS, Row

if TYPE_CHECKING:
    from sumi_core.experiments.sweeps import Cell


@dataclass(frozen=True)
class Comparison:
    """Rows: cells and groups from best to worst with the yardsticks in between, then those without figures. The cells
    of a group follow it."""

    rows: list[Row]
    reference: str | None  # the row that differences are taken to
    differences: list[Difference]
    overrides: tuple[str, ...] = ()  # what the command line changed in every cell
    asked_reference: str | None = None  # the reference that was requested; None: the best
    reference_missing: bool = False  # the requested one has no figures, so the best stands in for it
    contrasts: tuple[Difference, ...] = ()  # named beforehand, and corrected for each other alone

    @property
    def planned(self) -> bool:
        """Whether the reference was named beforehand, so that only differences to it have to be corrected for."""
        return self.asked_reference is not None and not self.reference_missing

    @property
    def cell_rows(self) -> list[Row]:
        """The cells."""
        return [row for row in self.rows if row.kind == "cell"]

    @property
    def method_rows(self) -> list[Row]:
        """The methods: groups, and cells that are in none; those with figures first."""
        return [row for row in self.rows if row.kind != "yardstick" and row.group is None]

    @property
    def has_groups(self) -> bool:
        """Whether some method has several seeds."""
        return any(row.kind == "group" for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain data without NaN, the standing's sentence included."""
        plain: dict[str, Any] = {
            "overrides": list(self.overrides),
            "reference": self.reference,
            "asked_reference": self.asked_reference,
            "reference_missing": self.reference_missing,
            "standing": standing(self),
            "rows": [asdict(row) for row in self.rows],
            "differences": [_plain(d) for d in self.differences],
            "contrasts": [_plain(d) for d in self.contrasts],
        }
        return dict(without_nan(plain))

    def to_csv(self) -> str:
        """The rows as CSV."""
        flat = [row.flat() for row in self.rows]
        columns = list(dict.fromkeys([*_COLUMNS, *(name for row in flat for name in row)]))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(without_nan(flat))
        return text.getvalue()


def _plain(d: Difference) -> dict[str, Any]:
    return {**asdict(d), "significant": d.significant if d.of_methods else None}


def seed_groups(cells: Iterable[Cell]) -> dict[str, list[str]]:
    """The keys of the cells of each method, by its name: theirs without the seed's label.

    Where labels on the seed axis stand for more than a seed, each cell is a method of its own."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.group, []).append(cell)
    found: dict[str, list[str]] = {}
    for name, members in groups.items():
        recipes = [cell.experiment.method() for cell in members]
        alike = all(recipe == recipes[0] for recipe in recipes)
        if alike and len({cell.experiment.seed for cell in members}) == len(members):
            found[name] = [cell.key for cell in members]
        else:
            found |= {cell.key: [cell.key] for cell in members}
    return found


def shared_overrides(cells: Sequence[Cell]) -> tuple[str, ...]:
    """What the command line changed in every one of some cells; nothing where they differ in that."""
    found = {deciding_changes(cell.overrides) for cell in cells}
    return found.pop() if len(found) == 1 else ()


def compare_rows(
    rows: Iterable[Row],
    likelihoods: Mapping[str, CellLikelihood],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    reference: str | None = None,
    contrasts: Sequence[tuple[str, str]] = (),
    overrides: tuple[str, ...] = (),
) -> Comparison:
    """Order the rows, rank their methods and take differences to the reference, where the likelihoods are at hand.

    groups: the cells of each method; other cells are methods of their own. reference: a cell or group;
    without it, or where it has no likelihoods, the best that has. p-values of differences to a reference that was named
    are corrected for those, others for all pairs: the best is known only after looking at all. contrasts: pairs of
    methods whose differences, first minus second, are corrected for each other alone."""
    rows, groups = list(rows), groups or {}
    by_name = {row.name: row for row in rows if row.kind == "cell"}
    of_method = {name: [by_name[key] for key in keys] for name, keys in groups.items() if len(keys) > 1}
    for name, members in of_method.items():
        for row in members:
            row.group = name
    methods = [row for row in rows if row.group is None] + [_group_row(n, m, likelihoods) for n, m in of_method.items()]
    ordered = sorted((row for row in methods if row.bits_per_byte is not None), key=_figure)
    measured: dict[str, SeedGroup] = {}
    for row in ordered:
        cells = [c for c in of_method.get(row.name, [row]) if c.bits_per_byte is not None and c.kind == "cell"]
        if cells and all(c.name in likelihoods for c in cells):
            measured[row.name] = SeedGroup({c.seed or 0: likelihoods[c.name] for c in cells})
    differences = all_differences(measured)
    asked = _named(reference, measured, groups)
    found = asked or next(iter(measured), None)
    places = ranks(differences)
    others = [oriented(differences, name, found) for name in measured if found is not None and name != found]
    if asked:  # what is compared was decided beforehand, so it is all there is to correct for
        others = corrected(others)
    to_reference = {d.first: d for d in others}
    for row in ordered:
        if row.name in measured:
            row.rank, row.reference = places.get(row.name), found
        if row.name in to_reference:
            _add_difference(row, to_reference[row.name], measured)
    absent = [row for row in methods if row.bits_per_byte is None]
    everyone = [shown for row in [*ordered, *absent] for shown in (row, *of_method.get(row.name, []))]
    missing = reference is not None and asked is None
    pairs = [(_named(first, measured, groups), _named(second, measured, groups)) for first, second in contrasts]
    planned = corrected([oriented(differences, a, b) for a, b in pairs if a and b])
    return Comparison(everyone, found, differences, overrides, reference, missing, tuple(planned))


def _named(reference: str | None, measured: Mapping[str, SeedGroup], groups: Mapping[str, Sequence[str]]) -> str | None:
    """The measured method that the name of a cell or of a group means."""
    for name, keys in groups.items():
        if reference == name or reference in keys:
            reference = name if len(keys) > 1 else keys[0]
            break
    return reference if reference in measured else None


def _figure(row: Row) -> float:
    assert row.bits_per_byte is not None
    return row.bits_per_byte


def _group_row(name: str, members: Sequence[Row], likelihoods: Mapping[str, CellLikelihood]) -> Row:
    """The mean of the cells that have figures, with both errors; costs are means too, and peak memory the largest."""
    done = [row for row in members if row.bits_per_byte is not None]
    first = (done or list(members))[0]
    labels = {axis: label for axis, label in first.labels.items() if axis != SEED_AXIS}
    state, why = ("done", "") if done else (first.state, first.why)
    row = Row("group", name, state, why, labels=labels, seeds=len(done), seeds_planned=len(members), exact=first.exact)
    row.objective, row.process, row.schedule = first.objective, first.process, first.schedule
    row.reading = first.reading
    for figure in (*TRAINING_METRICS, "gradient_norm", "gradient_variance", "documents", "effective_documents"):
        if known := [value for cell in done if (value := getattr(cell, figure)) is not None]:
            value = max(known) if figure == "peak_memory_bytes" else sum(known) / len(known)
            setattr(row, figure, int(value) if isinstance(known[0], int) else value)
    if not done:
        return row
    row.readings = mean_readings([cell.readings for cell in done])
    row.initial_readings = mean_readings([cell.initial_readings for cell in done])
    figures = [_figure(cell) for cell in done]
    errors = [cell.stderr for cell in done if cell.stderr is not None]
    row.bits_per_byte = sum(figures) / len(done)
    # Documents that are hard for one seed are hard for all, so the mean's error is about, and at most, theirs.
    documents, seeds = (sum(errors) / len(done) if len(errors) == len(done) else math.nan), math.nan
    if all(cell.name in likelihoods for cell in done):
        estimate = SeedGroup({c.seed or 0: likelihoods[c.name] for c in done}).bits_per_byte
        documents, seeds = estimate.stderr_documents, estimate.stderr_seeds
    elif len(done) > 1:
        seeds = math.sqrt(sum((f - row.bits_per_byte) ** 2 for f in figures) / (len(done) - 1) / len(done))
    row.stderr_documents, row.stderr_seeds = _known(documents), _known(seeds)
    row.stderr = _known(documents if math.isnan(seeds) else math.hypot(documents, seeds))
    if all(cell.mc_stderr is not None for cell in done):  # every seed is measured with the same levels and noise
        row.mc_stderr = sum(cell.mc_stderr or 0.0 for cell in done) / len(done)
    if all(cell.draw_deviation is not None for cell in done):
        row.draw_deviation = math.sqrt(sum((cell.draw_deviation or 0.0) ** 2 for cell in done) / len(done))
    return row


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _add_difference(row: Row, d: Difference, groups: Mapping[str, SeedGroup]) -> None:
    row.difference, row.difference_stderr, row.paired = d.value, d.stderr, d.paired
    row.difference_stderr_documents, row.difference_stderr_seeds = d.stderr_documents, _known(d.stderr_seeds)
    row.seeds_compared, row.paired_seeds = d.seeds, d.paired_seeds
    row.p_adjusted, row.significant = _known(d.p_adjusted), d.significant if d.of_methods else None
    row.difference_low_95, row.difference_high_95 = _known(d.low_95), _known(d.high_95)
    if interval := bootstrap_interval(groups, d.first, d.second):
        row.difference_bootstrap_low_95, row.difference_bootstrap_high_95 = interval


def add_measured(row: Row, likelihood: CellLikelihood | None, training: Path | None) -> None:
    """Add what a cell's files in the store hold beside its figures: the noise of one draw, and of the gradient."""
    row.seeds = row.seeds_planned = 1
    row.stderr_documents = row.stderr
    if likelihood is not None:
        row.documents, row.effective_documents = likelihood.units, likelihood.effective_units
    if likelihood is not None and row.mc_stderr is not None:
        row.draw_deviation = 0.0 if row.exact else _known(likelihood.draw_deviation(row.mc_stderr))
    if training is not None and (training / "history.parquet").is_file():
        row.gradient_norm = _late_gradient_norm(training / "history.parquet")


def _late_gradient_norm(history: Path) -> float | None:
    points = read_table(history, columns=["step", "name", "value"])
    norms = points[points["name"] == "train/grad_norm"]
    late = norms[norms["step"] > 0.9 * points["step"].max()]["value"]
    return float(late.mean()) if len(late) else None


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
    """Methods that are not told apart from the best of those with several seeds."""
    best, *others = [row.name for row in comparison.method_rows if row.rank is not None] or [""]
    return [key for key in others if not oriented(comparison.differences, best, key).significant]


def corrected_over(comparison: Comparison) -> str:
    """What the p-values are corrected for, in words."""
    pairs = sum(d.of_methods for d in comparison.differences)
    every = "the one pair" if pairs == 1 else f"all {pairs} pairs"
    return f"at {SIGNIFICANCE:.0%}, p-values Holm-corrected over {every} of methods"


def standing(comparison: Comparison) -> str:
    """The best of all in a sentence: of the methods with several seeds, with what the p-values are corrected for; of
    trained models where there are no such methods."""
    measured = [row for row in comparison.method_rows if row.reference is not None]
    ranked = [row.name for row in measured if row.rank is not None]
    if len(measured) < 2:
        return f"{counted(len(measured), 'method' if comparison.has_groups else 'cell')} measured: nothing to compare."
    if not ranked:
        seeds = ", one seed each," if all((row.seeds or 1) == 1 for row in measured) else ""
        return f"Of these trained models{seeds} {measured[0].name} has the fewest bits per byte."
    lead = f"{ranked[0]} has the fewest bits per byte"
    if len(ranked) < len(measured):
        lead = f"Of the methods with several seeds, {lead}"
    if tied := tied_with_best(comparison):
        return f"{lead}, but is not told apart from {', '.join(tied)} ({corrected_over(comparison)})."
    return f"{lead}, and every difference to it is significant ({corrected_over(comparison)})."


_COLUMNS = tuple(f.name for f in fields(Row) if f.name not in ("labels", "readings", "initial_readings"))
