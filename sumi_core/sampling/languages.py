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
from typing import TYPE_CHECKING

import numpy as np
import torch

from sumi_core.corruption.categorical import draw_categorical
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
    before, with an end-of-text token; what follows that is not part of it."""

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
        """The tokens after which the text can still be completed, at one position ``[1]`` after finished text."""
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
        finished; after them the text can be completed. marginals: by the places of the canvas. index: of the row in
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
    for place in chunks(places.start, places.stop, marginals.width, uniform.device):
        log_p = marginals.at(place)
        probs = (log_p - log_p.amax(-1, keepdim=True)).exp()  # not normalised, and of any size
        tokens.append(draw_categorical(probs, uniform[place.start - places.start : place.stop - places.start, 1]))
        chances.append(pick(probs, tokens[-1]) / probs.sum(-1))
    return torch.cat(tokens), torch.cat(chances)
