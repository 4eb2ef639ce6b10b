"""Attention patterns: which slots a slot may look at.

A slot is a place in a forward pass: it holds a token that stands at a *position* of a text, in one of the *documents*
of a packed sequence, and it belongs to the text itself or to a noisy *copy* of it that stands beside the text. A
pattern is a predicate on pairs of slots. The dense mask, the mask of queries that are fewer than the keys (a cache),
the block mask of a fused kernel and the number of keys that a query sees are all derived from it. A new pattern is one
new class and one line in ``ATTENTION_PATTERNS``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import Field

from sumi_core.base.registry import Part

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class StockClass:
    """A class of stock transformers over the same block. config: its configuration class. auto: the auto class that
    finds it. needs_mask: its configuration demands the id of a mask. writes: it has ``generate``."""

    name: str
    config: str
    auto: str
    needs_mask: bool = False
    writes: bool = False


@dataclass(frozen=True)
class Slots:
    """Where tokens stand, each field ``[n]`` or ``[B, n]``.

    position: int64, in the text. document: int64, which document of a packed sequence; None: all are one. noisy: bool,
    whether the slot belongs to the noisy copy of a text; None: there is one copy. valid: bool, whether the slot holds a
    token at all; None: all do.
    """

    position: Tensor
    document: Tensor | None = None
    noisy: Tensor | None = None
    valid: Tensor | None = None

    @property
    def plain(self) -> bool:
        """One text, one document, one copy, nothing empty."""
        return self.document is None and self.noisy is None and self.valid is None

    @property
    def of_noise(self) -> Tensor:
        """``noisy``, written out."""
        return torch.zeros_like(self.position, dtype=torch.bool) if self.noisy is None else self.noisy


class AttentionPattern(Part, ABC):
    """Who sees whom. Stateless: the same object serves every layer and every length."""

    causal: ClassVar[bool] = False  # a position sees only itself and what stands before it
    reads_noisy: ClassVar[bool] = False  # ``sees`` tells a noisy copy of a text from the clean one
    #: The class of stock transformers with this pattern over the same block, None where there is none.
    stock_class: ClassVar[StockClass | None] = None

    @abstractmethod
    def sees(self, query: Slots, key: Slots) -> Tensor:
        """Whether a query sees a key of its own document, bool. The fields of ``query`` are ``[..., Q, 1]``, those of
        ``key`` ``[..., 1, K]``; returns what broadcasts to ``[..., Q, K]``."""

    def mask(self, queries: Slots, keys: Slots) -> Tensor:
        """The dense mask: ``[Q, K]`` or, where fields differ by row, ``[B, Q, K]`` bool, True where a query sees a key.
        Documents do not see each other, and empty slots are not seen.

        Raises ValueError for slots of a noisy copy where the pattern does not tell them from the clean text."""
        self._check_noisy(queries, keys)
        query = Slots(*(None if f is None else f.unsqueeze(-1) for f in _fields(queries)))  # type: ignore[arg-type]
        key = Slots(*(None if f is None else f.unsqueeze(-2) for f in _fields(keys)))  # type: ignore[arg-type]
        seen = self.sees(query, key)
        if query.document is not None and key.document is not None:
            seen = seen & (query.document == key.document)
        if key.valid is not None:
            seen = seen & key.valid
        return seen.expand(torch.broadcast_shapes(seen.shape, query.position.shape, key.position.shape))

    def mask_mod(self, queries: Slots, keys: Slots) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """The same mask as ``torch.nn.attention.flex_attention`` takes it, a function of (batch, head, query, key)
        indices, of which the kernel makes blocks without ever holding the dense mask. Raises as ``mask``."""
        self._check_noisy(queries, keys)

        def at(slots: Slots, batch: Tensor, place: Tensor) -> Slots:
            return Slots(*(f if f is None else f[place] if f.ndim == 1 else f[batch, place] for f in _fields(slots)))  # type: ignore[arg-type]

        def mod(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            own, other = at(queries, batch, query), at(keys, batch, key)
            seen = self.sees(own, other)
            if own.document is not None and other.document is not None:
                seen = seen & (own.document == other.document)
            return seen if other.valid is None else seen & other.valid

        return mod

    def _check_noisy(self, queries: Slots, keys: Slots) -> None:
        if not self.reads_noisy and (queries.noisy is not None or keys.noisy is not None):
            raise ValueError(
                f"attention pattern {type(self).__name__} does not tell a noisy copy of a text from the clean one, "
                "which would be seen by its own copy: use a pattern that does, such as block_causal"
            )

    def sdpa_arguments(self, queries: Slots, keys: Slots) -> dict[str, Any]:
        """Keyword arguments of ``scaled_dot_product_attention``: ``is_causal``, or an ``attn_mask`` broadcastable to
        ``[B, heads, Q, K]``. A pattern that needs no mask where queries and keys are the same plain slots overrides
        ``whole``."""
        if queries is keys and queries.plain and (whole := self.whole()) is not None:
            return whole
        mask = self.mask(queries, keys)
        return {"attn_mask": mask.unsqueeze(1) if mask.ndim == 3 else mask}

    def whole(self) -> dict[str, Any] | None:
        """The arguments for one whole text, standing in order, where those need no mask; None: a mask is made."""
        return None

    def newest(self) -> dict[str, Any] | None:
        """The arguments for the last slot of a text that stands in order, beside all the others as keys, where those
        need no mask; None: a mask is made."""
        return None

    def attended(self, length: int) -> float:
        """Keys that an average query sees in a text of ``length``: the unit of attention FLOPs."""
        slots = Slots(torch.arange(length))
        return float(self.mask(slots, slots).sum()) / length


class Explicit(AttentionPattern):
    """A given mask, for one forward pass whose slots are not told apart by where they stand.

    mask: ``[Q, K]`` bool, True where a query sees a key. Documents and empty slots are hidden as in any pattern."""

    reads_noisy = True

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self._mask = mask

    def sees(self, query: Slots, key: Slots) -> Tensor:
        return self._mask

    def mask_mod(self, queries: Slots, keys: Slots) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        mask = self.mask(queries, keys)
        return lambda batch, head, query, key: mask[query, key] if mask.ndim == 2 else mask[batch, query, key]


def _fields(slots: Slots) -> tuple[Tensor | None, ...]:
    return slots.position, slots.document, slots.noisy, slots.valid


class Bidirectional(AttentionPattern):
    """Every position sees every position: a denoiser of whole sequences."""

    stock_class = StockClass("EuroBertForMaskedLM", "EuroBertConfig", "AutoModelForMaskedLM", needs_mask=True)

    def sees(self, query: Slots, key: Slots) -> Tensor:
        return torch.ones_like(key.position, dtype=torch.bool)

    def whole(self) -> dict[str, Any]:
        return {}

    def newest(self) -> dict[str, Any]:
        return {}

    def attended(self, length: int) -> float:
        return float(length)


class Causal(AttentionPattern):
    """A position sees itself and the positions before it: an autoregressive model."""

    causal = True
    stock_class = StockClass("LlamaForCausalLM", "LlamaConfig", "AutoModelForCausalLM", writes=True)

    def sees(self, query: Slots, key: Slots) -> Tensor:
        return key.position <= query.position

    def whole(self) -> dict[str, Any]:
        return {"is_causal": True}

    def newest(self) -> dict[str, Any]:
        return {}

    def attended(self, length: int) -> float:
        return length / 2  # as training is counted everywhere: half of the square


class BlockCausal(AttentionPattern):
    """Blocks of ``length`` positions: a position sees all of its own block and of the blocks before it (BD3LM,
    2503.09573).

    Where a noisy copy stands beside the clean text, a noisy slot sees the noisy slots of its own block and the clean
    slots of strictly earlier blocks; a clean slot sees clean slots of its own block and earlier ones, and no noisy one.
    """

    @dataclass
    class Options(Part.Options):
        length: Annotated[int, Field(ge=1, le=2**20, description="positions of a block")] = 16

    reads_noisy = True

    def sees(self, query: Slots, key: Slots) -> Tensor:
        own, other = query.position // self.options.length, key.position // self.options.length
        if query.noisy is None and key.noisy is None:
            return other <= own
        from_noise, of_noise = query.of_noise, key.of_noise
        of_noisy_query = torch.where(of_noise, other == own, other < own)
        return torch.where(from_noise, of_noisy_query, ~of_noise & (other <= own))

    def newest(self) -> dict[str, Any]:
        return {}

    def attended(self, length: int) -> float:
        block = self.options.length
        whole, rest = divmod(length, block)  # the queries of block i see i blocks, those of the last one everything
        return (block * block * whole * (whole + 1) / 2 + rest * length) / length
