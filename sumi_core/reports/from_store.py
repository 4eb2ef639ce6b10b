"""The cells of a sweep side by side, from what their stages left in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.base.tables import read_table
from sumi_core.reports.differences import CellLikelihood
from sumi_core.reports.readings import reported_reading
from sumi_core.reports.row import TRAINING_METRICS, Row
from sumi_core.reports.table import (
    Comparison,
    add_measured,
    compare_rows,
    seed_groups,
    shared_overrides,
    yardstick_rows,
)

if TYPE_CHECKING:
    from sumi_core.experiments.sweeps import Cell
    from sumi_core.stages.store import Artifact


@dataclass(frozen=True)
class ReportCell:
    """A cell and its whole outputs. ``state`` and ``why`` are those of the plan: done, failed, missing …"""

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
    """The question of a sweep, and what repeats it."""

    name: str
    description: str = ""
    axes: Mapping[str, Sequence[str]] = field(default_factory=dict)  # axis → labels
    reference: str | None = None  # the cell or group that differences are taken to
    budget: str = ""  # what cells may spend, in words
    config_digest: str = ""  # of the resolved configuration of every cell
    contrasts: Sequence[tuple[str, str]] = ()  # the pairs whose differences were named beforehand


@dataclass(frozen=True, kw_only=True)
class SweepComparison(Comparison):
    """The comparison in the report of a sweep."""

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
    rows += yardstick_rows({key: figures_of(c).get("yardsticks", {}) for key, c in done.items()})
    made = compare_rows(
        rows,
        likelihoods,
        groups=seed_groups(c.cell for c in cells),
        reference=question.reference,
        contrasts=question.contrasts,
        overrides=shared_overrides([c.cell for c in cells]),
    )
    best_first = {row.name: done[row.name] for row in made.cell_rows if row.name in done}
    return SweepComparison(
        made.rows,
        made.reference,
        made.differences,
        made.overrides,
        made.asked_reference,
        made.reference_missing,
        made.contrasts,
        question=question,
        cells=best_first,
    )


def _cell_row(cell: ReportCell, likelihood: CellLikelihood | None) -> Row:
    row = Row.of_cell(cell.cell, cell.state, cell.why)
    if cell.evaluation is not None:
        figures = figures_of(cell)
        row.state, row.why = "done", ""
        row.exact, row.fingerprint = figures["exact"], cell.evaluation.fingerprint
        row.reading = reported_reading(cell.cell.experiment)
        row.bits_per_byte, row.stderr = (
            figures["bits_per_byte"],
            figures.get("bits_per_byte_stderr"),
        )  # of two documents or more
        row.mc_stderr = figures.get("bits_per_byte_mc_stderr")
        row.readings = figures.get("readings", {})
        row.initial_readings = figures.get("initial_readings", {})
        noise = figures.get("gradient_noise", {})
        row.gradient_variance, row.gradient_variance_stderr = noise.get("variance"), noise.get("variance_stderr")
    trained = cell.pretrained_denoiser
    for name in TRAINING_METRICS:
        setattr(row, name, trained.summary.get(name) if trained else None)
    add_measured(row, likelihood, trained.folder if trained else None)
    return row


def figures_of(cell: ReportCell) -> dict[str, Any]:
    """The summary of an evaluated cell."""
    assert cell.evaluation is not None
    return cell.evaluation.summary


def folder_of(cell: ReportCell) -> Path:
    """The folder of a cell's evaluation."""
    assert cell.evaluation is not None
    return cell.evaluation.folder


def first_sample(cell: ReportCell) -> tuple[int, str] | None:
    """The first sample at the most steps (never a chosen one): steps and text; None where none were drawn."""
    if "samples" not in figures_of(cell):
        return None
    samples = read_table(folder_of(cell) / "samples.parquet", columns=["steps", "sample", "text"])
    last = samples.sort_values(["steps", "sample"], ascending=[False, True]).iloc[0]
    return int(last["steps"]), str(last["text"])
