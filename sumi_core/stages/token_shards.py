"""Stage ``token_shards``: token ids with document boundaries and exact byte counts, packed into sequences."""

from __future__ import annotations

from typing import Any

from sumi_core.stages.base import Check, Records, Stage, StageContext, Verdict
from sumi_core.stages.store import Artifact


def build(context: StageContext) -> dict[str, Any]:
    """Tokenize both splits; see ``sumi_core.data.shards``."""
    from sumi_core.data.shards import write_token_shards

    corpus = context.inputs["corpus"]
    return write_token_shards(
        corpus.folder,
        {split: corpus.summary[f"{split}_bytes"] for split in ("train", "validation")},
        context.inputs["tokenizer"].folder,
        context.experiment.shards,
        context.folder,
        workers=context.experiment.runtime.data_workers,
        log=context.log,
        progress=context.progress,
    )


def _checksums_match(artifact: Artifact) -> Verdict:
    from sumi_core.data.shards import ShardError, TokenShards

    try:
        TokenShards(artifact.folder).verify()
    except ShardError as error:
        return Verdict(False, str(error))
    return Verdict(True)


STAGE = Stage(
    "token_shards",
    "2",
    "Token ids with document boundaries and exact UTF-8 byte counts, packed into sequences.",
    build,
    "token_set",
    doing="turning documents into tokens",
    reads=("shards",),
    inputs=("corpus", "tokenizer"),
    tables=("token_counts",),
    resumable=True,
    checks=(Check("checksums_match", "Every shard holds the bytes that its index records.", _checksums_match),),
    records=Records(dataset=True),
    group="data",
    kinds=frozenset({"numpy"}),
)
