"""The cells of a sweep side by side, as data: figures, differences, ranks, and the yardsticks among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.evaluation.comparison import (
    CellLikelihood,
    Difference,
    all_differences,
    oriented,
    paired_interval,
    ranks,
)

if TYPE_CHECKING:
    from sumi_core.lineage.store import Artifact
    from sumi_core.sweeps import Cell

_TRAINING = ("train_tokens", "parameters", "flops", "seconds", "tokens_per_second")


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
class Comparison:
    """What a report says. rows: cells from best to worst with the yardsticks in between, then cells without figures."""

    name: str
    description: str
    reference: str | None  # the cell that differences are taken to
    rows: list[dict[str, Any]]
    differences: list[Difference]
    cells: dict[str, ReportCell]  # those that are evaluated, best first


def compare_cells(name: str, description: str, cells: Sequence[ReportCell], reference: str | None = None) -> Comparison:
    """Read what the evaluated cells left and set it side by side."""
    done = sorted((c for c in cells if c.evaluation is not None), key=lambda c: figures_of(c)["bits_per_byte"])
    likelihoods = {c.key: CellLikelihood.load(folder_of(c) / "likelihood.parquet") for c in done}
    differences = all_differences(likelihoods)
    if reference not in likelihoods:
        reference = done[0].key if done else None
    placed = ranks(likelihoods, differences)
    rows = [_cell_row(c, placed[c.key]) for c in done]
    for row in rows:
        if reference is not None and row["name"] != reference:
            d = oriented(differences, row["name"], reference)
            row |= {
                "difference": d.value,
                "difference_stderr": d.stderr,
                "p_adjusted": d.p_adjusted,
                "paired": d.paired,
            }
            row["difference_interval_95"] = paired_interval(likelihoods, row["name"], reference)
    rows = sorted([*rows, *_yardstick_rows(done, likelihoods)], key=lambda row: row["bits_per_byte"])
    rows += [_cell_row(c, None) for c in cells if c.evaluation is None]
    return Comparison(name, description, reference, rows, differences, {c.key: c for c in done})


def _cell_row(cell: ReportCell, rank: int | None) -> dict[str, Any]:
    config = cell.cell.experiment
    row: dict[str, Any] = {
        "kind": "cell",
        "name": cell.key,
        "state": "done" if cell.evaluation else cell.state,
        "why": "" if cell.evaluation else cell.why,
        "labels": dict(cell.cell.labels),
        "objective": config.objective["name"],
        "process": config.process["name"] if config.process else None,
        "schedule": config.schedule["name"] if config.process else None,
        "exact": None,
        "bits_per_byte": None,
        "stderr": None,
        "rank": rank,
        "difference": None,
        "difference_stderr": None,
        "p_adjusted": None,
        "paired": None,
        "difference_interval_95": None,
    }
    if cell.evaluation is not None:
        figures = figures_of(cell)
        row |= {
            "exact": figures["exact"],
            "bits_per_byte": figures["bits_per_byte"],
            "stderr": figures["bits_per_byte_stderr"],
            "mc_stderr": figures.get("bits_per_byte_mc_stderr"),
            "nats_per_token": figures["nats_per_token"],
        }
    trained = cell.pretrained_denoiser.summary if cell.pretrained_denoiser else {}
    return row | {name: trained.get(name) for name in _TRAINING}


def _yardstick_rows(done: Sequence[ReportCell], likelihoods: Mapping[str, CellLikelihood]) -> list[dict[str, Any]]:
    """Each yardstick once, or once for each of the values it has where cells differ in text or tokenizer."""
    found: dict[tuple[str, float], list[str]] = {}
    for cell in done:
        for name, value in figures_of(cell)["yardsticks"].items():
            found.setdefault((name, round(value, 9)), []).append(cell.key)
    names = [name for name, _ in found]
    return [
        {
            "kind": "yardstick",
            "name": name if names.count(name) == 1 else f"{name} ({', '.join(owners)})",
            "state": "done",
            "bits_per_byte": value,
        }
        for (name, value), owners in found.items()
    ]


def tied_with_best(comparison: Comparison) -> list[str]:
    """Cells that cannot be told apart from the best one."""
    best, *others = comparison.cells or [""]
    return [key for key in others if not oriented(comparison.differences, best, key).significant]


def figures_of(cell: ReportCell) -> dict[str, Any]:
    """The summary of an evaluated cell."""
    assert cell.evaluation is not None
    return cell.evaluation.summary


def folder_of(cell: ReportCell) -> Path:
    """What the evaluation of a cell wrote."""
    assert cell.evaluation is not None
    return cell.evaluation.folder


def sign_of(row: Mapping[str, Any]) -> str:
    """``=`` exact, ``≤`` an upper bound, nothing for a yardstick."""
    return {True: "=", False: "≤", None: ""}[row.get("exact")]


def first_sample(cell: ReportCell) -> tuple[int, str]:
    """The first sample at the most steps (never a chosen one): steps and text."""
    import pandas as pd

    samples = pd.read_parquet(folder_of(cell) / "samples.parquet", columns=["steps", "sample", "text"])
    last = samples.sort_values(["steps", "sample"], ascending=[False, True]).iloc[0]
    return int(last["steps"]), str(last["text"])
