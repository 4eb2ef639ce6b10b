"""The stages of an experiment: one file each, in the order data flows."""

from sumi_core.stages import (
    corpus,
    evaluation,
    exported_model,
    pretrained_denoiser,
    token_clusters,
    token_shards,
    tokenizer,
)
from sumi_core.stages.base import Stage

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        corpus.STAGE,
        tokenizer.STAGE,
        token_shards.STAGE,
        token_clusters.STAGE,
        pretrained_denoiser.STAGE,
        exported_model.STAGE,
        evaluation.STAGE,
    )
}
DATA_STAGES = tuple(name for name, stage in STAGES.items() if stage.partition == "token_set")
CELL_STAGES = tuple(name for name, stage in STAGES.items() if stage.partition == "cell")
#: Token table → the stage that writes it, into ``<table>.npy``.
TOKEN_TABLES = {table: name for name, stage in STAGES.items() for table in stage.tables}
