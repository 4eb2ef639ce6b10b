"""Exact draws from independent distributions under the condition that the tokens together are in a language.

With p_i at place i and the automaton of the language, the messages

    β_n(s) = 1[a text may stop in s],   β_i(s) = Σ_v p_i(v) β_{i+1}(δ(s, v))

are the chance that what is drawn from place i on completes a text that stands in state s, and β_0(start) that of the
language as a whole. Tokens are drawn from left to right, v with probability p_i(v) β_{i+1}(δ(s, v)) / β_i(s): their
product is Π p_i(x_i) / β_0(start) on the language and 0 elsewhere (Rabiner, Proc. IEEE 77(2), 1989, Sec. III, for
hidden Markov models; here the chain of states is determined by the tokens).

Logarithms throughout: a text of a language may be less probable than the smallest float. A table of V columns is only
made of the places that fit a chunk. The draw looks at p_i once more after the messages: of a text whose tables together
are small they are kept until then, of a longer one they are made twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sumi_core.corruption.categorical import draw_categorical
from sumi_core.kernels.chunks import slices_of
from sumi_core.sampling.regular import DEAD
from sumi_core.sampling.token_automaton import TokenAutomaton

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Log = NDArray[np.float64]

_MOST_KEPT = 2**23  # float64 numbers of all tables of a text that are kept


@dataclass(frozen=True)
class Marginals:
    """Independent distributions of the clean tokens of one text. at: log-probabilities at some consecutive places,
    ``[q, S]`` float64, not necessarily normalised, in a table that the caller may write to. width: S."""

    at: Callable[[slice], Tensor]
    width: int


def chunks(begin: int, end: int, width: int, device: torch.device) -> Iterator[slice]:
    """The places from ``begin`` to ``end`` in runs whose tables of ``width`` columns fit the cache."""
    own = slices_of(end - begin, width, device)
    return (slice(begin + part.start, min(begin + part.stop, end)) for part in own)


class _Tables:
    """Probabilities at the places of a chunk, each scaled to a largest of 1, and the logarithms of the scales:
    ``[q, V]`` and ``[q]`` float64. places: of the text; its tables are kept if they are small together, else the last.
    """

    def __init__(self, marginals: Marginals, num_tokens: int, places: int) -> None:
        self.marginals, self.num_tokens = marginals, num_tokens
        self._keeps_all = places * marginals.width <= _MOST_KEPT
        self._kept: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def at(self, place: slice) -> tuple[Tensor, Tensor]:
        key = place.start, place.stop
        if key not in self._kept:
            if not self._keeps_all:
                self._kept.clear()
            log_p = self.marginals.at(place)[..., : self.num_tokens]
            top = log_p.amax(-1, keepdim=True)
            top = torch.where(top == -torch.inf, 0.0, top)
            self._kept[key] = log_p.sub_(top).exp_(), top.squeeze(-1)
        return self._kept[key]


def _log_class_weights(tables: _Tables, places: list[slice], automaton: TokenAutomaton) -> Log:
    """log Σ_{v in class} p_i(v) of every place: ``[n, C]``, NaN where p_i is."""
    width, found = automaton.table.shape[1], []
    for place in places:
        probs, top = tables.at(place)
        classes = torch.from_numpy(automaton.classes).to(probs.device)
        sums = torch.zeros(len(probs), width, dtype=torch.float64, device=probs.device)
        sums.scatter_add_(-1, classes.expand_as(probs), probs)
        found.append((sums.log() + top.unsqueeze(-1)).cpu())
    return torch.cat(found).numpy()


@dataclass(frozen=True)
class Messages:
    """log β of every place and after the last, ``[n + 1, N]``. weights: log p of the classes, ``[n, C]``."""

    automaton: TokenAutomaton
    weights: Log
    log_beta: Log

    def log_probability(self, start: int) -> float:
        """log β_0(start): of the language under the independent draw."""
        return float(self.log_beta[0, start]) if start != DEAD else -np.inf

    def log_moves(self, place: int, state: int) -> Log:
        """log of the (not normalised) probability of each class at a place, given the state there: ``[C]``."""
        targets = self.automaton.table[state]
        return np.where(targets >= 0, self.weights[place] + self.log_beta[place + 1, targets], -np.inf)

    def draw(self, start: int, uniform: Log) -> tuple[NDArray[np.int64], Log]:
        """A class for each place, and the log-probability of each, given those before it: ``[n]``. uniform: ``[n]`` in
        [0, 1). The language must have a text."""
        state, drawn, log_chances = start, np.zeros(len(self.weights), dtype=np.int64), np.zeros(len(self.weights))
        for place, number in enumerate(uniform):
            log = self.log_moves(place, state)
            cumulative = np.exp(log - log.max()).cumsum()
            drawn[place] = np.searchsorted(cumulative, number * cumulative[-1], side="right")
            log_chances[place] = log[drawn[place]] - self.log_beta[place, state]
            state = int(self.automaton.table[state, drawn[place]])
        return drawn, log_chances


def messages(automaton: TokenAutomaton, weights: Log, stops: NDArray[np.bool_]) -> Messages:
    """The messages of ``weights`` ``[n, C]`` (log). stops: ``[N]``, the states in which the last place may leave a
    text."""
    classes, targets, sources, begins = automaton.edges
    counts = np.diff(begins, append=len(classes))
    log_beta = np.full((len(weights) + 1, len(automaton.table)), -np.inf)
    log_beta[-1, stops] = 0.0
    with np.errstate(divide="ignore"):
        for place in range(len(weights) - 1, -1, -1):
            log = weights[place][classes] + log_beta[place + 1][targets]
            top = np.maximum.reduceat(log, begins)
            top = np.where(top == -np.inf, 0.0, top)
            sums = np.add.reduceat(np.exp(log - np.repeat(top, counts)), begins)
            log_beta[place, sources] = top + np.log(sums)
    return Messages(automaton, weights, log_beta)


def draw_text(
    marginals: Marginals,
    begin: int,
    end: int,
    automaton: TokenAutomaton,
    start: int,
    stops: NDArray[np.bool_],
    uniform: Tensor,
) -> tuple[Tensor, Tensor]:
    """Tokens of the places from ``begin`` to ``end`` of one text, ``[end − begin]`` int64, drawn from the product of
    its marginals under the condition that they lead from ``start`` to one of ``stops``; and each one's probability,
    given those before it, ``[end − begin]`` float64. uniform: ``[end − begin, 2]`` float64 in [0, 1).

    Raises ValueError where the marginals are NaN or give no such text any probability."""
    tables = _Tables(marginals, len(automaton.classes), end - begin)
    places = list(chunks(begin, end, marginals.width, uniform.device))
    found = messages(automaton, _log_class_weights(tables, places, automaton), stops)
    if not found.log_probability(start) > -np.inf:
        raise ValueError(
            "cannot draw a text of the language: the probabilities are NaN or give it none; does the denoiser give "
            "NaN logits?"
        )
    drawn, log_chances = found.draw(start, uniform[:, 0].cpu().numpy())
    tokens, chances = [], []
    for place in places:
        probs, _ = tables.at(place)
        for own in range(place.stop - place.start):
            number = place.start - begin + own
            members = torch.from_numpy(automaton.members[drawn[number]]).to(probs.device)
            within = probs[own].index_select(0, members)
            token = draw_categorical(within, uniform[number, 1])
            tokens.append(members[token])
            chances.append(within[token] / within.sum())
    return torch.stack(tokens), torch.stack(chances) * torch.from_numpy(log_chances).to(uniform.device).exp()
