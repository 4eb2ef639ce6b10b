"""The cells of a sweep side by side."""

import shlex
from typing import Any

from dagster import AssetExecutionContext, DataVersion, MaterializeResult, MetadataValue, asset

from assets.factory import artifact_metadata
from assets.partitions import SWEEPS, SWEEPS_BY_NAME, from_cells, known_partition, refuse_other_name
from assets.resources import CellConfig, SumiProject
from sumi_core.experiments.sweeps import load_sweep
from sumi_core.reports.artifact import REPORT_VERSION, build_sweep_report


@asset(
    deps=[from_cells("evaluation")],
    partitions_def=SWEEPS,
    group_name="report",
    kinds={"markdown"},
    code_version=REPORT_VERSION,
)
def ablation_report(context: AssetExecutionContext, config: CellConfig, sumi: SumiProject) -> MaterializeResult:
    """Every cell beside the others, with uncertainty and plots; failed and missing cells are shown as such."""
    project = sumi.project
    known = known_partition(context.partition_key, SWEEPS_BY_NAME)
    overrides = (*known.overrides, *(own for own in config.overrides if own not in known.overrides))
    sweep = load_sweep(known.file, project.experiments, overrides)
    refuse_other_name(context.partition_key, known.key, sweep.key, shlex.join([sweep.name, *sweep.overrides]))
    artifact, cached = build_sweep_report(project.store, sweep, context.log.info)
    tracking = project.tracking
    run_id = tracking.record_report(sweep, artifact)
    links: dict[str, Any] = {"mlflow_run": MetadataValue.url(tracking.run_url(run_id))}
    if comparison := tracking.comparison_url(sweep.cells):
        links["mlflow_comparison"] = MetadataValue.url(comparison)
    return MaterializeResult(
        metadata={**links, **artifact_metadata(artifact), "cached": cached},
        data_version=DataVersion(artifact.fingerprint),
        tags={"sumi/fingerprint": artifact.fingerprint},
    )
