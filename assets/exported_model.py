"""Stage 6: a model folder that stock transformers opens."""

import json
from collections.abc import Iterator

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetExecutionContext,
    MaterializeResult,
    asset,
)

from assets.materialize import materialize_stage, stage_check
from assets.partitions import CELLS
from assets.resources import CellConfig, SumiProject
from sumi_core.lineage.fingerprint import file_sha256
from sumi_core.lineage.store import Artifact
from sumi_core.stages import STAGES


@asset(
    deps=["pretrained_denoiser"],
    partitions_def=CELLS,
    group_name="model",
    kinds={"huggingface"},
    code_version=STAGES["exported_model"].version,
    check_specs=[
        stage_check(
            "weights_are_as_recorded", "exported_model", CELLS, "The weights have the checksum that the export records."
        ),
        stage_check(
            "stock_transformers_opens_it",
            "exported_model",
            CELLS,
            "Stock transformers opens the folder, with no remote code, to the logits that were trained.",
        ),
    ],
)
def exported_model(context: AssetExecutionContext, config: CellConfig, sumi: SumiProject) -> MaterializeResult:
    """Weights, tokenizer, process and lineage in one folder, opened again with stock code and compared."""
    return materialize_stage(context, sumi, config, _checks)


def _checks(artifact: Artifact) -> Iterator[AssetCheckResult]:
    from sumi_core.export.record import RECORD, WEIGHTS

    recorded = json.loads((artifact.folder / RECORD).read_text(encoding="utf-8"))["weights_sha256"]
    found = file_sha256(artifact.folder / WEIGHTS)
    yield AssetCheckResult(
        check_name="weights_are_as_recorded", passed=found == recorded, metadata={"recorded": recorded, "found": found}
    )
    difference = artifact.summary["max_logit_difference"]
    yield AssetCheckResult(
        check_name="stock_transformers_opens_it",
        passed=bool(artifact.summary["stock_loadable"]),
        severity=AssetCheckSeverity.WARN,
        description=artifact.summary["reason"],
        metadata={} if difference is None else {"max_logit_difference": difference},
    )
