"""Clusters by where tokens occur: those with alike neighbours stand in for each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from sumi_core.base.errors import SumiError
from sumi_core.base.progress import Progress
from sumi_core.base.registry import Part
from sumi_core.data.clusters.clustering import Clustering, TokenClusters
from sumi_core.data.sequences import PackedSequences
from sumi_core.data.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROWS = 4096  # sequences counted at a time


class ClusterError(SumiError, ValueError):
    """Tokens that cannot be clustered as asked. One sentence that names the key and what to do."""


class Distribution(Clustering):
    """k-means on token vectors from positive pointwise mutual information with the neighbours on either side.

    PPMI = max(0, log p(token, context) / (p(token) p′(context))), p′ ∝ count^¾, the context being a neighbour at one
    of the offsets −window … window; the exponent damps rare contexts (Levy, Goldberg and Dagan, TACL 2015). Its
    leading ``dimensions`` singular vectors, times the root of the singular values and normalised, are clustered.
    Tokens that occur less than ``min_count`` times, and end-of-text, have no vector worth the name and share a
    cluster.
    """

    @dataclass
    class Options(Part.Options):
        clusters: Annotated[int, Field(ge=1, le=2**16, description="number of clusters")] = 64
        window: Annotated[
            int, Field(ge=1, le=64, description="neighbours on either side that are a token's context")
        ] = 2
        dimensions: Annotated[
            int, Field(ge=1, le=4096, description="dimensions of the token vectors that are clustered")
        ] = 64
        min_count: Annotated[int, Field(ge=1, description="rarer tokens share one cluster")] = 5
        max_tokens: Annotated[
            int, Field(ge=1, description="tokens of the train split that are counted, from its start")
        ] = 20_000_000
        seed: Annotated[int, Field(ge=0, le=2**32 - 1, description="of the k-means")] = 0

    def assign(
        self, tokenizer: Tokenizer, counts: NDArray[np.int64], train: PackedSequences, progress: Progress
    ) -> TokenClusters:
        options = self.options
        known = np.flatnonzero(counts >= options.min_count)
        known = known[known != tokenizer.eos_id]
        if len(known) <= options.clusters:
            raise ClusterError(
                f"clusters.clusters: {options.clusters} clusters for {len(known)} tokens that occur at least "
                f"{options.min_count} times; ask for fewer, or lower clusters.min_count"
            )
        vectors = _vectors(self._cooccurrence(len(counts), train, progress)[known], options.dimensions, options.seed)
        progress(0, 1, "clusterings", "k-means")
        members = _k_means(vectors, options.clusters, options.seed)
        progress(1, 1, "clusterings", "k-means")
        if len(np.unique(members)) < options.clusters:
            raise ClusterError(
                f"clusters.clusters: only {len(np.unique(members))} of {options.clusters} clusters have members, since "
                "too many tokens have the same neighbours; ask for fewer"
            )
        order = np.argsort(np.argsort([np.flatnonzero(members == c)[0] for c in range(options.clusters)]))
        cluster = np.zeros(len(counts), dtype=np.int64)  # 0: rare tokens
        cluster[known] = order[members] + 1
        return TokenClusters(cluster, ["rare", *map(str, range(1, options.clusters + 1))])

    def _cooccurrence(self, size: int, train: PackedSequences, progress: Progress):  # type: ignore[no-untyped-def]
        """How often each token stands at each offset from each other: sparse ``[V, 2 · window · V]``."""
        from scipy.sparse import coo_array, csr_array

        window, sequences = self.options.window, min(len(train), max(1, self.options.max_tokens // train.length))
        offsets = [offset for offset in range(-window, window + 1) if offset]
        total = csr_array((size, len(offsets) * size), dtype=np.float64)
        for start in range(0, sequences, _ROWS):
            rows = np.stack([train[i] for i in range(start, min(start + _ROWS, sequences))]).astype(np.int64)
            pairs = []
            for place, offset in enumerate(offsets):
                if abs(offset) >= train.length:
                    continue  # no two tokens of a sequence are as far apart
                here = rows[:, max(0, -offset) : train.length - max(0, offset)].ravel()
                there = rows[:, max(0, offset) : train.length - max(0, -offset)].ravel()
                pairs.append((here, place * size + there))
            here, there = (np.concatenate(part) for part in zip(*pairs, strict=True))
            total = total + coo_array((np.ones(len(here)), (here, there)), shape=total.shape).tocsr()
            progress(min(start + _ROWS, sequences), sequences, "sequences", "neighbours")
        return total


def _vectors(cooccurrence, dimensions: int, seed: int) -> NDArray[np.float64]:  # type: ignore[no-untyped-def]
    """``[n, dimensions]`` of length 1 from counts ``[n, contexts]``."""
    from sklearn.decomposition import TruncatedSVD

    pairs = cooccurrence.tocoo()
    by_token, by_context = cooccurrence.sum(axis=1), cooccurrence.sum(axis=0) ** 0.75
    mutual = np.log(pairs.data * by_context.sum() / (by_token[pairs.coords[0]] * by_context[pairs.coords[1]]))
    pairs.data = np.maximum(mutual, 0.0)
    dimensions = min(dimensions, min(cooccurrence.shape) - 1)
    svd = TruncatedSVD(dimensions, algorithm="randomized", n_iter=7, random_state=seed)
    vectors = svd.fit_transform(pairs.tocsr()) / np.sqrt(np.maximum(svd.singular_values_, 1e-12))
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def _k_means(vectors: NDArray[np.float64], clusters: int, seed: int) -> NDArray[np.int64]:
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # sums over threads would differ in their last bits from one machine to the next
        return np.asarray(KMeans(clusters, n_init=3, random_state=seed).fit_predict(vectors), dtype=np.int64)
