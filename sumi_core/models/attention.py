"""Attention patterns: which positions a position may look at.

A pattern is a small object given to the denoiser when it is built. It says what `scaled_dot_product_attention` is
called with, what an average query costs, and which class of stock transformers has the same pattern, so that a new
pattern (block-causal, say) is one new class and one line in `ATTENTION_PATTERNS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from sumi_core.base.registry import Part


@dataclass(frozen=True)
class StockClass:
    """A class of stock transformers over the same block. config: its configuration class. auto: the auto class that
    finds it. needs_mask: its configuration demands the id of a mask. writes: it has ``generate``."""

    name: str
    config: str
    auto: str
    needs_mask: bool = False
    writes: bool = False


class AttentionPattern(Part, ABC):
    """Who sees whom. Stateless: the same object serves every layer and every length."""

    causal: ClassVar[bool] = False  # a position sees only itself and what stands before it
    #: The class of stock transformers with this pattern over the same block, None where there is none.
    stock_class: ClassVar[StockClass | None] = None

    @abstractmethod
    def sdpa_arguments(self, length: int, device: torch.device) -> dict[str, Any]:
        """Keyword arguments of ``scaled_dot_product_attention`` for sequences of ``length``: ``is_causal``, or an
        ``attn_mask`` broadcastable to ``[B, heads, length, length]`` (bool, True where a query sees a key)."""

    @abstractmethod
    def attended(self, length: int) -> float:
        """Keys that an average query sees in a sequence of ``length``: the unit of attention FLOPs."""


class Bidirectional(AttentionPattern):
    """Every position sees every position: a denoiser of whole sequences."""

    stock_class = StockClass("EuroBertForMaskedLM", "EuroBertConfig", "AutoModelForMaskedLM", needs_mask=True)

    def sdpa_arguments(self, length: int, device: torch.device) -> dict[str, Any]:
        return {}

    def attended(self, length: int) -> float:
        return float(length)


class Causal(AttentionPattern):
    """A position sees itself and the positions before it: an autoregressive model."""

    causal = True
    stock_class = StockClass("LlamaForCausalLM", "LlamaConfig", "AutoModelForCausalLM", writes=True)

    def sdpa_arguments(self, length: int, device: torch.device) -> dict[str, Any]:
        return {"is_causal": True}

    def attended(self, length: int) -> float:
        return length / 2
