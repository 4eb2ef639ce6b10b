"""Stage 5: pretraining, in a process of its own."""

import math
from collections.abc import Iterator

from dagster import AssetCheckResult, AssetExecutionContext, MaterializeResult, asset

from assets.materialize import materialize_stage, stage_check
from assets.partitions import CELLS, from_token_set
from assets.resources import CellConfig, SumiProject, TrainerLauncher
from sumi_core.lineage.store import Artifact
from sumi_core.stages import STAGES


@asset(
    deps=[from_token_set("tokenizer"), from_token_set("token_shards"), "token_clusters"],
    partitions_def=CELLS,
    group_name="model",
    kinds={"pytorch", "lightning"},
    pool="trainer",
    code_version=STAGES["pretrained_denoiser"].version,
    check_specs=[
        stage_check(
            "validation_loss_is_finite", "pretrained_denoiser", CELLS, "The last validation of training is a number."
        )
    ],
)
def pretrained_denoiser(
    context: AssetExecutionContext, config: CellConfig, sumi: SumiProject, trainer: TrainerLauncher
) -> MaterializeResult:
    """A denoiser (or autoregressive baseline) trained by Lightning; resumes exactly where a killed run stopped."""
    return materialize_stage(context, sumi, config, _checks, trainer)


def _checks(artifact: Artifact) -> Iterator[AssetCheckResult]:
    final = float(artifact.summary["validation_bits_per_byte"])
    yield AssetCheckResult(
        check_name="validation_loss_is_finite",
        passed=math.isfinite(final),
        metadata={"validation_bits_per_byte": final},
    )
