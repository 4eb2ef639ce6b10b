"""Regular expressions as automata over bytes and tokens, against Python's own ``re``: no text is lost or gained."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from sumi_core.data import TOKENIZERS
from sumi_core.sampling.regular import (
    DEAD,
    ByteAutomaton,
    PatternError,
    byte_automaton,
    character_automaton,
    holding,
    literal,
)
from sumi_core.sampling.token_automaton import TokenAutomaton, token_automaton

# "é" is b"\xc3\xa9" and "日" is b"\xe6\x97\xa5": tokens begin and end inside of both.
TOKENS = [b"", b"a", b"b", b"ab", b"1", b"\xc3", b"\xa9", b"\xa9b", b"\xe6\x97", b"\xa5", b"a\xc3", b","]
EOS = 0
PATTERNS = [
    "",
    "a",
    "(a|b)*",
    "(ab)*",
    "a(,a)*",
    "(a|ab)(b|1)?",
    "[^a]*",
    "a{2,3}b?",
    r"\d+(,\d+)*",
    "é|日|ab",
    "[à-ÿ]b",
    "[^é]+",
    ".*é.*",
    r"\w*1",
    r"(?:a|é){2}",
    "(b1?)+,?",
]


def by_bytes(pattern: str) -> ByteAutomaton:
    return byte_automaton(character_automaton(pattern))


def by_tokens(pattern: str) -> TokenAutomaton:
    return token_automaton(by_bytes(pattern), TOKENS, EOS)


def matches(pattern: str, text: bytes) -> bool:
    try:
        return re.fullmatch(pattern, text.decode(), re.ASCII) is not None
    except UnicodeDecodeError:
        return False


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_string_of_tokens_is_accepted_if_and_only_if_its_text_matches(pattern: str) -> None:
    automaton = by_tokens(pattern)
    complete, accepted = automaton.complete(open_ended=False), 0
    for length in range(5):
        for tokens in itertools.product(range(1, len(TOKENS)), repeat=length):
            state = automaton.after(automaton.start, tokens)
            found = state != DEAD and bool(complete[state])
            assert found == matches(pattern, b"".join(TOKENS[i] for i in tokens)), tokens
            accepted += found
    assert accepted > 0


@pytest.mark.parametrize("pattern", ["a", "(ab)*", "[^a]*"])
def test_a_text_may_end_where_it_is_complete_and_what_follows_is_not_part_of_it(pattern: str) -> None:
    automaton = by_tokens(pattern)
    for tokens in itertools.product(range(len(TOKENS)), repeat=3):
        state = automaton.after(automaton.start, tokens)
        text = tokens[: tokens.index(EOS)] if EOS in tokens else tokens
        whole = matches(pattern, b"".join(TOKENS[i] for i in text))
        assert (state != DEAD and bool(automaton.complete(open_ended=True)[state])) == whole
        assert (state != DEAD and bool(automaton.complete(open_ended=False)[state])) == (whole and EOS not in tokens)


@pytest.mark.parametrize("pattern", ["[^a]", ".", "é|日本", "[à-ÿ]{1,2}", "[🙂-🙏]+x?", r"[\s\S]", r"[^\x00-\x7f]"])
def test_every_character_and_no_other_bytes(pattern: str) -> None:
    automaton, compiled = by_bytes(pattern), re.compile(pattern, re.ASCII)
    codes = [*range(0x900), *range(0x900, 0xD800, 97), *range(0xE000, 0x110000, 997), *range(0x1F640, 0x1F650)]
    edges = [edge + n for edge in (0x800, 0x10000, 0x1F642, 0xE000) for n in (0, 1)] + [0xFFFF, 0xD7FF, 0x10FFFF]
    for code in codes + edges:
        assert automaton.accepted(chr(code).encode()) == bool(compiled.fullmatch(chr(code))), hex(code)
    generator = random.Random(0)
    for _ in range(3000):  # overlong forms, surrogates, cut characters and what lies beyond Unicode among them
        text = bytes(generator.choice(b"a\x80\xbf\xc0\xc1\xc3\xa9\xe0\xed\xa0\x9f\xf0\xf4\x8f\x90") for _ in range(4))
        assert automaton.accepted(text) == matches(pattern, text), text


def test_every_state_leads_to_a_text() -> None:
    for pattern in PATTERNS:
        automaton = by_bytes(pattern)
        reached = set(automaton.accepts.nonzero()[0].tolist())
        for _ in automaton.table:
            reached |= {state for state, row in enumerate(automaton.table.tolist()) if reached & set(row)}
        assert reached == set(range(len(automaton.table)))
    assert by_bytes(r"[^\s\S]").start == DEAD


def test_tokens_of_one_class_do_the_same_and_those_of_two_do_not() -> None:
    automaton = by_tokens("[^a]*")
    own: dict[int, list[bytes]] = {}
    for token, number in zip(TOKENS, automaton.classes.tolist(), strict=True):
        own.setdefault(number, []).append(token)
    assert [b"b", b"1", b","] in own.values()
    assert [b"a", b"ab", b"a\xc3"] in own.values()
    columns = {tuple(automaton.table[:, number].tolist()) for number in own}
    assert len(columns) == len(own) < len(TOKENS)


def test_the_walk_over_a_vocabulary_is_that_of_its_tokens_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = TOKENIZERS.build("bpe", {"vocab_size": 400})
    tokenizer.train(iter(["the naïve façade of a man who wrote 12,345 lines \n\n" * 3, "日本語の本 and more"]))
    monkeypatch.setattr("sumi_core.sampling.token_automaton._CHUNK_ENTRIES", 300)
    language = by_bytes(r"(\w+[ ,ï日-本]?)+")
    automaton = token_automaton(language, tokenizer.token_bytes(), tokenizer.eos_id)
    for token, text in enumerate(tokenizer.token_bytes()):
        for state in range(len(language.table)):
            after = state
            for byte in text:
                after = int(language.table[after, byte]) if after != DEAD else DEAD
            wanted = after if text else DEAD
            if token != tokenizer.eos_id:
                assert automaton.after(state, [token]) == wanted


def test_the_shortest_text_is_counted_in_tokens() -> None:
    assert by_tokens("abab").shortest(9) == 2
    assert by_tokens("a{7}").shortest(6) is None
    assert by_tokens("").shortest(9) == 0


def test_texts_that_hold_a_text_somewhere() -> None:
    automaton = byte_automaton(holding("aé.b"))
    for text in ("aé.b", "xaaé.b\n", "aaé.bb"):
        assert automaton.accepted(text.encode())
    for text in ("", "aéxb", "aé.", "ab"):
        assert not automaton.accepted(text.encode())
    assert all(re.fullmatch(literal(text), text) for text in (r"a.b\d[x]{2}", "(^$)|*+?", "é\n"))


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("(", r"'\(' is not a regular expression: missing \)"),
        ("^a", r"'\^a' holds an anchor; leave \^ and \$ out, since the whole text has to match anyway"),
        ("a++", "a possessive quantifier, which is not regular"),
        ("a(?=b)", "a look at what stands around, which is not regular"),
        ("(?<!b)a", "a look at what stands around"),
        ("(?i)a", "the flag i, which is not supported"),
        ("(?>a|ab)b", "an atomic group"),
        ("a{}", r"a brace that begins no repeat; write \\{ for the brace itself"),
        (r"(a)\1", "Group references"),
        (r"\ba", "cannot be made an automaton"),
    ],
)
def test_what_is_not_regular_or_means_something_else_is_refused(pattern: str, complaint: str) -> None:
    with pytest.raises(PatternError, match=complaint):
        by_bytes(pattern)


def test_signs_that_stand_for_themselves_are_not_refused() -> None:
    assert by_bytes(r"[$^]\$\++[]*+]").accepted(b"^$++*")


def test_an_expression_of_too_many_states_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sumi_core.sampling.regular.MOST_STATES", 50)
    with pytest.raises(PatternError, match="more than 50 states; bound its repeats lower"):
        by_bytes(".{60}")


@pytest.mark.parametrize("pattern", ["(a{1000}){1000}", "a{30000,}", "(?:ab|c{0,30000})"])
def test_one_whose_texts_pass_too_many_states_is_refused_before_they_are_built(
    pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: object) -> None:
        raise AssertionError("the states were built")

    monkeypatch.setattr("interegular.fsm.crawl", build)
    with pytest.raises(PatternError, match="more than 20,000 states"):
        by_bytes(pattern)


def test_one_that_needs_exponentially_many_states_is_refused_on_the_way() -> None:
    with pytest.raises(PatternError, match="more than 20,000 states"):
        by_bytes("(a|b)*a(a|b){30}")
    from interegular import fsm

    assert fsm.crawl.__module__ == "interegular.fsm", "the library is as it was"
