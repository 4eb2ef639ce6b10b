"""Stage ``token_clusters``: a cluster for every token, for parts that know which tokens are alike."""

from __future__ import annotations

from typing import Any

from sumi_core.data import CLUSTERINGS
from sumi_core.stages.base import Check, Stage, StageContext, Verdict
from sumi_core.stages.store import Artifact


def build(context: StageContext) -> dict[str, Any]:
    """Cluster and describe. Raises what the clustering raises."""
    from sumi_core.data.clusters.writing import write_clusters
    from sumi_core.data.shards import TokenShards
    from sumi_core.data.tokenizers.tokenizer import load_tokenizer
    from sumi_core.data.vocabulary import read_tables

    config, shards = context.experiment.clusters, context.inputs["token_shards"].folder
    tokenizer = load_tokenizer(context.inputs["tokenizer"].folder)
    counts = read_tables({"token_counts": shards}, tokenizer.vocab_size)["token_counts"].numpy()
    train = TokenShards(shards).split("train")
    made = CLUSTERINGS.from_config(config).assign(tokenizer, counts, train, context.progress)
    return write_clusters(made, config["name"], counts, tokenizer, context.folder)


def _several(artifact: Artifact) -> Verdict:
    clusters = int(artifact.summary["clusters"])
    return Verdict(clusters > 1, metadata={"clusters": clusters})


STAGE = Stage(
    "token_clusters",
    "1",
    "Which tokens noise takes for alike. Cells whose process knows of no clusters have none.",
    build,
    "cell",
    doing="clustering tokens",
    reads=("clusters",),
    inputs=("tokenizer", "token_shards"),
    tables=("token_clusters",),
    optional=True,
    checks=(Check("more_than_one_cluster", "One cluster in all would be uniform noise under another name.", _several),),
    group="data",
    kinds=frozenset({"scikitlearn"}),
)
