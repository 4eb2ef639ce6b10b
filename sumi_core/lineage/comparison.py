"""Cells side by side as MLflow has them: the latest run of each cell's current recipe, and the yardsticks."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.lineage.targets import mlflow_exists
from sumi_core.objectives import OBJECTIVES
from sumi_core.project import Project
from sumi_core.stages import stage_fingerprint
from sumi_core.sweeps import Cell

if TYPE_CHECKING:
    from mlflow.entities import Run

_TRAINING = ("parameters", "train_tokens", "flops", "seconds", "tokens_per_second")
_YARDSTICK = "evaluation/yardsticks."


def comparison_table(project: Project, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """One row a cell and a yardstick: cells and yardsticks with figures from best to worst, then the other cells.

    Every row has ``kind`` (cell or yardstick), ``name``, ``state``, ``why`` and ``bits_per_byte`` (None without
    figures). Rows of cells add ``objective``, ``process``, ``schedule``, ``exact`` (whether bits per byte are exact or
    an upper bound), ``stderr``, ``reference``, ``difference`` and ``difference_stderr`` (bits per byte beyond those of
    the reference cell, as the sweep's report has them, None where it does not), ``parameters``, ``train_tokens``,
    ``flops``, ``seconds``, ``tokens_per_second``, ``seed``, ``fingerprint`` and ``mlflow_run_id``.
    """
    runs = _runs_by_cell(project, cells)
    rows = [_cell_row(cell, runs.get(cell.key, [])) for cell in cells]
    _add_differences(project, cells, rows)
    yardsticks = _yardsticks({row["name"]: run for row in rows for run in [_run_of(row, runs)] if run is not None})
    measured = sorted([*rows, *yardsticks], key=_order)
    return measured


def _order(row: Mapping[str, Any]) -> tuple[bool, float]:
    return row["bits_per_byte"] is None, row["bits_per_byte"] or 0.0


def _runs_by_cell(project: Project, cells: Sequence[Cell]) -> dict[str, list[Run]]:
    """Cell runs by cell, newest first. Asks MLflow once, and creates nothing."""
    if not mlflow_exists(project):
        return {}
    known = {experiment.name for experiment in project.tracking.client.search_experiments()}
    sweeps = [sweep for sweep in dict.fromkeys(cell.sweep for cell in cells) if sweep in known]
    found: dict[str, list[Run]] = {}
    for run in project.tracking.cell_runs(sweeps) if sweeps else []:
        found.setdefault(str(run.data.tags.get("sumi.cell")), []).append(run)
    return found


def _cell_row(cell: Cell, runs: Sequence[Run]) -> dict[str, Any]:
    config, own = cell.experiment, stage_fingerprint(cell.experiment, "evaluation")
    current = [run for run in runs if run.data.tags.get("sumi.fingerprint.evaluation") == own]
    finished = [run for run in current if run.data.tags.get("sumi.recorded.evaluation") == own]
    state, why = _state(runs, current, finished)
    metrics: Mapping[str, float] = finished[0].data.metrics if finished else {}
    chosen = (finished or current or [None])[0]
    objective: Any = OBJECTIVES.get(config.objective["name"])
    return {
        "kind": "cell",
        "name": cell.key,
        "state": state,
        "why": why,
        "labels": dict(cell.labels),
        "objective": config.objective["name"],
        "process": config.process["name"] if config.process else None,
        "schedule": config.schedule["name"] if config.schedule else None,
        "seed": config.seed,
        "exact": bool(objective.exact),
        "bits_per_byte": metrics.get("evaluation/bits_per_byte"),
        "stderr": metrics.get("evaluation/bits_per_byte_stderr"),
        "reference": None,
        "difference": None,
        "difference_stderr": None,
        **{name: _whole(metrics.get(f"pretrained_denoiser/{name}"), name) for name in _TRAINING},
        "fingerprint": own,
        "mlflow_run_id": str(chosen.info.run_id) if chosen else None,
    }


def _whole(value: float | None, name: str) -> float | int | None:
    """MLflow keeps every figure as a float; counts are whole numbers."""
    return int(value) if value is not None and name in ("parameters", "train_tokens") else value


def _state(runs: Sequence[Run], current: Sequence[Run], finished: Sequence[Run]) -> tuple[str, str]:
    if finished:
        return "done", ""
    if current:
        run = current[0]
        error = str(run.data.tags.get("sumi.error", "")).splitlines()
        if run.info.status == "FAILED":
            return "failed", error[0] if error else "see its MLflow run"
        return str(run.info.status).lower(), "its figures are not in MLflow yet"
    if runs:
        return "stale", "only another recipe of it was computed; `sumi plan` says what changed"
    return "missing", "never computed"


def _run_of(row: Mapping[str, Any], runs: Mapping[str, Sequence[Run]]) -> Run | None:
    if row["bits_per_byte"] is None:
        return None
    return next(run for run in runs[row["name"]] if run.info.run_id == row["mlflow_run_id"])


def _yardsticks(runs: Mapping[str, Run]) -> list[dict[str, Any]]:
    """Each yardstick once, or once for each value it has where cells differ in text or tokenizer."""
    found: dict[tuple[str, float], list[str]] = {}
    for key, run in runs.items():
        for name, value in run.data.metrics.items():
            if name.startswith(_YARDSTICK):
                found.setdefault((name.removeprefix(_YARDSTICK), round(value, 9)), []).append(key)
    names = [name for name, _ in found]
    return [
        {
            "kind": "yardstick",
            "name": name if names.count(name) == 1 else f"{name} ({', '.join(owners)})",
            "state": "done",
            "why": "",
            "bits_per_byte": value,
        }
        for (name, value), owners in found.items()
    ]


def _add_differences(project: Project, cells: Sequence[Cell], rows: Sequence[dict[str, Any]]) -> None:
    """The paired differences that each sweep's report holds, where it was made from these very figures."""
    by_name = {row["name"]: row for row in rows if row["bits_per_byte"] is not None}
    for sweep in dict.fromkeys(cell.sweep for cell in cells if cell.key in by_name):
        report = _report(project, sweep)
        then = {row["name"]: row for row in report.get("rows", []) if row.get("kind") == "cell"}
        reference = report.get("reference")

        def same(name: str, then: Mapping[str, Any] = then) -> bool:
            now, old = by_name.get(name), then.get(name)
            return now is not None and old is not None and old.get("bits_per_byte") == now["bits_per_byte"]

        if reference is None or not same(reference):
            continue
        for name in filter(same, then):
            by_name[name] |= {
                "reference": reference,
                "difference": then[name].get("difference"),
                "difference_stderr": then[name].get("difference_stderr"),
            }


def _report(project: Project, sweep: str) -> dict[str, Any]:
    """``report.json`` of a sweep's own run; empty without one."""
    client = project.tracking.client
    experiment = client.get_experiment_by_name(sweep)
    if experiment is None:
        return {}
    condition = f"tags.`sumi.kind` = 'sweep' and tags.`sumi.sweep` = '{sweep}'"
    parents = client.search_runs([experiment.experiment_id], condition, max_results=1)
    if not parents or "sumi.recorded.ablation_report" not in parents[0].data.tags:
        return {}
    run_id = parents[0].info.run_id
    if not any(file.path == "report/report.json" for file in client.list_artifacts(run_id, "report")):
        return {}
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with tempfile.TemporaryDirectory() as folder:
        path = client.download_artifacts(run_id, "report/report.json", folder)
        return dict(json.loads(Path(path).read_text(encoding="utf-8")))
