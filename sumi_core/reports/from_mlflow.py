"""Cells side by side as MLflow has them: the latest run of each cell's current recipe, and the yardsticks.

MLflow has every figure; a cell's state is that of the plan, as `sumi list` prints it, and the likelihoods of the texts,
which paired differences are made from, are in the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sumi_core.experiments.sweeps import Cell
from sumi_core.lineage.plan import CellPlan, plan
from sumi_core.lineage.project import Project
from sumi_core.lineage.targets import mlflow_exists
from sumi_core.lineage.tracked_figures import NONE, evaluation_constants, training_name
from sumi_core.objectives import OBJECTIVES
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
    from mlflow.entities import Run

_READING = "evaluation/readings."
_INITIAL_READING = "evaluation/initial_readings."
_YARDSTICK = "evaluation/yardsticks."


def compare_tracked(project: Project, cells: Sequence[Cell], reference: str | None = None) -> Comparison:
    """Cells and yardsticks with the figures that MLflow has of the cells' current recipes. Creates nothing.

    reference: the cell or group that differences are taken to; without it, the best."""
    runs = _runs_by_cell(project, cells)
    rows: list[Row] = []
    yardsticks: dict[str, dict[str, float]] = {}
    likelihoods: dict[str, CellLikelihood] = {}
    for planned in plan(cells, project.store):
        run = _finished(project, planned, runs.get(planned.cell.key, []))
        row = _cell_row(planned, run)
        rows.append(row)
        evaluation = planned.artifacts.get("evaluation")
        if run is not None and row.bits_per_byte is not None:
            if "yardsticks" in _measured(planned.cell):
                yardsticks[row.name] = _below(evaluation_constants(run), _YARDSTICK)
            if evaluation is not None:
                likelihoods[row.name] = CellLikelihood.load(evaluation.folder / "likelihood.parquet")
        trained = planned.artifacts.get("pretrained_denoiser")
        add_measured(row, likelihoods.get(row.name), trained.folder if trained else None)
    return compare_rows(
        [*rows, *yardstick_rows(yardsticks)],
        likelihoods,
        groups=seed_groups(cells),
        reference=reference,
        overrides=shared_overrides(cells),
    )


def _runs_by_cell(project: Project, cells: Sequence[Cell]) -> dict[str, list[Run]]:
    """Cell runs by cell, newest first. Queries MLflow once, and creates nothing."""
    if not mlflow_exists(project):
        return {}
    found: dict[str, list[Run]] = {}
    for run in project.tracking.cell_runs(dict.fromkeys(cell.sweep for cell in cells)):
        found.setdefault(str(run.data.tags.get("sumi.cell")), []).append(run)
    return found


def _finished(project: Project, planned: CellPlan, runs: Sequence[Run]) -> Run | None:
    """The newest run that has the figures of the cell's current recipe."""
    own = _evaluation_of(planned)
    return next((run for run in runs if own and project.tracking.is_recorded(run, "evaluation", own)), None)


def _evaluation_of(planned: CellPlan) -> str:
    """The fingerprint of its evaluation; empty while it is not known."""
    return next(stage.fingerprint for stage in planned.stages if stage.stage == "evaluation")


def _cell_row(planned: CellPlan, run: Run | None) -> Row:
    done = planned.state == "done"
    row = Row.of_cell(planned.cell, planned.state, "" if done else planned.why)
    row.fingerprint = _evaluation_of(planned) or None
    if run is None:
        if done:
            row.why = f"its figures are not in MLflow; `sumi run {planned.cell.request}` records them"
        return row
    objective = planned.cell.experiment.objective
    metrics = run.data.metrics
    row.exact, row.mlflow_run_id = (
        bool(OBJECTIVES.get(objective["name"]).reports_exactly(objective)),
        str(run.info.run_id),
    )
    row.reading = reported_reading(planned.cell.experiment)
    row.bits_per_byte = metrics.get("bits_per_byte")
    row.stderr = metrics.get("bits_per_byte_stderr")
    row.mc_stderr = metrics.get("bits_per_byte_mc_stderr")
    if "readings" in _measured(planned.cell):
        row.readings = _below(metrics, _READING)
    if "initial_readings" in _measured(planned.cell):
        row.initial_readings = _below(metrics, _INITIAL_READING)
    if "gradient_noise" in _measured(planned.cell):
        row.gradient_variance = metrics.get("evaluation/gradient_noise.variance")
        row.gradient_variance_stderr = metrics.get("evaluation/gradient_noise.variance_stderr")
    for name in TRAINING_METRICS:
        value = run.data.params.get(name, metrics.get(training_name(name)))
        value = None if value == NONE else value
        # Both are kept as text or as a float by MLflow, whatever they were.
        whole = name in ("parameters", "tokens_seen", "peak_memory_bytes")
        setattr(row, name, None if value is None else int(float(value)) if whole else float(value))
    return row


def _measured(cell: Cell) -> set[str]:
    """What the current evaluation of a cell measures: its run may hold figures of an earlier one too."""
    return {measurement["name"] for measurement in cell.experiment.evaluation.measurements}


def _below(metrics: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}
