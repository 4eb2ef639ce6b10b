"""How a next token is chosen: a temperature, and Gumbel noise that has an address.

    x = argmax_v [ log p(v) + g(v) ],   g(v) = −log(−log u(v)),   u uniform,        is a draw from p

(the Gumbel-max trick). Where g belongs to a position of a text and not to a network call, two distributions that are
read with the same g choose the same token as often as they agree: see ``acceptance``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from sumi_core.data.noise import address_generator

if TYPE_CHECKING:
    from torch import Tensor


def tempered(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities ``[..., V]`` float64 of logits divided by ``temperature``; 0: all of it on the most probable token.
    All 0 or NaN where no token has a finite logit."""
    if temperature == 0:
        best = logits.argmax(-1, keepdim=True)
        possible = (logits.gather(-1, best) > -torch.inf).double()
        return torch.zeros_like(logits, dtype=torch.float64).scatter_(-1, best, possible)
    return (logits.double() / temperature).softmax(-1)


def gumbel_noise(seed: int, rows: Sequence[int], positions: Tensor, num_tokens: int) -> Tensor:
    """g at the address (seed, position, row): ``[B, q, V]`` float64, for positions ``[B, q]`` of the texts ``rows``."""
    import numpy as np

    places = positions.tolist()
    drawn = [
        [address_generator(seed, "gumbel", place, row).random(num_tokens) for place in own]
        for row, own in zip(rows, places, strict=True)
    ]
    uniform = torch.from_numpy(np.array(drawn, dtype=np.float64).reshape(*positions.shape, num_tokens))
    return -(-uniform.log()).log().to(positions.device)


def choose(probs: Tensor, gumbel: Tensor) -> Tensor:
    """A draw from each distribution ``[..., V]`` float64, not necessarily normalised, by its noise: ``[...]`` int64.

    Raises ValueError where they are NaN or all zero."""
    total = probs.sum(-1)
    if not ((total > 0) & total.isfinite()).all():
        raise ValueError(
            "cannot draw a token: the probabilities are NaN or all zero; does the denoiser give NaN logits?"
        )
    return (probs.log() + gumbel).argmax(-1)
