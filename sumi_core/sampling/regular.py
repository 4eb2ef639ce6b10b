"""Regular expressions as automata over bytes.

``interegular`` turns an expression into a deterministic automaton over characters; this module turns that into one over
the bytes of UTF-8, in which tokens are written that may begin or end inside a character. A lead byte and the
continuation bytes after it stand for a block of consecutive code points, so a state inside a character is what the rest
of its block leads to, and blocks that lead to the same share one state.

The dialect is that of Python's ``re`` with the flag ASCII: ``\\d``, ``\\w`` and ``\\s`` are ASCII, all else is Unicode.
What is not regular, or of which the library means something else than Python, is refused.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from sumi_core.base.errors import SumiError

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEAD = -1  # the state from which no text is accepted
MOST_STATES = 20_000  # of an automaton
_PATCHED = Lock()

_Pieces: TypeAlias = "tuple[tuple[int, int], ...]"  # (first code point, where it leads), up to the next piece
_SURROGATES, _CHARACTERS = slice(0xD800, 0xE000), 0x110000
# Lead bytes of characters of two, three and four bytes, the bits of the code point that they hold, and the first code
# point that is written so: a shorter one has another form.
_LEADS = ((range(0xC0, 0xE0), 0x1F, 0x80), (range(0xE0, 0xF0), 0x0F, 0x800), (range(0xF0, 0xF8), 0x07, 0x10000))
ATOM = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)  # an escaped character, or a class of some
_OUTSIDE = {
    r"(?:[*+?]|\{[\d,]+\})\+": "a possessive quantifier, which is not regular; leave out its +",
    r"\(\?[=!]|\(\?<[=!]": "a look at what stands around, which is not regular; leave it out",
    r"\(\?[a-zA-Z]*i": "the flag i, which is not supported; write both letters, as in [aA]",
    r"[\^$]": "an anchor; leave ^ and $ out, since the whole text has to match anyway",
    r"\{(?!\d+(?:,\d*)?\}|,\d+\})": "a brace that begins no repeat; write \\{ for the brace itself",
    r"\(\?[#>(]": "a comment, an atomic group or a condition, none of which is supported; leave it out",
}


class PatternError(SumiError, ValueError):
    """A regular expression that cannot be used. One sentence: what is wrong, and what to do."""


@dataclass(frozen=True)
class ByteAutomaton:
    """table: ``[N, 256]`` int32, the state after each byte, or ``DEAD``; every other state leads to an accepted text.
    start: the first state, ``DEAD`` where nothing is accepted. accepts: ``[N]`` bool."""

    table: NDArray[np.int32]
    start: int
    accepts: NDArray[np.bool_]

    def accepted(self, text: bytes) -> bool:
        """Whether a text is in the language."""
        state = self.start
        for byte in text:
            if state == DEAD:
                return False
            state = int(self.table[state, byte])
        return state != DEAD and bool(self.accepts[state])


def character_automaton(pattern: str) -> Any:
    """``interegular``'s automaton of an expression that a whole text has to match. Raises PatternError."""
    import interegular
    from interegular.patterns import InvalidSyntax, Unsupported

    try:
        re.compile(pattern, re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError(f"'{pattern}' is not a regular expression: {error}") from None
    bare = ATOM.sub("x", pattern)
    for outside, name in _OUTSIDE.items():
        if re.search(outside, bare):
            raise PatternError(f"'{pattern}' holds {name}")
    try:
        # A bracket that comes first in a class stands for itself, which the library reads as the end of the class.
        written = ATOM.sub(lambda atom: re.sub(r"^(\[\^?)\]", r"\1\\]", atom[0]), pattern)
        parsed = interegular.parse_pattern(written)
        # A bounded text of n characters passes n + 1 states; the library would build them all before anyone counts.
        if max(length or 0 for length in parsed.lengths) >= MOST_STATES:
            raise _too_large()
        with _bounded_crawl():
            return parsed.to_fsm().reduce()
    except (Unsupported, InvalidSyntax) as error:
        reason = str(error).partition("\n")[0] or "the syntax"
        raise PatternError(f"'{pattern}' cannot be made an automaton: {reason}; write it without") from None


@contextmanager
def _bounded_crawl() -> Iterator[None]:
    """``interegular`` refuses more than ``MOST_STATES`` states, of which an expression may need exponentially many, and
    finds them by their hash: its own ``crawl`` searches a list for each."""
    from interegular import fsm

    with _PATCHED:
        theirs, fsm.crawl = fsm.crawl, _crawl
        try:
            yield
        finally:
            fsm.crawl = theirs


def _crawl(alphabet: Any, initial: Any, final: Callable[[Any], bool], follow: Callable[[Any, int], Any]) -> Any:
    """The automaton whose states are all that ``follow`` leads to, numbered in the order in which they are reached."""
    from interegular.fsm import FSM, OblivionError

    states, numbers, finals = [initial], {_hashable(initial): 0}, set()
    moves: dict[int, dict[int, int]] = {}
    for number, state in enumerate(states):  # it grows on the way
        if final(state):
            finals.add(number)
        moves[number] = {}
        for symbol in alphabet.by_transition:
            try:
                reached = follow(state, symbol)
            except OblivionError:
                continue
            key = _hashable(reached)
            if key not in numbers:
                if len(states) == MOST_STATES:
                    raise _too_large()
                numbers[key] = len(states)
                states.append(reached)
            moves[number][symbol] = numbers[key]
    return FSM(
        alphabet=alphabet,
        states=range(len(states)),
        initial=0,
        finals=finals,
        map=moves,
        __no_validation__=True,
    )


def _hashable(state: Any) -> Hashable:
    if isinstance(state, dict):
        return frozenset(state.items())
    return frozenset(state) if isinstance(state, set) else state


def _too_large() -> PatternError:
    return PatternError(
        f"the expression needs more than {MOST_STATES:,} states; bound its repeats lower, or write a simpler one"
    )


def literal(text: str) -> str:
    """An expression that matches a text and nothing else."""
    return re.sub(r"([\\.^$*+?{}\[\]()|])", r"\\\1", text)


def holding(text: str) -> Any:
    """The automaton over characters of all texts that hold ``text`` somewhere."""
    return character_automaton(rf"[\s\S]*{literal(text)}[\s\S]*")


def byte_automaton(characters: Any) -> ByteAutomaton:
    """The same language over the bytes of UTF-8. Raises PatternError for one of more than ``MOST_STATES`` states."""
    return _ByBytes(characters).built()


class _ByBytes:
    """States by what they mean: between characters a state of the automaton over characters, inside one the pieces of
    the block that is left, with the number of continuation bytes to come."""

    def __init__(self, characters: Any) -> None:
        self.characters = characters
        self.symbols = _symbol_pieces(characters)
        self.numbers: dict[tuple[int, int | _Pieces], int] = {}
        self.waiting: deque[tuple[int, int | _Pieces]] = deque()

    def built(self) -> ByteAutomaton:
        start, rows, accepts = self._number(0, self.characters.initial), [], []
        while self.waiting:
            left, meaning = self.waiting.popleft()
            rows.append(self._between(meaning) if isinstance(meaning, int) else self._inside(left, meaning))
            accepts.append(isinstance(meaning, int) and meaning in self.characters.finals)
        return _trimmed(np.array(rows, dtype=np.int32), start, np.array(accepts))

    def _number(self, left: int, meaning: int | _Pieces) -> int:
        """The number of a state, a new one if there was none."""
        if meaning == DEAD or (isinstance(meaning, tuple) and all(target == DEAD for _, target in meaning)):
            return DEAD
        key = (left, meaning)
        if key not in self.numbers:
            if len(self.numbers) == MOST_STATES:
                raise _too_large()
            self.numbers[key] = len(self.numbers)
            self.waiting.append(key)
        return self.numbers[key]

    def _between(self, state: int) -> list[int]:
        """Where each byte leads from between two characters."""
        moves = self.characters.map.get(state, {})
        pieces = _merged([(begin, moves.get(symbol, DEAD)) for begin, symbol in self.symbols])
        row = [DEAD] * 256
        row[:128] = [self._number(0, _at(pieces, code)) for code in range(128)]
        for left, (leads, bits, first) in enumerate(_LEADS, start=1):
            size = 64**left
            for lead in leads:
                begin = (lead & bits) * size
                row[lead] = self._number(left, _block(pieces, begin, size, first))
        return row

    def _inside(self, left: int, pieces: _Pieces) -> list[int]:
        """Where each byte leads from inside a character."""
        row, size = [DEAD] * 256, 64 ** (left - 1)
        for number in range(64):
            block = _block(pieces, number * size, size)
            row[0x80 + number] = self._number(left - 1, block if left > 1 else block[0][1])
        return row


def _symbol_pieces(characters: Any) -> list[tuple[int, int]]:
    """The automaton's symbol of every code point, ``DEAD`` for those that are not characters, as pieces."""
    from interegular.fsm import anything_else

    mapping = dict(characters.alphabet.items())
    symbols = np.full(_CHARACTERS + 1, mapping.pop(anything_else, DEAD), dtype=np.int64)
    symbols[[ord(character) for character in mapping]] = list(mapping.values())
    symbols[_SURROGATES], symbols[_CHARACTERS] = DEAD, DEAD
    begins = np.flatnonzero(np.diff(symbols, prepend=symbols[0] - 1))
    return list(zip(begins.tolist(), symbols[begins].tolist(), strict=True))


def _merged(pieces: list[tuple[int, int]]) -> _Pieces:
    return tuple(piece for n, piece in enumerate(pieces) if n == 0 or piece[1] != pieces[n - 1][1])


def _at(pieces: _Pieces, code: int) -> int:
    return pieces[bisect_right(pieces, code, key=lambda piece: piece[0]) - 1][1]


def _block(pieces: _Pieces, begin: int, size: int, first: int = 0) -> _Pieces:
    """The pieces of ``size`` code points from ``begin`` on, counted from there; those before ``first`` lead nowhere."""
    place = bisect_right(pieces, begin, key=lambda piece: piece[0]) - 1
    found = [(0, pieces[place][1])]
    while place + 1 < len(pieces) and pieces[place + 1][0] < begin + size:
        place += 1
        found.append((pieces[place][0] - begin, pieces[place][1]))
    if first > begin:
        cut = first - begin
        after = _at(tuple(found), cut)
        found = [(0, DEAD), *([(cut, after)] if cut < size else []), *(piece for piece in found if piece[0] > cut)]
    return _merged(found)


def _trimmed(table: NDArray[np.int32], start: int, accepts: NDArray[np.bool_]) -> ByteAutomaton:
    """Without the states from which nothing is accepted, in the order of their first use."""
    sources, _ = np.nonzero(table >= 0)
    edges = np.unique(np.stack([table[table >= 0], sources.astype(np.int32)], 1), axis=0)
    before: dict[int, list[int]] = {}
    for target, source in edges.tolist():
        before.setdefault(target, []).append(source)
    alive = np.flatnonzero(accepts).tolist()
    seen = set(alive)
    while alive:
        new = [source for source in before.get(alive.pop(), ()) if source not in seen]
        seen.update(new)
        alive += new
    kept = np.array(sorted(seen), dtype=np.int64)
    numbers = np.full(len(table) + 1, DEAD, dtype=np.int32)  # the last entry is what DEAD becomes
    numbers[kept] = np.arange(len(kept), dtype=np.int32)
    return ByteAutomaton(numbers[table[kept]], int(numbers[start]), accepts[kept])
