"""Stage 4, for processes that know which tokens are alike: a cluster for every token."""

from collections.abc import Iterator

from dagster import AssetCheckResult, AssetExecutionContext, MaterializeResult, asset

from assets.materialize import materialize_stage, stage_check
from assets.partitions import CELLS, from_token_set
from assets.resources import CellConfig, SumiProject
from sumi_core.lineage.store import Artifact
from sumi_core.stages import STAGES


@asset(
    deps=[from_token_set("tokenizer"), from_token_set("token_shards")],
    partitions_def=CELLS,
    group_name="data",
    kinds={"scikitlearn"},
    code_version=STAGES["token_clusters"].version,
    check_specs=[
        stage_check(
            "more_than_one_cluster",
            "token_clusters",
            CELLS,
            "One cluster in all would be uniform noise under another name.",
        )
    ],
)
def token_clusters(context: AssetExecutionContext, config: CellConfig, sumi: SumiProject) -> MaterializeResult:
    """Which tokens noise takes for alike. Cells whose process knows of no clusters have none."""
    return materialize_stage(context, sumi, config, _checks)


def _checks(artifact: Artifact | None) -> Iterator[AssetCheckResult]:
    """One cluster in all would be uniform noise under another name."""
    clusters = artifact.summary["clusters"] if artifact else None
    yield AssetCheckResult(
        check_name="more_than_one_cluster",
        passed=clusters is None or clusters > 1,
        description="This cell has no clusters." if clusters is None else "",
        metadata={"clusters": clusters} if clusters is not None else {},
    )
