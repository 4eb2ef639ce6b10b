"""Texts that are held to a language: a rule on all tokens of a stretch together.

In one step of diffusion every text of the language is drawn with the probability that the independent draw would have
given it, over that of the language: the exact conditional distribution of what the model writes in one step. In several
steps it is a heuristic: every step draws a clean text of the language so, x ~ Π p(x_i | z_t), and goes back to
z_s ~ q(z_s | z_t, x). Without a language that is the reverse step itself; with one, p(x_i | z_t) knows nothing of what
the language will do to the other places. Left to right, a token is drawn among those after which the text can still be
completed, a heuristic too. Whatever the steps, every finished text is in the language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from sumi_core.corruption.categorical import draw_categorical
from sumi_core.corruption.process import ForwardProcess
from sumi_core.kernels.row_loss import pick
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.forward_backward import Marginals, chunks, draw_text
from sumi_core.sampling.regular import DEAD
from sumi_core.sampling.token_automaton import TokenAutomaton

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Stretch:
    """The places of a row from ``begin`` to ``end`` whose tokens are a text of a language. open_ended: the text may end
    before, with an end-of-text token; what stands behind that is not part of it."""

    automaton: TokenAutomaton
    begin: int
    end: int
    open_ended: bool

    def possible(self) -> bool:
        """Whether any text of the language fits, with nothing given within it."""
        free = np.full(self.end - self.begin, -1, dtype=np.int64)
        return self.automaton.start != DEAD and bool(self.reach(free)[0, self.automaton.start])

    def given(self, tokens: Tensor, frozen: Tensor) -> NDArray[np.int64]:
        """The class of the token that stands at each place, −1 where none does: ``[end − begin]``. tokens, frozen: of
        the row, ``[L]``."""
        inside = slice(self.begin, self.end)
        tokens, frozen = tokens[inside].cpu(), frozen[inside].cpu()
        return np.where(frozen.numpy(), self.automaton.classes[torch.where(frozen, tokens, 0).numpy()], -1)

    def reach(self, given: NDArray[np.int64]) -> NDArray[np.bool_]:
        """From which states the text can be completed from each place of the stretch on, ``[end − begin + 1, N]``."""
        automaton = self.automaton
        classes, targets, sources, begins = automaton.edges
        found = np.zeros((self.end - self.begin + 1, len(automaton.table)), dtype=bool)
        found[-1] = automaton.complete(self.open_ended)
        for place in range(self.end - self.begin - 1, -1, -1):
            own = int(given[place])
            possible = found[place + 1][targets] & ((own < 0) | (classes == own))
            found[place, sources] = np.logical_or.reduceat(possible, begins)
        return found


class Languages:
    """Holds each row to the language of its stretch. stretches: by the number of the row; a row that has none is free.

    As a constraint of a sampler that writes from left to right it sees one position at a time."""

    joint = True

    def __init__(self, stretches: Mapping[int, Stretch]) -> None:
        self.stretches = dict(stretches)
        self._reach: dict[int, tuple[bytes, NDArray[np.bool_]]] = {}

    def check(self, canvas: Canvas) -> None:
        """Raise ValueError for a row in which no text of its language has room."""
        for index, row in enumerate(canvas.rows):
            stretch = self.stretches.get(row)
            if stretch is None:
                continue
            automaton, room = stretch.automaton, stretch.end - stretch.begin
            if automaton.start != DEAD and self._reached(canvas, index)[0][automaton.start]:
                continue
            fewest = automaton.shortest(16 * room + 256)
            why = "the shortest is longer" if fewest is None else f"the shortest takes {fewest}"
            if automaton.start == DEAD:
                why = "it has no text at all"
            raise ValueError(f"no text of the language has {room} tokens, which text {row} leaves to it: {why}")

    def __call__(self, probs: Tensor, canvas: Canvas, positions: Tensor) -> Tensor:
        """The tokens after which the text can still be completed, at one position ``[1]`` behind finished text."""
        (position,) = positions.tolist()
        held = probs.clone()
        for index, row in enumerate(canvas.rows):
            stretch = self.stretches.get(row)
            if stretch is None or not stretch.begin <= position < stretch.end:
                continue
            automaton = stretch.automaton
            state = automaton.after(automaton.start, canvas.tokens[index, stretch.begin : position].tolist())
            targets = automaton.table[state] if state != DEAD else np.full_like(automaton.table[0], DEAD)
            after = self._reached(canvas, index)[position - stretch.begin + 1]
            possible = torch.from_numpy((targets != DEAD) & after[targets]).to(probs.device)
            classes = torch.from_numpy(automaton.classes).to(probs.device)
            held[index, 0, : len(classes)] *= possible[classes]
            held[index, 0, len(classes) :] = 0.0
        return held

    def draw(
        self, marginals: Marginals, canvas: Canvas, index: int, places: range, uniform: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens of one row at consecutive places, drawn together where its stretch is and each by itself elsewhere,
        and the probability of each, given those before it: ``[q]`` int64 and float64. What stands before the places is
        finished; behind them the text can be completed. marginals: by the places of the canvas. index: of the row in
        the canvas. uniform: ``[q, 2]`` float64 in [0, 1). Raises ValueError where nothing can be drawn."""
        stretch = self.stretches.get(canvas.rows[index])
        inside = range(0)
        if stretch is not None and not bool(canvas.done[index]):
            inside = range(max(places.start, stretch.begin), min(places.stop, stretch.end))
        if stretch is None or not inside:
            return _each(marginals, places, uniform)
        automaton, first, last = stretch.automaton, inside.start - places.start, inside.stop - places.start
        start = automaton.after(automaton.start, canvas.tokens[index, stretch.begin : inside.start].tolist())
        stops = self._reached(canvas, index)[inside.stop - stretch.begin]
        parts = [
            _each(marginals, range(places.start, inside.start), uniform[:first]),
            draw_text(marginals, inside.start, inside.stop, automaton, start, stops, uniform[first:last]),
            _each(marginals, range(inside.stop, places.stop), uniform[last:]),
        ]
        tokens, chances = zip(*parts, strict=True)
        return torch.cat(tokens), torch.cat(chances)

    def _reached(self, canvas: Canvas, index: int) -> NDArray[np.bool_]:
        row = canvas.rows[index]
        given = self.stretches[row].given(canvas.tokens[index], canvas.frozen[index])
        if row not in self._reach or self._reach[row][0] != given.tobytes():
            self._reach[row] = given.tobytes(), self.stretches[row].reach(given)
        return self._reach[row][1]


