"""What a text is to hold: a prompt, a suffix, gaps to fill in, a language. Each text may have a condition of its own.

A gap ``[[12]]`` of a template holds 12 tokens. A gap ``[[]]`` has no length of its own: at the end of a template it
reaches to the end of the text. Elsewhere the text after it is not frozen, since nothing says where it will stand, but
part of the language of the text, which ends with an end-of-text token or with the canvas.

A language (``regex``, ``schema``, ``forbid``, ``require``) is one of the text in the gap. Where the gap reaches to the
end, the text may end before, with an end-of-text token; what follows that is not part of it. Else it has exactly
as many tokens as the gap.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from sumi_core.base.options import ConfigError
from sumi_core.data.tokenizers.tokenizer import Tokenizer, TokenizerError
from sumi_core.sampling.json_schema import SchemaError, schema_expression
from sumi_core.sampling.languages import Languages, Stretch
from sumi_core.sampling.regular import DEAD, PatternError, byte_automaton, character_automaton, holding, literal
from sumi_core.sampling.token_automaton import TokenAutomaton, token_automaton

if TYPE_CHECKING:
    from torch import Tensor

_GAP = re.compile(r"\[\[(\d*)\]\]")
_NO_GAP = re.compile(r"\[\[[\s\d.,+-]*\]\]")  # meant as one, in all likelihood
_ANYTHING = r"[\s\S]*"
_LONGEST_GAP = 1_000_000  # far above what any model writes, and memory for it is there


@dataclass
class Condition:
    """What one text is to hold, as a file, the command line or Python says it."""

    prompt: Annotated[str, Field(description="text that it begins with")] = ""
    suffix: Annotated[str, Field(description="text that it ends with")] = ""
    template: Annotated[
        str, Field(description="the whole text, with gaps: [[12]] of 12 tokens, [[]] of a free length")
    ] = ""
    regex: Annotated[str | None, Field(description="a regular expression that what is written matches")] = None
    schema: Annotated[Any, Field(description="a JSON schema of what is written")] = None
    forbid: Annotated[list[str], Field(description="texts that what is written holds nowhere")] = field(
        default_factory=list
    )
    require: Annotated[list[str], Field(description="texts that what is written holds somewhere")] = field(
        default_factory=list
    )
    length: Annotated[
        int | None, Field(ge=2, description="tokens of the text; of a template without free gaps its own length")
    ] = None


@dataclass(frozen=True)
class Row:
    """One text before it is written. tokens: ``[L]`` int64. frozen: ``[L]`` bool, what is given. stretch: the places
    that are held to a language, if any."""

    tokens: Tensor
    frozen: Tensor
    stretch: Stretch | None = None


def languages(rows: Sequence[Row]) -> list[Languages]:
    """The constraint that holds each row to its language; none where no row has one."""
    stretches = {number: row.stretch for number, row in enumerate(rows) if row.stretch is not None}
    return [Languages(stretches)] if stretches else []


@dataclass(frozen=True)
class Place:
    """Where a condition was written, for complaints. where: a file or the command. key: what stands before the name of
    each key, as in ``--`` or ``[3].``. schema: the file that the schema was read from, if it has one of its own."""

    where: str
    key: str = ""
    schema: str | None = None

    def error(self, name: str, problem: str) -> ConfigError:
        """The complaint about a key."""
        if name == "schema" and self.schema is not None:
            return ConfigError(self.schema, "", problem)
        return ConfigError(self.where, f"{self.key}{name}", problem)


_REST = -1  # the length of a gap that takes what the other parts leave


@dataclass(frozen=True)
class _Parts:
    """texts: what is given, one more than gaps. gaps: tokens of each, ``_REST`` at most once. tails: texts that are not
    frozen but part of the language, each with a gap of any length before it. key: that said so."""

    key: str
    texts: list[str]
    gaps: list[int]
    tails: list[str] = field(default_factory=list)


def read_row(condition: Condition, tokenizer: Tokenizer, length: int, place: Place) -> Row:
    """The row of a condition. length: the tokens of a text that says nothing of its own.

    Raises ConfigError for keys that contradict each other, for text that leaves no room, and for a language that is
    none or has no text of the length."""
    import torch

    length, parts = condition.length or length, _parts(condition, place)
    ids = [encoded(text, tokenizer, parts.key, place) for text in parts.texts]
    fixed = sum(len(own) for own in ids) + sum(gap for gap in parts.gaps if gap != _REST)
    total = length if _REST in parts.gaps else fixed
    if _REST in parts.gaps and fixed >= length:
        both = " with the suffix" if condition.prompt and condition.suffix else ""
        problem = f"has {fixed} tokens{both}, which leaves nothing to write in {length}"
        problem += f"; shorten it or raise {place.key}length"
        raise place.error(parts.key, problem)
    if condition.length not in (None, total):
        raise place.error("length", f"is {length}, but the template has {total} tokens; leave the length out")
    tokens, frozen = torch.zeros(total, dtype=torch.int64), torch.zeros(total, dtype=torch.bool)
    at, stretches = 0, []
    for own, gap in zip(ids, [*parts.gaps, 0], strict=True):
        tokens[at : at + len(own)] = torch.tensor(own, dtype=torch.int64)
        frozen[at : at + len(own)] = True
        begin = at + len(own)
        at = begin + (total - fixed if gap == _REST else gap)
        stretches.append((begin, at, gap == _REST and at == total))
    return Row(tokens, frozen, _stretch(condition, parts, stretches[: len(parts.gaps)], tokenizer, place))


def _parts(condition: Condition, place: Place) -> _Parts:
    if not condition.template:
        key = "suffix" if condition.suffix and not condition.prompt else "prompt"
        return _Parts(key, [condition.prompt, condition.suffix], [_REST])
    for other in ("prompt", "suffix"):
        if getattr(condition, other):
            raise place.error(other, "a template is the whole text; write it into the template")
    texts, written = _GAP.split(condition.template)[::2], _GAP.findall(condition.template)
    gaps = [int(gap) if gap else _REST for gap in written]
    if not gaps or 0 in gaps:
        raise place.error("template", "has no gap to fill in; write [[12]] for 12 tokens or [[]] for a free length")
    if near := next(filter(None, map(_NO_GAP.search, texts)), None):
        raise place.error("template", f"'{near[0]}' is not a gap; write [[12]] for 12 tokens or [[]] for a free length")
    if max(gaps) > _LONGEST_GAP:
        raise place.error("template", f"a gap of {max(gaps):,} tokens is longer than any text; shorten it")
    if gaps == [_REST] * len(gaps) and (len(gaps) > 1 or texts[-1]):
        return _Parts("template", [texts[0], ""], [_REST], tails=texts[1:])
    if _REST in gaps[:-1] or (gaps[-1] == _REST and texts[-1]):
        problem = "has text after a gap of a free length and gaps of a given one; give all a length, or none"
        raise place.error("template", problem)
    return _Parts("template", texts, gaps)


def encoded(text: str, tokenizer: Tokenizer, key: str, place: Place) -> list[int]:
    """The tokens of a text. Raises ConfigError for one that is not UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise place.error(key, "is not UTF-8 text; set the terminal to UTF-8") from None
    return [int(i) for i in tokenizer.encode_batch([text])[0]] if text else []


