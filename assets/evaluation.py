"""Stage 7: what the model is worth."""

from collections.abc import Iterator

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetExecutionContext,
    MaterializeResult,
    asset,
)

from assets.materialize import materialize_stage, stage_check
from assets.partitions import CELLS, from_token_set
from assets.resources import CellConfig, SumiProject
from sumi_core.lineage.store import Artifact
from sumi_core.stages import STAGES


@asset(
    deps=["exported_model", from_token_set("token_shards"), from_token_set("corpus")],
    partitions_def=CELLS,
    group_name="evaluation",
    kinds={"pandas"},
    code_version=STAGES["evaluation"].version,
    check_specs=[
        stage_check(
            "beats_token_frequencies",
            "evaluation",
            CELLS,
            "The model codes validation text in fewer bits than token frequencies alone.",
        )
    ],
)
def evaluation(context: AssetExecutionContext, config: CellConfig, sumi: SumiProject) -> MaterializeResult:
    """Bits per byte with its standard error, loss by noise level, yardsticks on the same bytes, samples."""
    return materialize_stage(context, sumi, config, _checks)


def _checks(artifact: Artifact) -> Iterator[AssetCheckResult]:
    model = float(artifact.summary["bits_per_byte"])
    unigram = float(artifact.summary["yardsticks"]["unigram_tokens"])
    yield AssetCheckResult(
        check_name="beats_token_frequencies",
        passed=model < unigram,
        severity=AssetCheckSeverity.WARN,
        description="A model that learned anything codes text in fewer bits than token frequencies alone.",
        metadata={"bits_per_byte": model, "unigram_tokens": unigram},
    )
