"""Clusters of tokens as a file, and a page that shows what they hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sumi_core.data.clusters.clustering import TokenClusters
from sumi_core.data.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLUSTERS = "token_clusters.npy"  # int64 [V]
_SHOWN_TOKENS = 24


def write_clusters(
    made: TokenClusters, clustering: str, counts: NDArray[np.int64], tokenizer: Tokenizer, folder: Path
) -> dict[str, Any]:
    """Write the cluster of every token and a page about them; returns the figures. counts: of each token in the train
    split, ``[V]``."""
    np.save(folder / CLUSTERS, made.cluster)
    sizes = np.bincount(made.cluster, minlength=len(made.names))
    share = np.bincount(made.cluster, weights=counts, minlength=len(made.names)) / max(1, counts.sum())
    nonzero = share[share > 0]
    summary = {
        "clustering": clustering,
        "clusters": len(made.names),
        "tokens": len(made.cluster),
        "largest_cluster": int(sizes.max()),
        "smallest_cluster": int(sizes.min()),
        "entropy_bits": float(-(nonzero * np.log2(nonzero)).sum()),  # of the cluster of a token of the train split
    }
    page = _report(summary, made, sizes, share, counts, tokenizer)
    (folder / "report.md").write_text(page, encoding="utf-8")
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
