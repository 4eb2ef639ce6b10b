"""What samples share with the train split: real words, and the longest run that was copied.

Both read the train split once, a document at a time, whatever number of sets is described; memory grows with the
samples and not with the split."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from sumi_core.base.statistics import Estimate, mean_estimate, ratio_or_nan
from sumi_core.evaluation.metrics import Reference, SampleMetric, SampleSet

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


class RealWords(SampleMetric):
    """real_words: share of the words of the samples that occur in the train split. A word here is a run of letters,
    apostrophes within it included, in any case; text that is cut in the middle of a word begins or ends with a part of
    one. Validation text shows what is new, rare or cut."""

    def compute(self, samples: SampleSet, reference: Reference) -> dict[str, float]:
        """Share in [0, 1], with its ratio-estimate error over sequences."""
        return self.compute_all({"": samples}, reference)[""]

    def compute_all(self, sets: Mapping[str, SampleSet], reference: Reference) -> dict[str, dict[str, float]]:
        """One pass over the train split looks up the samples' words."""
        words = {
            label: [[word for text in sequence for word in letters(text)] for sequence in samples.texts]
            for label, samples in sets.items()
        }
        missing = {word for sequences in words.values() for sequence in sequences for word in sequence}
        real: set[str] = set()
        for text in reference.train_texts() if missing else ():
            found = missing.intersection(letters(text))
            real |= found
            missing -= found
            if not missing:
                break
        described: dict[str, dict[str, float]] = {}
        for label, sequences in words.items():
            hits = [sum(word in real for word in sequence) for sequence in sequences]
            share = ratio_or_nan(hits, [len(sequence) for sequence in sequences])
            described[label] = {"real_words": share.value, "real_words_stderr": share.stderr}
        return described


def letters(text: str) -> Iterator[str]:
    """The words of a text as runs of letters, case folded.

    >>> list(letters("The Lord's 3 hands;"))
    ['the', "lord's", 'hands']
    """
    return (found.group().casefold() for found in _WORD.finditer(text))


class LongestCopy(SampleMetric):
    """longest_copy: the most words in a row that a sample has in common with one document of the train split, word for
    word; the mean over samples that have words. Well above validation text of the same size: the model recites."""

    def compute(self, samples: SampleSet, reference: Reference) -> dict[str, float]:
        """Words, with the error over sequences."""
        return self.compute_all({"": samples}, reference)[""]

    def compute_all(self, sets: Mapping[str, SampleSet], reference: Reference) -> dict[str, dict[str, float]]:
        """One pass over the train split through an automaton of all runs of the samples."""
        automaton = RunAutomaton()
        for samples in sets.values():
            for sequence in samples.words:
                for words in sequence:
                    automaton.add(words)
        if len(automaton) > 1:
            for text in reference.train_texts():
                automaton.match(text.split())
        shared = automaton.shared()
        described: dict[str, dict[str, float]] = {}
        for label, samples in sets.items():
            longest = [max(automaton.longest(words, shared) for words in own) for own in samples.words if any(own)]
            estimate = mean_estimate(longest) if longest else Estimate(math.nan, math.nan)
            described[label] = {"longest_copy": estimate.value, "longest_copy_stderr": estimate.stderr}
        return described


class RunAutomaton:
    """All runs of words of some texts, as a suffix automaton (Blumer et al. 1985): at most twice as many states as
    there are words. A state is a set of runs that end at the same places: ``_length`` is the longest of them, and the
    longest shorter run that ends at more places is in the state that ``_link`` names. State 0 is the empty run."""

    def __init__(self) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._length, self._link, self._matched = [0], [-1], [0]

    def __len__(self) -> int:
        return len(self._next)

    def add(self, words: Sequence[str]) -> None:
        """Add the runs of a text. Only before the first ``match``."""
        last = 0
        for word in words:
            last = self._extended(last, word)

    def _state(self, length: int, link: int, following: Mapping[str, int]) -> int:
        self._next.append(dict(following))
        self._length.append(length)
        self._link.append(link)
        self._matched.append(0)
        return len(self._next) - 1

    def _extended(self, last: int, word: str) -> int:
        """The state of the text up to ``word``, where ``last`` is that of the text before it."""
        known = self._next[last].get(word)
        if known is not None:  # a text that was added before begins the same way
            return known if self._length[known] == self._length[last] + 1 else self._split(last, word, known)
        own = self._state(self._length[last] + 1, 0, {})
        at = last
        while at >= 0 and word not in self._next[at]:
            self._next[at][word] = own
            at = self._link[at]
        if at >= 0:
            other = self._next[at][word]
            fits = self._length[other] == self._length[at] + 1
            self._link[own] = other if fits else self._split(at, word, other)
        return own

    def _split(self, at: int, word: str, other: int) -> int:
        """The shorter runs of ``other``, which end at more places than the others by now, as a state of their own."""
        copy = self._state(self._length[at] + 1, self._link[other], self._next[other])
        while at >= 0 and self._next[at].get(word) == other:
            self._next[at][word] = copy
            at = self._link[at]
        self._link[other] = copy
        return copy

    def match(self, words: Sequence[str]) -> None:
        """Note which runs occur in a text, too."""
        state = length = 0
        for word in words:
            while state and word not in self._next[state]:
                state = self._link[state]
                length = self._length[state]
            if word in self._next[state]:
                state, length = self._next[state][word], length + 1
                self._matched[state] = max(self._matched[state], length)

    def shared(self) -> list[int]:
        """By state, the words of its longest run, or end of one, that occurred in a text that was matched."""
        found = list(self._matched)
        falling = sorted(range(1, len(self)), key=self._length.__getitem__, reverse=True)
        for state in falling:  # of a run that occurred, every end did
            if found[state]:
                found[self._link[state]] = self._length[self._link[state]]
        for state in reversed(falling):
            found[state] = found[state] or found[self._link[state]]
        return found

    def longest(self, words: Sequence[str], shared: Sequence[int]) -> int:
        """Of a text that was added, the words of its longest run that occurred. shared: what ``shared`` returned."""
        state = best = 0
        for word in words:
            state = self._next[state][word]
            best = max(best, shared[state])
        return best
