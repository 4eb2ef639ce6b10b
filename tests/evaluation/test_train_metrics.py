"""What samples share with the train split, against a search of every run."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sumi_core.evaluation import METRICS
from sumi_core.evaluation.metrics import CopyRate, Reference, SampleSet
from sumi_core.evaluation.train_metrics import LongestCopy, RealWords, RunAutomaton, letters

TEXTS = st.lists(st.lists(st.sampled_from("abc"), max_size=8), max_size=5)


def samples(*texts: str) -> SampleSet:
    """A sequence for each text; ``|`` ends a text within one."""
    return SampleSet([], [text.split("|") for text in texts])


def by_search(words: list[str], train: list[list[str]]) -> int:
    runs = {tuple(text[i:j]) for text in train for i in range(len(text)) for j in range(i + 1, len(text) + 1)}
    own = [words[i:j] for i in range(len(words)) for j in range(i + 1, len(words) + 1)]
    return max((len(run) for run in own if tuple(run) in runs), default=0)


@given(TEXTS, TEXTS)
def test_the_longest_run_is_that_of_a_search(texts: list[list[str]], train: list[list[str]]) -> None:
    automaton = RunAutomaton()
    for text in texts:
        automaton.add(text)
    assert len(automaton) <= 2 * sum(map(len, texts)) + 1
    for text in train:
        automaton.match(text)
    shared = automaton.shared()
    assert [automaton.longest(text, shared) for text in texts] == [by_search(text, train) for text in texts]


def test_long_texts_have_an_automaton_of_their_size() -> None:
    rng = random.Random(0)
    text = [rng.choice("ab") for _ in range(3000)]
    automaton = RunAutomaton()
    automaton.add(text)
    automaton.add(text)
    assert len(automaton) < 6001
    automaton.match(text[500:2500])
    assert automaton.longest(text, automaton.shared()) == 2000


def test_the_longest_copy_is_of_one_text_and_one_document() -> None:
    train = ["in the beginning was the word", "and the light was good"]
    found = LongestCopy().compute(
        samples("the light was", "so in the|beginning was it", "none"), Reference(lambda: train)
    )
    assert found["longest_copy"] == pytest.approx((3 + 2 + 0) / 3), "no run spans two texts"
    assert found["longest_copy_stderr"] == pytest.approx((7 / 3 / 3) ** 0.5)


def test_words_are_runs_of_letters_in_any_case() -> None:
    assert list(letters("Thou SHALT, 3rd the Lord's café_x—‘tis")) == [
        *("thou", "shalt", "rd", "the", "lord's", "café", "x", "tis")
    ]


def test_real_words_are_those_of_the_train_split() -> None:
    train = ["In the beginning;", "God's word."]
    found = RealWords().compute(samples("the WORD, god's wrod", "beginning|in"), Reference(lambda: train))
    assert found["real_words"] == pytest.approx(4 / 6 + 1 / 6)
    nothing = RealWords().compute(samples("123 ... 45"), Reference(lambda: train))
    assert nothing["real_words"] != nothing["real_words"], "no word, no share"


@pytest.mark.parametrize("name", ["real_words", "longest_copy", "copy_rate"])
def test_the_train_split_is_read_once_for_all_sets(name: str) -> None:
    opened = []

    def train() -> Iterator[str]:
        opened.append(1)
        yield "a b c d e f g h i"

    sets = {"steps_8": samples("a b c d e f g h"), "validation": samples("q b c")}
    metric = METRICS.build(name, {})
    together = metric.compute_all(sets, Reference(train))
    assert len(opened) == 1
    for label, own in sets.items():
        alone = metric.compute(own, Reference(train))
        assert {key: value for key, value in together[label].items() if value == value} == {
            key: value for key, value in alone.items() if value == value
        }


def test_the_copied_n_grams_may_be_shorter() -> None:
    reference = Reference(lambda: ["a b c d"])
    found = CopyRate(CopyRate.Options(size=2)).compute(samples("a b x c d"), reference)
    assert found["copy_rate_2"] == pytest.approx(2 / 4)
    assert set(CopyRate().compute(samples("a"), reference)) == {"copy_rate_8", "copy_rate_8_stderr"}
