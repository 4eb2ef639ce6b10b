"""Stage 2: the tokenizer, fitted on the train split only."""

from collections.abc import Iterator

from dagster import AssetCheckResult, AssetCheckSpec, AssetExecutionContext, MaterializeResult, asset

from assets.materialize import materialize_stage
from assets.partitions import TOKEN_SETS
from assets.resources import CellConfig, SumiProject
from sumi_core.lineage.store import Artifact
from sumi_core.stages import STAGES


@asset(
    deps=["corpus"],
    partitions_def=TOKEN_SETS,
    group_name="data",
    kinds={"huggingface"},
    code_version=STAGES["tokenizer"].version,
    check_specs=[AssetCheckSpec("round_trip_is_exact", asset="tokenizer")],
)
def tokenizer(context: AssetExecutionContext, config: CellConfig, sumi: SumiProject) -> MaterializeResult:
    """Text to token ids and back, byte for byte; checked on every validation document."""
    return materialize_stage(context, sumi, config, _checks)


def _checks(artifact: Artifact) -> Iterator[AssetCheckResult]:
    checked = artifact.summary["round_trip_documents"]
    yield AssetCheckResult(check_name="round_trip_is_exact", passed=checked > 0, metadata={"documents": checked})
