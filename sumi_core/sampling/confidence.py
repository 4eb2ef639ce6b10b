"""Confidence sampling: in each step the changes that the model is surest of, and no others.

Of uniform noise it is the adaptive sampler of the scaling study of GIDD (von Rütte et al., 2512.10858) and of Sumi
(2606.19005), of masks that of MaskGIT (Chang et al., 2202.04200): how sure a change is says

    m_i = max_v p(x_i = v | z) − p(x_i = z_i | z),

and the k places of largest m_i > 0 are written. A mask is no token, so there m_i is the largest probability. The
scaling study multiplies by the prior probability of z_i, which is the same everywhere under uniform noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import Field

from sumi_core.kernels.row_loss import pick
from sumi_core.sampling.adaptive import Adaptive
from sumi_core.sampling.rules import Belief, Reading, Rule, share_of
from sumi_core.sampling.truncation import Sharpening, changes, sharpened

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ConfidenceRule(Rule):
    """Write the k places whose change is surest, and leave the others as they are; in the last step all where the most
    probable token does not stand. A row is done when it stands everywhere.

    places: k; None: as many as ``clean`` grows by. clean: from a number of steps to the share of a text that is to be
    clean before each step, ``[steps]`` float64, rising from 0. options: how a token is drawn from p(x_i | z).
    """

    places: int | None
    clean: Callable[[int], Tensor]
    options: Any

    def settled(self, belief: Belief, number: int, steps: int) -> Tensor:
        """As many as steps have written so far, whether at different places or not."""
        return share_of(self._written(belief, number, steps), belief.count)

    def read(self, logits: Tensor, z: Tensor, number: int, steps: int, draw: Callable[[Tensor], Tensor]) -> Reading:
        probs = logits.softmax(-1)
        drawn = draw(sharpened(logits, self.options) if changes(self.options) else probs)
        return Reading(drawn, drawn, probs.amax(-1) - standing(probs, z))

    def decided(self, belief: Belief, reading: Reading, number: int, steps: int, noise: Callable[[], Tensor]) -> Belief:
        sure = reading.sure
        wants = belief.open & (sure > 0)
        room = self._written(belief, number + 1, steps) - self._written(belief, number, steps)
        falling = torch.where(wants, sure, -1.0).argsort(dim=-1, descending=True, stable=True)
        written = wants & ((falling.argsort(-1) < room) | (number + 1 >= steps))
        z = torch.where(written, reading.drawn, belief.z)
        after = belief.after(z, z, written)
        return replace(after, done=belief.done | ~wants.any(-1))

    def _written(self, belief: Belief, number: int, steps: int) -> Tensor:
        """Places written before the step of this number, a place that is written twice counting twice: ``[B, 1]``."""
        if self.places is not None:
            return torch.full_like(belief.count, self.places * number)
        if number >= steps:
            return belief.count.clamp(min=steps)
        share = float(self.clean(steps)[number])
        return (belief.count * share - 1e-9).ceil().long().clamp(min=number)  # a step writes at least one


def standing(probs: Tensor, z: Tensor) -> Tensor:
    """Probabilities ``[B, n, V]`` of the states z ``[B, n]`` that stand, ``[B, n]``; 0 of a state that is no token."""
    count = probs.shape[-1]
    return torch.where(z < count, pick(probs, z.clamp(max=count - 1)), 0.0)


class Confidence(Adaptive):
    """Writes, in each of ``steps`` network calls, only the ``places`` whose change the model is surest of
    (``ConfidenceRule``): under noise that consists of tokens any place may be written, and written again; masks are
    filled in once. It stops when the most probable token stands everywhere. Tokens are drawn from p(x_i | z), which the
    options sharpen; temperature 0 writes the most probable ones.

    It is no sampler of p at any number of steps, and its texts are no draw from the model: choosing places by what
    stands there and by what is predicted breaks exactness, even with the exact denoiser and one place a step.
    """

    @dataclass
    class Options(Sharpening):
        places: Annotated[
            int | None,
            Field(
                ge=1,
                le=2**20,
                description="places written in each step but the last, which writes all that are to change; null: as "
                "many as the noise schedule has become clean there",
            ),
        ] = None

    causal: ClassVar[bool | None] = False
    layouts: ClassVar[tuple[str, ...]] = ("whole",)
    mode = "whole"
    grows = False

    options: Options

    def _rule(self) -> Rule:
        return ConfidenceRule(self.options.places, self._clean, self.options)

    def _clean(self, steps: int) -> Tensor:
        return self.process.alpha(torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:-1])
