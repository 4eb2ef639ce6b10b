"""The comparison of a sweep as an artifact: its fingerprint is that of the question and of the evaluations it compares.

One more seed or cell is one more evaluation: the report is made anew, and nothing else is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from sumi_core.base.hashing import fingerprint
from sumi_core.base.provenance import provenance
from sumi_core.base.text import short_count
from sumi_core.experiments.changed_names import deciding_changes
from sumi_core.experiments.sweeps import Cell, Sweep
from sumi_core.lineage.plan import plan
from sumi_core.reports.from_store import Question, ReportCell, SweepComparison, compare_cells
from sumi_core.reports.report import build_ablation_report
from sumi_core.stages.store import Artifact, Store

REPORT_VERSION = "13"
_NAMED = 3  # experiments in a title


def report_cells(store: Store, cells: Sequence[Cell]) -> list[ReportCell]:
    """Cells as they are now."""
    return [
        ReportCell(
            planned.cell, planned.state, planned.why, **{stage: planned.artifacts.get(stage) for stage in _SHOWN}
        )
        for planned in plan(cells, store)
    ]


def sweep_question(sweep: Sweep) -> Question:
    """The question of a sweep, for its report."""
    budget = sweep.options.budget
    spent = {"tokens": budget.tokens, "supervised tokens": budget.supervised_tokens}
    spent |= {"training FLOPs": budget.flops, "total FLOPs": budget.total_flops}
    return Question(
        sweep.key,
        sweep.description,
        sweep.axes,
        sweep.reference,
        ", ".join(f"{short_count(value)} {what} for every cell" for what, value in spent.items() if value is not None),
        fingerprint({cell.key: cell.experiment.recipe() for cell in sweep.cells}),
        sweep.contrasts,
    )


def compare_sweep(store: Store, sweep: Sweep) -> SweepComparison:
    """The cells of a sweep side by side as they are now; writes nothing."""
    question = sweep_question(sweep)
    return compare_cells(sweep.key, sweep.description, report_cells(store, sweep.cells), question=question)


def compare_selection(store: Store, cells: Sequence[Cell], reference: str | None = None) -> SweepComparison:
    """Any cells side by side as they are now, under the names of their experiments; writes nothing."""
    names = list(dict.fromkeys(cell.sweep_key for cell in cells))
    name = ", ".join(names) if len(names) <= _NAMED else f"{len(names)} experiments"
    return compare_cells(name, "", report_cells(store, cells), reference)


def find_sweep_report(store: Store, sweep: Sweep) -> Artifact | None:
    """The report of a sweep's cells as they are now, if it is made."""
    identity = _identity(sweep_question(sweep), report_cells(store, sweep.cells))
    return store.find("ablation_report", fingerprint(identity))


def _identity(question: Question, cells: Sequence[ReportCell]) -> dict[str, Any]:
    return {
        "stage": "ablation_report",
        "version": REPORT_VERSION,
        "question": asdict(question),
        "overrides": list(deciding_changes(cells[0].cell.overrides)) if cells else [],  # the page names them
        "cells": {c.cell.key: c.evaluation.fingerprint if c.evaluation else f"{c.state}: {c.why}" for c in cells},
    }


def build_sweep_report(store: Store, sweep: Sweep, log: Callable[[str], None] = print) -> tuple[Artifact, bool]:
    """Compare the cells of a sweep as they are now. Returns the report and whether it was found ready."""
    cells, question = report_cells(store, sweep.cells), sweep_question(sweep)
    identity = _identity(question, cells)
    with store.building("ablation_report", fingerprint(identity), log=log) as build:
        if build.artifact is not None:
            return build.artifact, True
        started = time.time()
        summary = build_ablation_report(question, cells, build.folder)
        return build.finish(
            {
                "key": sweep.key,
                "identity": identity,
                "inputs": {c.cell.key: c.evaluation.fingerprint for c in cells if c.evaluation},
                "summary": summary,
                "started": started,
                "seconds": time.time() - started,
                "provenance": provenance(),
            }
        ), False


_SHOWN = ("corpus", "pretrained_denoiser", "exported_model", "evaluation")
