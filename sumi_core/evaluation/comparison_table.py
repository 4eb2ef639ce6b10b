"""Cells side by side, as data: figures, differences, ranks, and the yardsticks among them.

Cells that differ only in their seed are one method, and one row. One row type, whoever asks: the report of a sweep
reads its figures from the store, `sumi compare` from MLflow.
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
    SeedGroup,
    all_differences,
    bootstrap_interval,
    oriented,
    ranks,
)
from sumi_core.evaluation.rendering import counted

if TYPE_CHECKING:
    from sumi_core.lineage.store import Artifact
    from sumi_core.sweeps import Cell

SEED_AXIS = "seed"
TRAINING_FIGURES = ("parameters", "tokens_seen", "flops", "seconds", "tokens_per_second", "peak_memory_bytes")

COLUMNS = {
    "kind": "cell, group (cells that differ only in their seed) or yardstick",
    "name": "what it is called; a group by its cells' name without the seed",
    "state": "of a cell, as `sumi list` tells: done, failed, stale …; of a group, done if any of its cells has figures",
    "why": "why it is in its state",
    "objective": "what was minimised",
    "process": "the corruption process; empty without one",
    "schedule": "its noise schedule",
    "seed": "of training: initial weights, order of the data, noise; empty for a group",
    "group": "the group that a cell is one seed of; its figures stand for it in ranks and differences",
    "seeds": "training seeds in the figure",
    "seeds_planned": "training seeds that the sweep asks for",
    "exact": "whether bits_per_byte is exact (true) or an upper bound (false)",
    "bits_per_byte": "of the validation text; of a group, the mean over its seeds; empty without figures",
    "stderr": "one standard error: √(stderr_documents² + stderr_seeds²), over documents alone where there is one seed",
    "stderr_documents": "its part over validation documents, the models as they are; Monte-Carlo noise is in it",
    "stderr_seeds": "its part over training seeds, the documents as they are: s / √seeds; empty for one seed",
    "mc_stderr": "the Monte-Carlo noise alone, over noise levels and noise; of a group, at most this",
    "draw_deviation": "standard deviation of a mean sequence's bound from one draw of noise level and noise, in bits "
    "per byte: the noise that K draws a sequence make small; of a group, the root of the mean variance",
    "rank": "1 + the number of rows that are significantly better",
    "reference": "the row that differences are taken to: the one asked for, else the best",
    "difference": "bits_per_byte minus that of the reference, over what both were measured on; above 0 is worse",
    "difference_stderr": "its standard error: √(difference_stderr_documents² + difference_stderr_seeds²)",
    "difference_stderr_documents": "its part over documents: paired if `paired`, else of two independent figures",
    "difference_stderr_seeds": "its part over seeds, paired if `paired_seeds`; empty where a side has one seed",
    "difference_low_95": "95 % interval of the difference by Student's t for either source of error, not corrected: "
    "the primary one",
    "difference_high_95": "its upper end",
    "difference_bootstrap_low_95": "95 % interval by resampling documents and seeds, not corrected; too narrow for two "
    "or three seeds",
    "difference_bootstrap_high_95": "its upper end",
    "seeds_compared": "training seeds of each side in the difference",
    "paired": "whether both were measured on the same texts",
    "paired_seeds": "whether each seed was compared with itself",
    "p_adjusted": "two-sided p of the difference (Student's t), Holm-corrected over all pairs of rows compared",
    "significant": "whether p_adjusted < 0.05",
    "parameters": "of the denoiser",
    "tokens_seen": "in training; of a group, as every cost, the mean over its seeds",
    "flops": "spent in training, forward and backward: 6 for each weight that multiplies a token, plus attention",
    "seconds": "of training, by the clock",
    "tokens_per_second": "of training, without validation and checkpoints",
    "peak_memory_bytes": "the most held in training: allocated on a GPU, resident in the process on a CPU; of a group, "
    "the largest",
    "gradient_norm": "of an update before clipping, mean over the last tenth of training",
    "gradient_variance": "trace of the covariance of the training gradient of one batch at the final weights, over "
    "noise levels and noise alone; empty where it was not measured",
    "gradient_variance_stderr": "its standard error over pairs of gradients",
    "fingerprint": "of the evaluation",
    "mlflow_run_id": "where the figures were read, if that was MLflow",
}  # and axis.<axis>: the label of a cell on each axis


@dataclass
class Row:
    """A cell, a group of cells that differ only in their seed, or a yardstick. Its fields are the columns of JSON, CSV
    and Parquet, explained in ``COLUMNS``; None is null, or empty. ``labels`` (axis → label) become a column each."""

    kind: str
    name: str
    state: str = "done"
    why: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    objective: str | None = None
    process: str | None = None
    schedule: str | None = None
    seed: int | None = None
    group: str | None = None
    seeds: int | None = None
    seeds_planned: int | None = None
    exact: bool | None = None
    bits_per_byte: float | None = None
    stderr: float | None = None
    stderr_documents: float | None = None
    stderr_seeds: float | None = None
    mc_stderr: float | None = None
    draw_deviation: float | None = None
    rank: int | None = None
    reference: str | None = None
    difference: float | None = None
    difference_stderr: float | None = None
    difference_stderr_documents: float | None = None
    difference_stderr_seeds: float | None = None
    difference_low_95: float | None = None
    difference_high_95: float | None = None
    difference_bootstrap_low_95: float | None = None
    difference_bootstrap_high_95: float | None = None
    seeds_compared: int | None = None
    paired: bool | None = None
    paired_seeds: bool | None = None
    p_adjusted: float | None = None
    significant: bool | None = None
    parameters: int | None = None
    tokens_seen: int | None = None
    flops: float | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    gradient_norm: float | None = None
    gradient_variance: float | None = None
    gradient_variance_stderr: float | None = None
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
    """Rows: cells and groups from best to worst with the yardsticks in between, then those without figures. The cells
    of a group follow it."""

    rows: list[Row]
    reference: str | None  # the row that differences are taken to
    differences: list[Difference]
    overrides: tuple[str, ...] = ()  # what the command line changed in every cell
    asked_reference: str | None = None  # what the reference was asked to be; None: nobody asked, it is the best
    reference_missing: bool = False  # what was asked for has no figures, so that the best stands in for it

    @property
    def cell_rows(self) -> list[Row]:
        """The cells."""
        return [row for row in self.rows if row.kind == "cell"]

    @property
    def method_rows(self) -> list[Row]:
        """What is compared: groups, and cells that are in none; those with figures first."""
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


def seed_groups(cells: Iterable[Cell]) -> dict[str, list[str]]:
    """The keys of the cells of each method, by its name: theirs without the seed's label.

    Where labels on the seed axis stand for more than a seed, each cell is a method of its own."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.group, []).append(cell)
    found: dict[str, list[str]] = {}
    for name, members in groups.items():
        recipes = [{k: v for k, v in cell.experiment.identity().items() if k != SEED_AXIS} for cell in members]
        alike = all(recipe == recipes[0] for recipe in recipes)
        if alike and len({cell.experiment.seed for cell in members}) == len(members):
            found[name] = [cell.key for cell in members]
        else:
            found |= {cell.key: [cell.key] for cell in members}
    return found


