"""Stage 1: documents, split into train and validation."""

from collections.abc import Iterator

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetExecutionContext,
    MaterializeResult,
    asset,
)

from assets.materialize import materialize_stage, stage_check
from assets.partitions import TOKEN_SETS
from assets.resources import CellConfig, SumiProject
from sumi_core.lineage.store import Artifact
from sumi_core.stages import STAGES


@asset(
    partitions_def=TOKEN_SETS,
    group_name="data",
    kinds={"parquet"},
    code_version=STAGES["corpus"].version,
    check_specs=[
        stage_check(
            "validation_has_its_share",
            "corpus",
            TOKEN_SETS,
            "Validation has between half and twice the share of bytes that was asked for.",
        )
    ],
)
def corpus(context: AssetExecutionContext, config: CellConfig, sumi: SumiProject) -> MaterializeResult:
    """Documents with ids, exact duplicates removed, split into train and validation by a hash of each document."""
    return materialize_stage(context, sumi, config, _checks)


def _checks(artifact: Artifact) -> Iterator[AssetCheckResult]:
    sizes = {split: int(artifact.summary[f"{split}_bytes"]) for split in ("train", "validation")}
    asked = float(artifact.manifest["experiment"]["corpus"]["validation_fraction"])
    share = sizes["validation"] / sum(sizes.values())
    yield AssetCheckResult(
        check_name="validation_has_its_share",
        passed=asked / 2 <= share <= asked * 2,
        severity=AssetCheckSeverity.WARN,
        description="Documents are split as they come: where they are few or uneven, bytes may be shared otherwise.",
        metadata={**sizes, "share": share, "asked": asked},
    )