def _stretch(
    condition: Condition, parts: _Parts, gaps: Sequence[tuple[int, int, bool]], tokenizer: Tokenizer, place: Place
) -> Stretch | None:
    """The stretch of a row that is held to a language. gaps: begin, end, and whether the text may end before."""
    asked = {"regex": condition.regex, "schema": condition.schema}
    asked |= {name: getattr(condition, name) or None for name in ("forbid", "require")}
    keys = [name for name, value in asked.items() if value is not None]
    if condition.regex is not None and condition.schema is not None:
        raise place.error("schema", "a regular expression and a schema cannot both decide; leave one out")
    for name in ("forbid", "require"):
        if "" in getattr(condition, name):
            raise place.error(name, "the empty text is in every text; leave it out")
    if not keys and not parts.tails:
        return None
    if len(gaps) > 1:
        raise place.error(keys[0], f"the template has {len(gaps)} gaps; a language needs a template with one")
    key = keys[0] if keys else parts.key
    try:
        expression = condition.regex if condition.schema is None else schema_expression(condition.schema)
        texts = (tuple(condition.forbid), tuple(condition.require), tuple(parts.tails))
        automaton = _automaton(expression, *texts, tuple(tokenizer.token_bytes()), tokenizer.eos_id)
    except (PatternError, SchemaError, TokenizerError, ValueError) as error:
        raise place.error(key, str(error)) from None
    stretch = Stretch(automaton, *gaps[0])
    if not stretch.possible():
        room = stretch.end - stretch.begin
        fewest = automaton.shortest(16 * room + 256)
        why = "its shortest text has many more" if fewest is None else f"its shortest text has {fewest}"
        if automaton.start == DEAD:
            why = "no text is in it"
        raise place.error(key, f"no text of the language fits into the {room} tokens that are left to it; {why}")
    return stretch


@functools.lru_cache(maxsize=16)
def _automaton(
    expression: str | None,
    forbid: tuple[str, ...],
    require: tuple[str, ...],
    tails: tuple[str, ...],
    tokens: tuple[bytes, ...],
    eos_id: int,
) -> TokenAutomaton:
    """The automaton of what is written and of the texts after it that are not frozen. Rows that ask the same share
    it."""
    written = character_automaton(_ANYTHING if expression is None else expression)
    for text in forbid:
        written = written.difference(holding(text)).reduce()
    for text in require:
        written = written.intersection(holding(text)).reduce()
    whole = written
    for number, text in enumerate(tails):
        whole = whole.concatenate(character_automaton(literal(text)))
        if number + 1 < len(tails):
            whole = whole.concatenate(written)
    return token_automaton(byte_automaton(whole.reduce()), tokens, eos_id)
