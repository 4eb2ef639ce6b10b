"""A language of texts as an automaton over the tokens of a vocabulary.

Tokens are strings of bytes, and every way to cut a text into tokens is a path: the language over texts is kept exactly.
Tokens that lead every state to the same one are one class, so the table has a column per class and not per token: a
vocabulary of 50,000 has a few hundred classes under most expressions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from sumi_core.sampling.regular import DEAD, ByteAutomaton

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_CHUNK_ENTRIES = 2**22  # of the table [tokens, states] that is walked at a time
MOST_ENTRIES = 2**25  # of the table [states, classes]


@dataclass(frozen=True)
class TokenAutomaton:
    """table: ``[N, C]`` int32, where each state leads with a token of each class, or ``DEAD``. classes: ``[V]`` int64,
    the class of each token; class 0 leads nowhere but from ``ended``. start: the first state, ``DEAD`` where the
    language is empty. accepts: ``[N]`` bool, where a text may be complete. ended: the state after an end-of-text
    token, which only an accepting state has a way to and which any token leaves as it is: what follows the end of
    a text is not part of it."""

    table: NDArray[np.int32]
    classes: NDArray[np.int64]
    start: int
    accepts: NDArray[np.bool_]
    ended: int

    @cached_property
    def edges(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Every move: class and target, ``[E]``, sorted by source; the sources that have moves, and where those of each
        begin, ``[n]``."""
        sources, classes = np.nonzero(self.table >= 0)
        own, begins = np.unique(sources, return_index=True)
        return classes, self.table[sources, classes].astype(np.int64), own, begins

    @cached_property
    def members(self) -> list[NDArray[np.int64]]:
        """The tokens of each class."""
        counts = np.bincount(self.classes, minlength=self.table.shape[1])
        return np.split(np.argsort(self.classes, kind="stable"), np.cumsum(counts)[:-1])

    def complete(self, open_ended: bool) -> NDArray[np.bool_]:
        """The states in which a stretch of tokens may stop, ``[N]``. open_ended: whether the text may have ended
        before, with an end-of-text token."""
        stops = self.accepts.copy()
        stops[self.ended] = open_ended
        return stops

    def after(self, state: int, tokens: Sequence[int]) -> int:
        """The state that tokens lead to."""
        for token in tokens:
            if state != DEAD:
                state = int(self.table[state, self.classes[token]])
        return state

    def shortest(self, limit: int) -> int | None:
        """The fewest tokens of a text of the language, None where it takes more than ``limit``."""
        reached = np.zeros(len(self.table), dtype=bool)
        reached[[self.start] if self.start != DEAD else []] = True
        for count in range(limit + 1):
            if (reached & self.accepts).any():
                return count
            targets = self.table[reached]
            reached = np.zeros_like(reached)
            reached[targets[targets >= 0]] = True
        return None


def token_automaton(language: ByteAutomaton, tokens: Sequence[bytes], eos_id: int) -> TokenAutomaton:
    """The automaton of a language over a vocabulary. tokens: the bytes of each, ``[V]``; one without bytes is never
    part of a text. eos_id: the token that ends a text.

    Raises ValueError where the table would have more than ``MOST_ENTRIES`` entries."""
    states = len(language.table)
    # A last row for DEAD, which index −1 finds.
    moves = np.concatenate([language.table, np.full((1, 256), DEAD, dtype=np.int32)])
    columns: dict[bytes, int] = {np.full(states, DEAD, dtype=np.int32).tobytes(): 0}
    classes = np.zeros(len(tokens), dtype=np.int64)
    order = sorted((i for i, token in enumerate(tokens) if token and i != eos_id), key=lambda i: len(tokens[i]))
    chunk = max(1, _CHUNK_ENTRIES // max(states, 1))
    for begin in range(0, len(order), chunk):
        own = order[begin : begin + chunk]
        lengths = np.array([len(tokens[i]) for i in own])
        at = np.broadcast_to(np.arange(states, dtype=np.int32), (len(own), states)).copy()
        for place in range(int(lengths[-1])):
            first = int(np.searchsorted(lengths, place, side="right"))  # they are sorted by length
            bytes_here = np.array([tokens[i][place] for i in own[first:]])
            at[first:] = moves[at[first:], bytes_here[:, None]]
        for i, column in zip(own, at, strict=True):
            classes[i] = columns.setdefault(column.tobytes(), len(columns))
            if len(columns) * states > MOST_ENTRIES:
                raise ValueError("its table over the tokens is too large; bound its repeats lower")
    ended, end_class = states, len(columns)
    classes[eos_id] = end_class
    table = np.full((states + 1, end_class + 1), DEAD, dtype=np.int32)
    for column, number in columns.items():
        table[:states, number] = np.frombuffer(column, dtype=np.int32)
    table[:states, end_class] = np.where(language.accepts, ended, DEAD)
    table[ended] = ended
    return TokenAutomaton(table, classes, language.start, np.append(language.accepts, False), ended)
