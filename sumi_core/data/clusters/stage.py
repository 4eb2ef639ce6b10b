"""Stage ``token_clusters``: a cluster for every token, and a page that shows what the clusters hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sumi_core.data import CLUSTERINGS
from sumi_core.data.shards import TokenShards
from sumi_core.data.tokenizers import load_tokenizer
from sumi_core.data.vocabulary import read_tables

if TYPE_CHECKING:
    from sumi_core.data.clusters.clustering import TokenClusters
    from sumi_core.data.tokenizers.tokenizer import Tokenizer
    from sumi_core.stages import StageContext

CLUSTERS = "token_clusters.npy"  # int64 [V]
_SHOWN_TOKENS = 24


def build_token_clusters(context: StageContext) -> dict[str, Any]:
    """Cluster and describe. Returns the summary; raises what the clustering raises."""
    tokenizer = load_tokenizer(context.inputs["tokenizer"].folder)
    counts = read_tables(("token_counts",), context.folders, tokenizer.vocab_size)["token_counts"].numpy()
    train = TokenShards(context.inputs["token_shards"].folder).split("train")
    clustering = CLUSTERINGS.from_config(context.experiment.clusters)
    made = clustering.assign(tokenizer, counts, train, context.progress)
    np.save(context.folder / CLUSTERS, made.cluster)
    sizes = np.bincount(made.cluster, minlength=len(made.names))
    share = np.bincount(made.cluster, weights=counts, minlength=len(made.names)) / max(1, counts.sum())
    nonzero = share[share > 0]
    summary = {
        "clustering": context.experiment.clusters["name"],
        "clusters": len(made.names),
        "tokens": len(made.cluster),
        "largest_cluster": int(sizes.max()),
        "smallest_cluster": int(sizes.min()),
        "entropy_bits": float(-(nonzero * np.log2(nonzero)).sum()),  # of the cluster of a token of the train split
    }
    page = _report(summary, made, sizes, share, counts, tokenizer)
    (context.folder / "report.md").write_text(page, encoding="utf-8")
    return summary


def _report(
    summary: dict[str, Any], made: TokenClusters, sizes: Any, share: Any, counts: Any, tokenizer: Tokenizer
) -> str:
    lines = [
        f"# {summary['clusters']} clusters of {summary['tokens']:,} tokens, by {summary['clustering']}",
        "",
        f"The cluster of a token of the train split has {summary['entropy_bits']:.2f} bits of entropy.",
        "",
        "| cluster | tokens | of the text | the most frequent of them |",
        "|---|---:|---:|---|",
    ]
    for number in np.argsort(-share, kind="stable"):
        members = np.flatnonzero(made.cluster == number)
        frequent = members[np.argsort(-counts[members], kind="stable")[:_SHOWN_TOKENS]]
        shown = " ".join(_cell(tokenizer.decode([int(token)])) for token in frequent)
        more = " …" if len(members) > len(frequent) else ""
        lines.append(f"| {made.names[number]} | {sizes[number]:,} | {share[number]:.1%} | {shown}{more} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """A token that Markdown shows as it is, its spaces visible."""
    shown = text.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥").replace("|", "∣").replace("`", "´")
    return f"`{shown}`" if shown.isprintable() and shown else f"`{text.encode()!r}`"
