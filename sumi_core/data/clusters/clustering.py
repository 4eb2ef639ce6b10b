"""What a clustering is: a cluster for every token of a vocabulary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sumi_core.base.progress import Progress
from sumi_core.base.registry import Part
from sumi_core.data.sequences import PackedSequences
from sumi_core.data.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class TokenClusters:
    """cluster: of every token, ``[V]`` int64 in 0 … n−1, none of them empty. names: of the n clusters."""

    cluster: NDArray[np.int64]
    names: list[str]


class Clustering(Part, ABC):
    """Groups tokens by what can be read off a tokenizer and the train split, the same every time."""

    @abstractmethod
    def assign(
        self, tokenizer: Tokenizer, counts: NDArray[np.int64], train: PackedSequences, progress: Progress
    ) -> TokenClusters:
        """counts: how often each token occurs in the train split, ``[V]``. Raises ClusterError."""


def numbered(labels: list[str]) -> TokenClusters:
    """Clusters by label, numbered in the labels' order."""
    names = sorted(set(labels))
    number = {name: index for index, name in enumerate(names)}
    return TokenClusters(np.array([number[label] for label in labels], dtype=np.int64), names)
