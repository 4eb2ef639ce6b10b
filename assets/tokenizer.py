"""Stage 2: the tokenizer, fitted on the train split only."""

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
    deps=["corpus"],
    partitions_def=TOKEN_SETS,
    group_name="data",
    kinds={"huggingface"},
    code_version=STAGES["tokenizer"].version,
    check_specs=[
        stage_check(
            "any_text_survives",
            "tokenizer",
            TOKEN_SETS,
            "Texts such as corpora seldom hold come back byte for byte from the tokenizer as it was saved.",
        )
    ],
)
def tokenizer(context: AssetExecutionContext, config: CellConfig, sumi: SumiProject) -> MaterializeResult:
    """Text to token ids and back, byte for byte; checked on every validation document."""
    return materialize_stage(context, sumi, config, _checks)


# What corpora seldom hold and prompts may: scripts, joined emoji, controls, odd blanks, a special token spelt out.
_ODD_TEXTS = (
    "Naïve Ελλάδα 日本語 👩\u200d🔬 e\u0301",
    "\ttabs,  blanks \r\n\n",
    "\x00\x07\u202e\ufeff",
    "<|endoftext|>",
    "",
)


def _checks(artifact: Artifact) -> Iterator[AssetCheckResult]:
    from sumi_core.data.sources import Document
    from sumi_core.data.tokenization import check_round_trip
    from sumi_core.data.tokenizers import TokenizerError, load_tokenizer

    texts = [Document(f"odd text {number}", text) for number, text in enumerate(_ODD_TEXTS, start=1)]
    try:
        check_round_trip(load_tokenizer(artifact.folder), texts)  # as it was saved, and opened again
    except TokenizerError as error:
        # The corpus itself survives: the stage has seen to that.
        name, severity = "any_text_survives", AssetCheckSeverity.WARN
        yield AssetCheckResult(check_name=name, passed=False, severity=severity, description=str(error))
    else:
        yield AssetCheckResult(check_name="any_text_survives", passed=True)
