"""Left-to-right sampling whose randomness belongs to the positions of a text: what speculation writes again."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.choosing import choose, gumbel_noise
from sumi_core.sampling.left_to_right import LeftToRight

if TYPE_CHECKING:
    from torch import Tensor


class Autoregressive(LeftToRight):
    """As ``left_to_right``, each token being argmax_v [log p(v) + g(v)] with Gumbel noise g at the address (seed,
    position, row). ``speculative`` writes the same text with the same seed, however many network calls either takes.

    Writes, too, with the autoregressive mode of a model that is trained for two modes."""

    layouts: ClassVar[tuple[str, ...]] = ("whole", "blocks")

    def _drawn(self, canvas: Canvas, probs: Tensor, position: int) -> Tensor:
        place = torch.full((len(probs), 1), position, device=canvas.device)
        return choose(probs, gumbel_noise(canvas.seed, canvas.rows, place, probs.shape[-1]))
