"""One forward pass over the clean tokens of each row and over canvases of noise that begin after some of them.

    [ clean tokens, causal | canvas 0 | canvas 1 | … ]

A canvas sees itself and the clean tokens before it, as a block of the layout does that begins there
(``sumi_core.layouts.blocks``); the clean tokens never see a canvas. Rows may bring different numbers of clean tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from sumi_core.models.attention import Explicit
from sumi_core.models.cache import KeyValues
from sumi_core.models.interface import DenoiserFunction, DenoiserInput, DenoiserOutput

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Clean:
    """The clean slots of a pass, from the first that the cache does not hold. tokens: ``[B, c]`` int64, of which row b
    has the first ``count[b]``, at positions ``begins[b]`` and on (slot 0 is the end-of-text token before a text)."""

    tokens: Tensor
    count: Tensor
    begins: Tensor


@dataclass(frozen=True)
class Canvases:
    """Noise after clean slots. z: ``[B, R, w]`` int64. told: ``[B, R, w]`` float64, the level that a denoiser with
    time conditioning is given at each token. behind: ``[B, R]`` int64, the clean slot of the pass that stands right
    before each canvas."""

    z: Tensor
    told: Tensor
    behind: Tensor


def look_ahead(
    denoiser: DenoiserFunction, clean: Clean, canvases: Canvases | None, *, own: bool, cache: KeyValues | None = None
) -> tuple[DenoiserOutput, DenoiserOutput | None]:
    """What predicts the token after each clean slot, hidden states ``[B, c, D]``, and what predicts the tokens of each
    canvas, ``[B, R·w, D]``.

    own: whether the slot of a noisy token predicts it, or the one before, so that a canvas begins with a copy of the
    clean token before it. cache: holds what stands before the clean slots, and these too afterwards."""
    c = clean.tokens.shape[1]
    place = torch.arange(c, device=clean.tokens.device)
    tokens, positions = clean.tokens, clean.begins[:, None] + place
    told, group, sees_to = torch.zeros_like(tokens, dtype=torch.float64), torch.full_like(tokens, -1), place[None]
    sees_to = sees_to.expand_as(tokens)
    copies = 0 if own else 1
    if canvases is not None:
        z, behind = canvases.z, canvases.behind
        if copies:
            z = torch.cat([tokens.gather(1, behind)[..., None], z], -1)
        width = z.shape[-1]
        inside = torch.arange(width, device=z.device)
        levels = torch.nn.functional.pad(canvases.told, (copies, 0))
        tokens = torch.cat([tokens, z.flatten(1)], 1)
        told = torch.cat([told, levels.flatten(1)], 1)
        # The first token after clean slot c stands at position c + 1, and a copy of that slot's token at c.
        stands = clean.begins[:, None, None] + behind[..., None] + inside + 1 - copies
        positions = torch.cat([positions, stands.flatten(1)], 1)
        number = torch.arange(z.shape[1], device=z.device)[None, :, None]
        group = torch.cat([group, number.expand_as(z).flatten(1)], 1)
        sees_to = torch.cat([sees_to, (behind - copies)[..., None].expand_as(z).flatten(1)], 1)
    sees = _sees(group, sees_to)
    output = denoiser(
        DenoiserInput(
            tokens,
            told,
            positions=positions,
            pattern=Explicit(sees if cache is None else _beside_kept(sees, cache)),
            cache=cache,
            keep=clean.count if cache is not None else 0,
        )
    )
    hidden = output.hidden
    if canvases is None:
        return output, None
    noisy = hidden[:, c:].unflatten(1, (z.shape[1], width))[:, :, : width - copies]
    return replace(output, hidden=hidden[:, :c]), replace(output, hidden=noisy.flatten(1, 2))


def _sees(group: Tensor, sees_to: Tensor) -> Tensor:
    """Who sees whom among the new slots, ``[B, Q, Q]`` bool. group: ``[B, Q]`` the canvas of each slot, −1 for clean
    ones. sees_to: ``[B, Q]`` the last clean slot that each sees, so that none sees those after the row's own."""
    place = torch.arange(group.shape[1], device=group.device)
    of_clean = (group < 0)[:, None, :] & (place <= sees_to[..., None])
    of_canvas = (group[..., None] >= 0) & (group[..., None] == group[:, None, :])
    return of_clean | of_canvas


def _beside_kept(sees: Tensor, cache: KeyValues) -> Tensor:
    """The same with the kept slots of each row before its new ones, all of which are seen: ``[B, Q, longest + Q]``."""
    rows, slots, _ = sees.shape
    place = torch.arange(cache.longest + slots, device=sees.device) - cache.lengths[:, None]
    among_new = sees.gather(2, place.clamp(0, slots - 1)[:, None].expand(rows, slots, -1))
    return torch.where((place < 0)[:, None], True, among_new & (place < slots)[:, None])