def compare_rows(
    rows: Iterable[Row],
    likelihoods: Mapping[str, CellLikelihood],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    reference: str | None = None,
    overrides: tuple[str, ...] = (),
) -> Comparison:
    """Order the rows, rank their methods and take differences to the reference, where the likelihoods are at hand.

    groups: the cells of each method; those that nobody names are methods of their own. reference: a cell or group;
    without it, or where it has no likelihoods, the best that has."""
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
    places = ranks(measured, differences)
    for row in ordered:
        if row.name in measured and found is not None:
            row.rank, row.reference = places[row.name], found
            if row.name != found:
                _add_difference(row, oriented(differences, row.name, found), measured)
    absent = [row for row in methods if row.bits_per_byte is None]
    everyone = [shown for row in [*ordered, *absent] for shown in (row, *of_method.get(row.name, []))]
    missing = reference is not None and asked is None
    return Comparison(everyone, found, differences, overrides, reference, missing)


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
    for figure in (*TRAINING_FIGURES, "gradient_norm", "gradient_variance"):
        if known := [value for cell in done if (value := getattr(cell, figure)) is not None]:
            value = max(known) if figure == "peak_memory_bytes" else sum(known) / len(known)
            setattr(row, figure, int(value) if isinstance(known[0], int) else value)
    if not done:
        return row
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
    return None if math.isnan(value) else value


def _add_difference(row: Row, d: Difference, groups: Mapping[str, SeedGroup]) -> None:
    row.difference, row.difference_stderr, row.paired = d.value, d.stderr, d.paired
    row.difference_stderr_documents, row.difference_stderr_seeds = d.stderr_documents, _known(d.stderr_seeds)
    row.seeds_compared, row.paired_seeds = d.seeds, d.paired_seeds
    row.p_adjusted, row.significant = d.p_adjusted, d.significant
    row.difference_low_95, row.difference_high_95 = _known(d.low_95), _known(d.high_95)
    if interval := bootstrap_interval(groups, d.first, d.second):
        row.difference_bootstrap_low_95, row.difference_bootstrap_high_95 = interval


def add_measured(row: Row, likelihood: CellLikelihood | None, training: Path | None) -> None:
    """What a cell's files in the store tell beside its figures: the noise of one draw, and of the gradient."""
    row.seeds = row.seeds_planned = 1
    row.stderr_documents = row.stderr
    if likelihood is not None and row.mc_stderr is not None:
        row.draw_deviation = 0.0 if row.exact else _known(likelihood.draw_deviation(row.mc_stderr))
    if training is not None and (training / "history.parquet").is_file():
        row.gradient_norm = _late_gradient_norm(training / "history.parquet")


def _late_gradient_norm(history: Path) -> float | None:
    import pandas as pd

    points = pd.read_parquet(history, columns=["step", "name", "value"])
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
    """Methods that cannot be told apart from the best one, as far as their likelihoods are known."""
    best, *others = [row.name for row in comparison.method_rows if row.rank is not None] or [""]
    return [key for key in others if not oriented(comparison.differences, best, key).significant]


