"""Run a plan through Dagster from this process: one Dagster run a token set, a cell, a report.

Runs execute in this process, so that starting a cell costs no interpreter start; training still has its own process.
What is already whole is found by the assets themselves, so two of these at once never compute a thing twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from dagster import DagsterInstance, JobDefinition

from assets.partitions import TOKEN_SET_OF_CELL
from pipelines.instance import process_tag
from sumi_core.planning import CellPlan
from sumi_core.stages import DATA_STAGES


@dataclass
class Outcome:
    """What became of a request: keys that ended well, and the reason of each that did not."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def execute(instance: DagsterInstance, plans: Iterable[CellPlan], overrides: tuple[str, ...]) -> Outcome:
    """Compute what the plans need: token sets first, then cells, then the report of each sweep they belong to."""
    from pipelines.definitions import defs

    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    outcome = Outcome()
    plans = list(plans)
    token_set_job, cell_job, report_job = (defs.resolve_job_def(name) for name in ("token_set", "cell", "report"))
    broken: dict[str, str] = {}
    for name in dict.fromkeys(TOKEN_SET_OF_CELL[p.cell.key] for p in plans if _needs_data(p)):
        error = _run(token_set_job, name, instance, list(DATA_STAGES), overrides)
        if error:
            broken[name] = error
    for planned in plans:
        key = planned.cell.key
        name = TOKEN_SET_OF_CELL[key]
        error = broken.get(name) or _run(
            cell_job, key, instance, ["pretrained_denoiser", "exported_model", "evaluation"], overrides
        )
        if error:
            outcome.failed[key] = error
        else:
            outcome.done.append(key)
    for sweep in dict.fromkeys(planned.cell.sweep for planned in plans):
        error = _run(report_job, sweep, instance, ["ablation_report"], overrides)
        if error:
            outcome.failed[f"{sweep} (report)"] = error
    return outcome


def _needs_data(planned: CellPlan) -> bool:
    return any(stage.stage in DATA_STAGES for stage in planned.pending)


def _run(
    job: JobDefinition, partition: str, instance: DagsterInstance, assets: list[str], overrides: tuple[str, ...]
) -> str | None:
    """One Dagster run in this process. Returns None, or why it failed in one line."""
    print(f"{job.name} {partition}", flush=True)
    config = {"ops": {asset: {"config": {"overrides": list(overrides)}} for asset in assets}} if overrides else None
    result = job.execute_in_process(
        partition_key=partition,
        instance=instance,
        run_config=config,
        tags=process_tag(),
        raise_on_error=False,
    )
    if result.success:
        return None
    for event in result.all_events:
        data = event.event_specific_data if event.is_step_failure else None
        error = getattr(data, "error", None)
        if error is not None:
            while error.cause is not None:  # Dagster wraps what the asset raised
                error = error.cause
            return str(error.message).strip().splitlines()[0]
    return "the run failed; see it in the Dagster UI"
