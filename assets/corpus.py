"""Stage 1: documents, split into train and validation."""

from collections.abc import Iterator

from dagster import AssetCheckResult, AssetCheckSpec, AssetExecutionContext, MaterializeResult, asset

from assets.materialize import materialize_stage
from assets.partitions import TOKEN_SETS
from assets.resources import CellConfig, SumiProject
from sumi_core.lineage.store import Artifact
from sumi_core.stages import STAGES


@asset(
    partitions_def=TOKEN_SETS,
    group_name="data",
    kinds={"parquet"},
    code_version=STAGES["corpus"].version,
    check_specs=[AssetCheckSpec("both_splits_have_text", asset="corpus")],
)
def corpus(context: AssetExecutionContext, config: CellConfig, sumi: SumiProject) -> MaterializeResult:
    """Documents with ids, exact duplicates removed, split into train and validation by a hash of each document."""
    return materialize_stage(context, sumi, config, _checks)


def _checks(artifact: Artifact) -> Iterator[AssetCheckResult]:
    sizes = {split: artifact.summary[f"{split}_bytes"] for split in ("train", "validation")}
    yield AssetCheckResult(check_name="both_splits_have_text", passed=min(sizes.values()) > 0, metadata=sizes)