def _each(marginals: Marginals, places: range, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens drawn each by itself, and their probabilities."""
    tokens = [torch.zeros(0, dtype=torch.int64, device=uniform.device)]
    chances = [torch.zeros(0, dtype=torch.float64, device=uniform.device)]
    for place in chunks(places.start, places.stop, marginals.width):
        log_p = marginals.at(place)
        probs = (log_p - log_p.amax(-1, keepdim=True)).exp()  # not normalised, and of any size
        tokens.append(draw_categorical(probs, uniform[place.start - places.start : place.stop - places.start, 1]))
        chances.append(pick(probs, tokens[-1]) / probs.sum(-1))
    return torch.cat(tokens), torch.cat(chances)


@dataclass(frozen=True)
class ReverseStep:
    """A step of the reverse process of ``places`` of a canvas, from levels ``now`` to ``then``, broadcastable to
    ``[B, q]``: leave-one-out logits ``[B, q, S]`` at z ``[B, q]``. given: ``[B, q]`` bool, tokens that stand."""

    process: ForwardProcess
    logits: Tensor
    z: Tensor
    given: Tensor
    now: Tensor
    then: Tensor
    places: range

    def _levels(self, row: int, place: slice) -> tuple[Tensor, Tensor]:
        now, then = (level.expand(self.z.shape)[row : row + 1, place] for level in (self.now, self.then))
        return now, then

    def draw(self, canvas: Canvas, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """States after the step, ``[B, q]`` int64, and the probability of each token of the clean texts behind them,
        float64: x of the canvas's language, then z_s ~ q(z_s | z_t, x). uniform: ``[B, q, 3]`` float64 in [0, 1)."""
        joint = canvas.joint
        assert joint is not None
        drawn, chance = self.z.clone(), torch.ones(self.z.shape, dtype=torch.float64, device=self.z.device)
        for row in range(len(self.z)):
            marginals = Marginals(partial(self._log_posterior, row), self.logits.shape[-1])
            clean, chance[row] = joint.draw(marginals, canvas, row, self.places, uniform[row, :, :2])
            drawn[row] = self._back(row, clean, uniform[row, :, 2])
        return drawn, chance

    def _log_posterior(self, row: int, place: slice) -> Tensor:
        """log p(x_i | z_t), up to a constant, all on what is given: ``[q, S]`` float64."""
        one, own = slice(row, row + 1), slice(place.start - self.places.start, place.stop - self.places.start)
        z = self.z[one, own]
        log_p = self.process.log_evidence(z, self._levels(row, own)[0])
        log_p += self.process.token_logits(self.logits[one, own])
        given = self.given[row, own]
        log_p[0, given] = -torch.inf
        log_p[0, given, z[0, given]] = 0.0
        return log_p[0]

    def _back(self, row: int, clean: Tensor, uniform: Tensor) -> Tensor:
        """What a clean text ``[q]`` becomes at the level of the step's end: ``[q]``."""
        one, states = slice(row, row + 1), clean.clone()
        for own in chunks(0, len(clean), self.logits.shape[-1]):
            now, then = self._levels(row, own)
            noisy = ((then[0] > 0) & ~self.given[row, own]).nonzero().squeeze(-1)
            if not len(noisy):
                continue
            place = noisy + own.start
            # q_{t|s}(z_t | z_s) q_s(z_s | x), section 7 of docs/mathematics.md with x known
            x = torch.zeros(1, len(place), self.logits.shape[-1], dtype=torch.float64, device=clean.device)
            x.scatter_(-1, clean[place][None, :, None], 1.0)
            probs = self.process.marginal(x, then[:, noisy])
            probs *= self.process.transition(self.z[one, place], now[:, noisy], then[:, noisy])
            states[place] = draw_categorical(probs[0], uniform[place])
        return states