def corrected_over(comparison: Comparison) -> str:
    """What the p-values are corrected for, in words."""
    pairs = len(comparison.differences)
    things = "methods" if comparison.has_groups else "cells"
    every = "the one pair" if pairs == 1 else f"all {pairs} pairs"
    return f"at {SIGNIFICANCE:.0%}, p-values Holm-corrected over {every} of {things}"


def standing(comparison: Comparison) -> str:
    """The ranking in a sentence, with what the p-values are corrected for."""
    ranked = [row.name for row in comparison.method_rows if row.rank is not None]
    if len(ranked) < 2:
        return f"{counted(len(ranked), 'method' if comparison.has_groups else 'cell')} evaluated: nothing to rank."
    lead = f"{ranked[0]} has the fewest bits per byte"
    if tied := tied_with_best(comparison):
        return f"{lead}, but cannot be told apart from {', '.join(tied)} ({corrected_over(comparison)})."
    return f"{lead}, and every difference to it is significant ({corrected_over(comparison)})."


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


@dataclass(frozen=True)
class Question:
    """What a sweep asks, and how to ask it again."""

    name: str
    description: str = ""
    axes: Mapping[str, Sequence[str]] = field(default_factory=dict)  # axis → labels
    reference: str | None = None  # the cell or group that differences are taken to
    budget: str = ""  # what cells may spend, in words
    config_digest: str = ""  # of the resolved configuration of every cell


@dataclass(frozen=True, kw_only=True)
class SweepComparison(Comparison):
    """What the report of a sweep says."""

    question: Question
    cells: dict[str, ReportCell]  # those that are evaluated, best method first

    @property
    def name(self) -> str:
        """The sweep's."""
        return self.question.name

    @property
    def description(self) -> str:
        """The sweep's."""
        return self.question.description

    @property
    def members(self) -> dict[str, list[str]]:
        """The evaluated cells of each method, best method first, seeds in the order of the sweep."""
        found: dict[str, list[str]] = {}
        for row in self.cell_rows:
            if row.name in self.cells:
                found.setdefault(row.group or row.name, []).append(row.name)
        return found

    @property
    def first_cells(self) -> list[str]:
        """The first evaluated cell of each method: samples are shown of these."""
        return [keys[0] for keys in self.members.values()]

    @property
    def commits(self) -> list[str]:
        """The commits that the evaluated cells were trained and measured with; ``+`` marks one with local changes."""
        artifacts = [a for c in self.cells.values() for a in (c.pretrained_denoiser, c.evaluation) if a is not None]
        states = [artifact.manifest.get("provenance", {}).get("git", {}) for artifact in artifacts]
        named = [f"{git['commit'][:12]}{'+' if git.get('dirty') else ''}" for git in states if git.get("commit")]
        return list(dict.fromkeys(named))


def compare_cells(
    name: str,
    description: str,
    cells: Sequence[ReportCell],
    reference: str | None = None,
    question: Question | None = None,
) -> SweepComparison:
    """Read what the evaluated cells of sweep ``name`` left and set it side by side.

    question: what is known of the sweep beside its name and description."""
    question = question or Question(name, description, reference=reference)
    done = {c.key: c for c in cells if c.evaluation is not None}
    likelihoods = {key: CellLikelihood.load(folder_of(c) / "likelihood.parquet") for key, c in done.items()}
    rows = [_cell_row(c, likelihoods.get(c.key)) for c in cells]
    rows += yardstick_rows({key: figures_of(c)["yardsticks"] for key, c in done.items()})
    made = compare_rows(
        rows,
        likelihoods,
        groups=seed_groups(c.cell for c in cells),
        reference=question.reference,
        overrides=cells[0].cell.overrides if cells else (),
    )
    best_first = {row.name: done[row.name] for row in made.cell_rows if row.name in done}
    return SweepComparison(
        made.rows,
        made.reference,
        made.differences,
        made.overrides,
        made.asked_reference,
        made.reference_missing,
        question=question,
        cells=best_first,
    )


def _cell_row(cell: ReportCell, likelihood: CellLikelihood | None) -> Row:
    row = Row.of_cell(cell.cell, cell.state, cell.why)
    if cell.evaluation is not None:
        figures = figures_of(cell)
        row.state, row.why = "done", ""
        row.exact, row.fingerprint = figures["exact"], cell.evaluation.fingerprint
        row.bits_per_byte, row.stderr = figures["bits_per_byte"], figures["bits_per_byte_stderr"]
        row.mc_stderr = figures.get("bits_per_byte_mc_stderr")
        noise = figures.get("gradient_noise", {})
        row.gradient_variance, row.gradient_variance_stderr = noise.get("variance"), noise.get("variance_stderr")
    trained = cell.pretrained_denoiser
    for name in TRAINING_FIGURES:
        setattr(row, name, trained.summary.get(name) if trained else None)
    add_measured(row, likelihood, trained.folder if trained else None)
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
