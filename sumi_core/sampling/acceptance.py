"""How many drafts stand, and what that is worth: expectations that need no decoding (docs/mathematics.md 11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def overlap(p: Tensor, d: Tensor) -> Tensor:
    """Σ_v min(p_v, d_v) = 1 − TV(p, d), the chance that rejection lets a draft stand: ``[..., V]`` → ``[...]``."""
    return torch.minimum(p, d).sum(-1)


def agreement(p: Tensor, d: Tensor) -> Tensor:
    """The chance that p and d choose one token by shared Gumbel noise, ``[..., V]`` float64 → ``[...]``:

        Σ_v 1 / Σ_w max(p_w / p_v, d_w / d_v),   between (1 − TV)/(1 + TV) and 1 − TV

    With exponential times E_w = exp(−g_w), v is first in both if E_w ≥ E_v · max(…) for every other w. The maximum is
    the first where p_w/d_w is larger than p_v/d_v, so tokens sorted by that ratio need two cumulative sums."""
    order = (p.log() - d.log()).nan_to_num(nan=0.0).argsort(-1, descending=True)  # a token of neither is anywhere
    p, d = p.gather(-1, order), d.gather(-1, order)
    of_p, of_d = p.cumsum(-1), d.sum(-1, keepdim=True) - d.cumsum(-1)
    rivals = of_p / p + of_d / d  # the token itself is in the first sum: p_v / p_v = 1
    return torch.where((p > 0) & (d > 0), 1 / rivals, 0.0).sum(-1)


def standing(p: Tensor, d: Tensor, x: Tensor, rule: str) -> Tensor:
    """The chance that the draft is x and stands, over p(x), under ``rejection`` or by shared noise (``gumbel``):
    ``[..., V]`` float64 and x ``[...]`` → ``[...]``. Its mean over x ~ p is ``overlap`` or ``agreement``; where p(x) is
    0, which no x ~ p has, it is that instead.

    So the first j drafts all stand with P_j = E_{x~p} [Π_{i<j} standing_i(x_i) · chance_j], a mean along texts."""
    own, drafted = (part.gather(-1, x.unsqueeze(-1))[..., 0] for part in (p, d))
    if rule == "rejection":
        found, chance = (drafted / own).clamp(max=1), overlap(p, d)
    else:  # 1 / Σ_w max(p_w / p_x, d_w / d_x), over p_x
        rivals = torch.maximum(p, d * (own / drafted).unsqueeze(-1)).sum(-1)
        found, chance = torch.where(drafted > 0, 1 / rivals, 0.0), agreement(p, d)
    return torch.where(own > 0, found, chance)


def tokens_per_forward(shape: str, stands: Sequence[float]) -> float:
    """Tokens that a pass writes on average. stands: P_j, the chance that the first j drafts all stand, j = 1 … k.

    linear: two passes write a certain token, the drafts that stand and one more. fan: one pass does without the
    first."""
    return (2 + sum(stands)) / 2 if shape == "linear" else 1 + sum(stands)
