"""Stage 3: memory-mapped token shards."""

from collections.abc import Iterator

from dagster import AssetCheckResult, AssetExecutionContext, MaterializeResult, asset

from assets.materialize import materialize_stage, stage_check
from assets.partitions import TOKEN_SETS
from assets.resources import CellConfig, SumiProject
from sumi_core.lineage.store import Artifact
from sumi_core.stages import STAGES


@asset(
    deps=["corpus", "tokenizer"],
    partitions_def=TOKEN_SETS,
    group_name="data",
    kinds={"numpy"},
    code_version=STAGES["token_shards"].version,
    check_specs=[
        stage_check(
            "checksums_match", "token_shards", TOKEN_SETS, "Every shard holds the bytes that its index records."
        )
    ],
)
def token_shards(context: AssetExecutionContext, config: CellConfig, sumi: SumiProject) -> MaterializeResult:
    """Token ids with document boundaries and exact UTF-8 byte counts, packed into sequences."""
    return materialize_stage(context, sumi, config, _checks)


def _checks(artifact: Artifact) -> Iterator[AssetCheckResult]:
    from sumi_core.data.shards import ShardError, TokenShards

    try:
        TokenShards(artifact.folder).verify()
    except ShardError as error:
        yield AssetCheckResult(check_name="checksums_match", passed=False, description=str(error))
    else:
        yield AssetCheckResult(check_name="checksums_match", passed=True)
