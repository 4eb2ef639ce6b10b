"""How many drafted tokens stand, and which token follows them: speculative decoding that changes no text.

A row drafts y_1 … y_k; p_i, i = 1 … k + 1, is what the autoregressive mode says after y_1 … y_{i−1}. The first token
that does not stand is replaced by one of p_i, what was drafted after it is dropped, and where all stand one more token
is drawn from p_{k+1}. So k + 1 distributions give between 1 and k + 1 tokens.

*Comparison*: the token that the autoregressive mode would have written is x_i = argmax_v [log p_i(v)/T + g_i(v)], by
Gumbel noise that belongs to position i; a draft stands while it is that token. The text is the same text.

*Rejection* (2211.17192, 2302.01318): y ~ d stands with probability min(1, p(y)/d(y)), else a token is drawn from
(p − d)⁺. The text has the same distribution, and no rule that judges a draft by itself accepts more. It holds if
y_i ~ d_i independently given everything that d_i was computed from; a token that was decided before has all of d_i on
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sumi_core.corruption.categorical import draw_categorical
from sumi_core.kernels.row_loss import pick

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Verdict:
    """accepted: ``[B]`` int64, drafts that stand. token: ``[B]`` int64, what is written after them."""

    accepted: Tensor
    token: Tensor


def by_comparison(chosen: Tensor, drafts: Tensor) -> Verdict:
    """chosen: ``[B, k + 1]``, what the autoregressive mode chooses at each place. drafts: ``[B, k]``."""
    accepted = _leading(chosen[:, :-1] == drafts)
    return Verdict(accepted, chosen.gather(1, accepted[:, None])[:, 0])


def by_rejection(p: Tensor, d: Tensor, drafts: Tensor, uniform: Tensor) -> Verdict:
    """p: ``[B, k + 1, V]``, d: ``[B, k, V]``, normalised. drafts: ``[B, k]``, drawn from d. uniform: ``[B, k + 1]``,
    of which the last decides the token that follows. All in float64."""
    stands = acceptance(p[:, :-1], d, drafts)
    decided = draw_categorical(torch.stack([1 - stands, stands], -1), uniform[:, :-1]) if drafts.shape[1] else drafts
    accepted = _leading(decided > 0)
    place = accepted[:, None, None].expand(-1, 1, p.shape[-1])
    # Behind the last draft there is none to exceed.
    left = residual(p.gather(1, place), torch.nn.functional.pad(d, (0, 0, 0, 1)).gather(1, place))
    return Verdict(accepted, draw_categorical(left[:, 0], uniform[:, -1]))


def acceptance(p: Tensor, d: Tensor, drafts: Tensor) -> Tensor:
    """min(1, p(y)/d(y)) of drafts y ``[...]`` for distributions ``[..., V]``."""
    return (pick(p, drafts) / pick(d, drafts)).clamp(max=1.0)


def residual(p: Tensor, d: Tensor) -> Tensor:
    """(p − d)⁺, not normalised; p itself where nothing of it exceeds d, which only rounding can ask for."""
    left = (p - d).clamp(min=0.0)
    return torch.where(left.sum(-1, keepdim=True) > 0, left, p)


def _leading(stands: Tensor) -> Tensor:
    """How many are true before the first that is not, ``[B, k]`` bool → ``[B]``."""
    return stands.long().cumprod(-1).sum(-1)
