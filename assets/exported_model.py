"""Stage 5: a model folder that stock transformers opens."""

from collections.abc import Iterator

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    MaterializeResult,
    asset,
)

from assets.materialize import materialize_stage
from assets.partitions import CELLS
from assets.resources import CellConfig, SumiProject
from sumi_core.lineage.store import Artifact
from sumi_core.stages import STAGES


@asset(
    deps=["pretrained_denoiser"],
    partitions_def=CELLS,
    group_name="model",
    kinds={"huggingface"},
    code_version=STAGES["exported_model"].version,
    check_specs=[AssetCheckSpec("stock_logits_match", asset="exported_model")],
)
def exported_model(context: AssetExecutionContext, config: CellConfig, sumi: SumiProject) -> MaterializeResult:
    """Weights, tokenizer, process and lineage in one folder, opened again with stock code and compared."""
    return materialize_stage(context, sumi, config, _checks)


def _checks(artifact: Artifact) -> Iterator[AssetCheckResult]:
    difference = artifact.summary.get("max_logit_difference")
    yield AssetCheckResult(
        check_name="stock_logits_match",
        passed=difference is not None and difference <= 1e-4,
        severity=AssetCheckSeverity.ERROR if artifact.summary["stock_loadable"] else AssetCheckSeverity.WARN,
        metadata={"max_logit_difference": difference} if difference is not None else {},
    )
