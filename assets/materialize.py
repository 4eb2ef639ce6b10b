"""The one way an asset is made: find or compute the stage, record it in MLflow, describe it to Dagster."""

from __future__ import annotations

import base64
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dagster import (
    AssetCheckResult,
    AssetCheckSpec,
    AssetExecutionContext,
    DataVersion,
    MaterializeResult,
    MetadataValue,
    PartitionsDefinition,
    PreviewWarning,
)

from assets.partitions import CELLS_BY_KEY, SWEEPS_BY_NAME, cell_of_token_set
from assets.resources import CellConfig, SumiProject, TrainerLauncher
from sumi_core.lineage.store import Artifact
from sumi_core.lineage.tracking import flatten, tracked_failure
from sumi_core.stages import DATA_STAGES, Computation, refresh_source_identities, stages_of
from sumi_core.sweeps import Cell, Sweep, load_sweep, select_cells

IMAGE_LIMIT_BYTES = 500_000  # larger pictures stay in the store: Dagster keeps metadata in its database
PROGRESS_SECONDS = 10.0

Checks = Callable[[Any], Iterable[AssetCheckResult]]  # of an Artifact; of None where an optional stage is not used


def stage_check(name: str, asset: str, partitions: PartitionsDefinition, description: str) -> AssetCheckSpec:
    """A check with a result for each partition; one without ``partitions`` shows that of whichever ran last."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PreviewWarning)
        return AssetCheckSpec(name, asset=asset, partitions_def=partitions, description=description)


def materialize_stage(
    context: AssetExecutionContext,
    sumi: SumiProject,
    config: CellConfig,
    checks: Checks,
    trainer: TrainerLauncher | None = None,
) -> MaterializeResult:
    """Make the asset's stage for its partition. A stage that is whole already is found, not computed again, and is
    reported with the same data version, so that what is downstream stays fresh."""
    stage = context.asset_key.path[-1]
    sweep, cell = _cell(context.partition_key, stage, sumi, config)
    refresh_source_identities()
    if stage not in stages_of(cell.experiment):
        unused: dict[str, Any] = {
            "cached": True,
            "used": False,
            "why": f"no part of {cell.key} is made from what {stage} measures",
        }
        return MaterializeResult(metadata=unused, data_version=DataVersion("unused"), check_results=list(checks(None)))
    project = sumi.project
    computation = Computation(
        project.store,
        launcher=trainer.bind(context) if trainer else None,
        log=context.log.info,
        progress=_Progress(context.log.info),
        provenance={"dagster_run_id": context.run_id},
    )
    if stage in DATA_STAGES:
        artifact, cached = computation.ensure(cell.experiment, cell.key, stage)
        return _result(artifact, cached, checks, {})

    tracking = project.tracking
    tags = {"dagster.run_id": context.run_id, "dagster.partition": cell.key}
    run_id = tracking.open_cell(cell, sweep.description, tags)
    computation.tracking, computation.run_id = tracking, run_id
    computation.provenance["mlflow_run_id"] = run_id
    with tracked_failure(tracking, run_id):
        artifact, cached = computation.ensure(cell.experiment, cell.key, stage)
        for earlier in stages_of(cell.experiment):
            found = computation.whole(cell.experiment, earlier)
            if found is not None:
                tracking.record_stage(run_id, found)
    if stage == "evaluation":
        tracking.close(run_id)
    links = {"mlflow_run": MetadataValue.url(tracking.run_url(run_id)), "mlflow_run_id": run_id}
    return _result(artifact, cached, checks, links)


def _cell(partition: str, stage: str, sumi: SumiProject, config: CellConfig) -> tuple[Sweep, Cell]:
    """The partition's cell as its file says now, with the run's overrides. Other files are not read."""
    if stage not in DATA_STAGES:
        known = CELLS_BY_KEY[partition]
    else:  # overrides are meant for the cell that asks: those that share its tokens may not take them
        known = CELLS_BY_KEY[config.cell] if config.cell else cell_of_token_set(partition)
    sweep = load_sweep(SWEEPS_BY_NAME[known.sweep].file, sumi.project.experiments, tuple(config.overrides))
    return sweep, select_cells({sweep.name: sweep}, [known.key])[0]


class _Progress:
    """Progress of a stage as lines of its log, one every few seconds."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log, self._last = log, time.monotonic()

    def __call__(self, done: float, total: float, unit: str, note: str) -> None:
        if time.monotonic() - self._last >= PROGRESS_SECONDS:
            self._last = time.monotonic()
            self._log(f"{note}: {done:,.0f}{f' of {total:,.0f}' if total else ''} {unit}")


def _result(artifact: Artifact, cached: bool, checks: Checks, links: dict[str, Any]) -> MaterializeResult:
    return MaterializeResult(
        metadata={**links, "cached": cached, **artifact_metadata(artifact)},
        data_version=DataVersion(artifact.fingerprint),
        check_results=list(checks(artifact)),
        tags={"sumi/fingerprint": artifact.fingerprint},
    )


def artifact_metadata(artifact: Artifact) -> dict[str, Any]:
    """A stage's summary, report and pictures, as Dagster shows them."""
    metadata: dict[str, Any] = {
        "fingerprint": artifact.fingerprint,
        "folder": MetadataValue.path(str(artifact.folder)),
        "seconds": round(float(artifact.manifest["seconds"]), 3),
    }
    for key, value in flatten(artifact.summary):
        if isinstance(value, bool | int | float | str):
            metadata[key] = value
        elif value is not None:
            metadata[key] = MetadataValue.json(value)
    return {**metadata, **folder_metadata(artifact.folder)}


def folder_metadata(folder: Path) -> dict[str, Any]:
    """``report.md`` and ``plots/*.png`` of a folder as Markdown metadata; the pictures travel inside it."""
    shown: dict[str, Any] = {}
    if (folder / "report.md").is_file():
        shown["report"] = MetadataValue.md((folder / "report.md").read_text(encoding="utf-8"))
    for plot in sorted((folder / "plots").glob("*.png")):
        if plot.stat().st_size <= IMAGE_LIMIT_BYTES:
            data = base64.b64encode(plot.read_bytes()).decode()
            shown[f"plot_{plot.stem}"] = MetadataValue.md(f"![{plot.stem}](data:image/png;base64,{data})")
    return shown
