"""A step of the reverse process, drawn a piece of the text at a time.

A table of float64 probabilities of all tokens of all places is several times what the network's logits take, and at a
large vocabulary the largest thing that a step would make. Every place is drawn by itself, from a uniform number of its
own, so the pieces change no token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from sumi_core.corruption.categorical import draw_categorical
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.noise import Noise
from sumi_core.kernels.chunks import slices_of, tiles_of
from sumi_core.kernels.row_loss import pick
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.forward_backward import Marginals

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Predicted:
    """Leave-one-out logits ``[B, q, S]`` of consecutive ``places`` of a canvas, a piece at a time, as its constraints
    on single tokens and then ``sharpened`` change them. Places from the canvas's length on are of no text."""

    process: ForwardProcess
    canvas: Canvas
    logits: Tensor
    places: range
    sharpened: Callable[[Tensor], Tensor]

    @property
    def pieces(self) -> list[tuple[slice, slice]]:
        """Rows and places, counted from the first, whose tables over the states fit a chunk."""
        return tiles_of(self.logits)

    def at(self, rows: slice, part: slice) -> tuple[Tensor, Tensor | None]:
        """Logits of a piece, and the allowed probabilities of clean tokens, not normalised; None: all are allowed."""
        logits, canvas = self.logits[rows, part], self.canvas.without_joint()
        if not canvas.constraints:
            return self.sharpened(logits), None
        places = self.places[part]
        held = self.process.denoiser(logits.double())
        end = max(places.start, min(places.stop, canvas.length))
        within = torch.arange(places.start, end, device=held.device)
        allowed = canvas.some(rows).allowed(held[:, : len(within)], within)
        held = torch.cat([allowed, held[:, len(within) :]], 1)
        return self.sharpened(held.log()), held


def allowed_at(process: ForwardProcess, canvas: Canvas, logits: Tensor, place: Tensor) -> Tensor:
    """Probabilities of the clean token at one place of each row, ``[B, 1]``, under the constraints, which look at all
    of a text: ``[B, 1, S]`` float64, not normalised. logits: leave-one-out, ``[B, L, S]``."""
    found = torch.zeros(len(logits), 1, logits.shape[-1], dtype=torch.float64, device=logits.device)
    for rows, part in tiles_of(logits):
        places = torch.arange(part.start, part.stop, device=logits.device)
        held = canvas.some(rows).allowed(process.denoiser(logits[rows, part].double()), places)
        inside = (place[rows] >= part.start) & (place[rows] < part.stop)
        at = (place[rows] - part.start).clamp(0, len(places) - 1)[..., None].expand(-1, 1, held.shape[-1])
        found[rows] = torch.where(inside[..., None], held.gather(1, at), found[rows])
    return found


@dataclass(frozen=True)
class ReverseStep:
    """A step of the reverse process of the places that were predicted, from levels ``now`` to ``then``, broadcastable
    to ``[B, q]``, at z ``[B, q]``. given: ``[B, q]`` bool, tokens that stand. drawn: states from probabilities
    ``[…, S]`` and as many uniform numbers."""

    predicted: Predicted
    z: Tensor
    given: Tensor
    now: Tensor
    then: Tensor
    drawn: Callable[[Tensor, Tensor], Tensor] = draw_categorical

    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """States after the step, ``[B, q]`` int64, and the probability of each, float64: in the draw, or, where the
        canvas has a language, of the token of the clean text after it."""
        length = self.z.shape[1]
        if self.predicted.canvas.joint is not None:
            return self._draw_together(noise.uniform(length, 3, dtype=torch.float64))
        return self._draw_each(noise.uniform(length, dtype=torch.float64))

    def _levels(self, rows: slice, part: slice) -> tuple[Tensor, Tensor]:
        now, then = (level.expand(self.z.shape)[rows, part] for level in (self.now, self.then))
        return now, then

    def _draw_each(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        drawn, chance = self.z.clone(), torch.ones(self.z.shape, dtype=torch.float64, device=self.z.device)
        for piece in self.predicted.pieces:
            logits, clean = self.predicted.at(*piece)
            now, then = self._levels(*piece)
            probs = self.predicted.process.reverse(logits, self.z[piece], now, then)
            if clean is not None:
                probs = only_allowed(clean, probs, where=then == 0)
            drawn[piece] = self.drawn(probs, uniform[piece])
            chance[piece] = pick(probs, drawn[piece]) / probs.sum(-1)
        return drawn, chance

    # --- held to a language -----------------------------------------------------------------------------------------

    def _draw_together(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """x of the canvas's language, then z_s ~ q(z_s | z_t, x). uniform: ``[B, q, 3]`` float64 in [0, 1)."""
        canvas, places = self.predicted.canvas, self.predicted.places
        joint = canvas.joint
        assert joint is not None
        drawn, chance = self.z.clone(), torch.ones(self.z.shape, dtype=torch.float64, device=self.z.device)
        for row in range(len(self.z)):
            marginals = Marginals(partial(self._log_posterior, row), self.predicted.logits.shape[-1])
            clean, chance[row] = joint.draw(marginals, canvas, row, places, uniform[row, :, :2])
            drawn[row] = self._back(row, clean, uniform[row, :, 2])
        return drawn, chance

    def _log_posterior(self, row: int, place: slice) -> Tensor:
        """log p(x_i | z_t), up to a constant, all on what is given: ``[q, S]`` float64."""
        begin, process = self.predicted.places.start, self.predicted.process
        one, own = slice(row, row + 1), slice(place.start - begin, place.stop - begin)
        z = self.z[one, own]
        log_p = process.log_joint(self.predicted.at(one, own)[0], z, self._levels(one, own)[0])
        given = self.given[row, own]
        log_p[0, given] = -torch.inf
        log_p[0, given, z[0, given]] = 0.0
        return log_p[0]

    def _back(self, row: int, clean: Tensor, uniform: Tensor) -> Tensor:
        """What a clean text ``[q]`` becomes at the level of the step's end: ``[q]``."""
        one, states, process = slice(row, row + 1), clean.clone(), self.predicted.process
        for own in slices_of(len(clean), self.predicted.logits.shape[-1], clean.device):
            now, then = self._levels(one, own)
            noisy = ((then[0] > 0) & ~self.given[row, own]).nonzero().squeeze(-1)
            if not len(noisy):
                continue
            place = noisy + own.start
            # section 7 of docs/mathematics.md with x known
            probs = process.between(clean[None, place], self.z[one, place], now[:, noisy], then[:, noisy])
            states[place] = draw_categorical(probs[0], uniform[place])
        return states


def only_allowed(clean: Tensor, probs: Tensor, where: Tensor) -> Tensor:
    """Reverse probabilities ``[B, L, S]`` that lead, ``where`` a position becomes clean, only to tokens that ``clean``
    ``[B, L, S]`` gives any probability: rounding leaves some to others. where: broadcastable to ``[B, L]``.

    A state that the process cannot leave any more, a token under absorbing noise, stays as it was written."""
    held = torch.where(clean > 0, probs, 0.0)
    return torch.where((where & (held.sum(-1) > 0)).unsqueeze(-1), held, probs)
