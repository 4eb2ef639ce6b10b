"""The cells of a sweep side by side."""

from typing import Any

from dagster import AssetExecutionContext, DataVersion, MaterializeResult, MetadataValue, asset

from assets.factory import folder_metadata
from assets.partitions import SWEEPS, SWEEPS_BY_NAME, from_cells
from assets.resources import CellConfig, SumiProject
from sumi_core.base.hashing import flatten
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
    """Table, ranking with uncertainty and plots of every cell; failed and missing cells are shown as such."""
    project, overrides = sumi.project, tuple(config.overrides)
    sweep = load_sweep(SWEEPS_BY_NAME[context.partition_key].file, project.experiments, overrides)
    artifact, cached = build_sweep_report(project.store, sweep, context.log.info)
    links: dict[str, Any] = {}
    if not overrides:  # overrides are not part of the sweep's record
        tracking = project.tracking
        run_id = tracking.record_report(sweep.name, artifact, sweep.description)
        links = {"mlflow_run": MetadataValue.url(tracking.run_url(run_id))}
        if comparison := tracking.comparison_url(sweep.cells):
            links["mlflow_comparison"] = MetadataValue.url(comparison)
    figures = {key: value for key, value in flatten(artifact.summary) if isinstance(value, int | float | str)}
    return MaterializeResult(
        metadata={
            **links,
            "cached": cached,
            "folder": MetadataValue.path(str(artifact.folder)),
            **figures,
            **folder_metadata(artifact.folder),
        },
        data_version=DataVersion(artifact.fingerprint),
        tags={"sumi/fingerprint": artifact.fingerprint},
    )
