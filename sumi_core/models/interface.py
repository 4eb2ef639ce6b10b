"""What a denoiser is given and what it returns: the one entry point that objectives and samplers use.

A denoiser is any callable from ``DenoiserInput`` to ``DenoiserOutput``, so that an exact one can take the network's
place in tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, cast

from sumi_core.kernels.chunks import Rows
from sumi_core.kernels.row_loss import RowLoss
from sumi_core.models.attention import AttentionPattern
from sumi_core.models.cache import KeyValues

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Feedback:
    """What an earlier pass predicted, in the terms of the embeddings. mean: ``[B, L, D]``, Δ = Σ_v P(v) E(v), the mean
    embedding of the predicted tokens. weight: ``[B, L]``, a in [0, 1], how much of the prediction is news. Where both
    are 0 there is none."""

    mean: Tensor
    weight: Tensor


@dataclass(frozen=True)
class DenoiserInput:
    """Slots of a forward pass. tokens: ``[B, L]`` int64.

    level: the noise level that a network with time conditioning is given, ``[B]``, ``[B, 1]`` or ``[B, L]``; None where
    there is none. positions: where each slot stands in its text, ``[L]`` or ``[B, L]`` int64; None: 0 … L − 1, or what
    follows the cache. documents: ``[B, L]`` int64, slots of different documents do not see each other; None: all are
    one. noisy: ``[L]`` or ``[B, L]`` bool, the slots of a noisy copy that stands beside the clean text; None: one copy.
    valid: ``[B, L]`` bool, slots that hold a token, which others may see; None: all. pattern: who sees whom in this
    pass; None: the model's own. cache: tokens that were read before and are seen too, all of them clean and of one
    document. keep: how many of the new slots the cache keeps, from the left, of every row or ``[B]``; without a cache
    none. context: ``[B, L, D]``, added to the input embeddings. feedback: what an earlier pass predicted; None: no pass
    did.

    A cache refuses, with a ValueError before anything is computed: documents where it holds slots or is to keep some;
    noisy or valid where it is to keep some; more to keep than there are slots; another number of rows than its own.
    noisy also needs a pattern that reads it.
    """

    tokens: Tensor
    level: Tensor | None = None
    positions: Tensor | None = None
    documents: Tensor | None = None
    noisy: Tensor | None = None
    valid: Tensor | None = None
    pattern: AttentionPattern | None = None
    cache: KeyValues | None = None
    keep: int | Tensor = 0
    context: Tensor | None = None
    feedback: Feedback | None = None


class Head(Protocol):
    """Turns hidden states ``[..., D]`` into logits ``[..., S]``, or into losses of them without holding the logits."""

    def __call__(self, hidden: Tensor, losses: Sequence[RowLoss] = ()) -> Tensor | tuple[Tensor, ...]: ...


@dataclass(frozen=True)
class DenoiserOutput:
    """Hidden states ``[B, L, D]`` and the head that reads them, so that computing a loss never holds all the logits."""

    hidden: Tensor
    head: Head

    def logits(self) -> Tensor:
        """``[B, L, S]``."""
        return cast("Tensor", self.head(self.hidden))

    def apply(self, loss: RowLoss) -> Tensor:
        """The loss of every slot, ``[B, L]`` float32, or float64 for float64 logits."""
        return self.apply_all([loss])[0]

    def apply_all(self, losses: Sequence[RowLoss]) -> tuple[Tensor, ...]:
        """Several losses of the same logits, each ``[B, L]``; none for no losses, and then nothing is computed."""
        if not losses:
            return ()
        return cast("tuple[Tensor, ...]", self.head(self.hidden, losses))

    def last(self) -> DenoiserOutput:
        """The last slot of each row alone."""
        return replace(self, hidden=self.hidden[:, -1:])


#: From logits ``[n, S]`` of some rows, which rows those are, and a reading (``posterior``, ``leave_one_out``, ``own``:
#: what is predicted) to the distribution P of the clean tokens, ``[n, V]``, and the share of it that counts, ``[n]``.
ReadBelief = Callable[["Tensor", Rows, str], "tuple[Tensor, Tensor]"]


@dataclass(frozen=True)
class Belief:
    """What an earlier pass predicted of the texts that are given now, before anything is made of it.

    output: of that pass. read: how to read its logits, rows in the order of ``[B, L]``. where: ``[B, 1]`` or ``[B, L]``
    bool, the positions that are to have feedback."""

    output: DenoiserOutput
    read: ReadBelief
    where: Tensor


DenoiserFunction = Callable[[DenoiserInput], DenoiserOutput]


class TakesFeedback(Protocol):
    """A denoiser that makes something of what an earlier pass predicted."""

    def __call__(self, given: DenoiserInput) -> DenoiserOutput: ...

    def feedback(self, belief: Belief) -> Feedback:
        """The belief in the terms of this denoiser's embeddings, without gradient."""
        ...


def takes_feedback(denoiser: DenoiserFunction) -> bool:
    """Whether a denoiser is to be given feedback."""
    return bool(getattr(denoiser, "takes_feedback", False))


def reads_level(denoiser: DenoiserFunction) -> bool:
    """Whether what a denoiser predicts may depend on the noise level; a function that does not say so may."""
    return bool(getattr(denoiser, "reads_level", True))


def caches(denoiser: DenoiserFunction) -> bool:
    """Whether a denoiser keeps keys and values for a later call."""
    return bool(getattr(denoiser, "caches", False))


@dataclass(frozen=True)
class FromLogits:
    """A denoiser from a function of (tokens ``[B, L]``, level or None) to logits ``[B, L, S]``: an exact one, or any
    model from elsewhere. It reads tokens and level alone."""

    function: Callable[[Tensor, Tensor | None], Tensor]

    def __call__(self, given: DenoiserInput) -> DenoiserOutput:
        return DenoiserOutput(self.function(given.tokens, given.level), _as_they_are)


def _as_they_are(hidden: Tensor, losses: Sequence[RowLoss] = ()) -> Tensor | tuple[Tensor, ...]:
    return tuple(loss.of(hidden) for loss in losses) if losses else hidden
