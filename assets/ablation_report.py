"""Stage 7: the cells of a sweep side by side."""

from dagster import AssetExecutionContext, DataVersion, MaterializeResult, MetadataValue, asset

from assets.materialize import folder_metadata
from assets.partitions import SWEEPS, from_cells
from assets.resources import CellConfig, SumiProject
from sumi_core.lineage.tracking import flatten
from sumi_core.reporting import build_sweep_report


@asset(
    deps=[from_cells("evaluation")],
    partitions_def=SWEEPS,
    group_name="report",
    kinds={"markdown"},
    code_version="1",
)
def ablation_report(context: AssetExecutionContext, config: CellConfig, sumi: SumiProject) -> MaterializeResult:
    """Table, ranking with uncertainty and plots of every cell; failed and missing cells are shown as such."""
    artifact, cached = build_sweep_report(
        sumi.project, context.partition_key, tuple(config.overrides), context.log.info
    )
    tracking = sumi.project.tracking
    run_id = tracking.record_report(context.partition_key, artifact)
    link = f"{sumi.mlflow_ui}/#/experiments/{tracking.experiment_id(context.partition_key)}/runs/{run_id}"
    figures = {key: value for key, value in flatten(artifact.summary) if isinstance(value, int | float | str)}
    return MaterializeResult(
        metadata={
            "mlflow_run": MetadataValue.url(link),
            "cached": cached,
            "folder": MetadataValue.path(str(artifact.folder)),
            **figures,
            **folder_metadata(artifact.folder),
        },
        data_version=DataVersion(artifact.fingerprint),
        tags={"sumi/fingerprint": artifact.fingerprint},
    )
