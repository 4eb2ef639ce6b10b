"""Figures of generated text. Each is computed on samples and, beside them, on validation text of the same size.

A word is a run of characters between white space; an end-of-text token ends a text, and no n-gram spans two texts.
Counts of n-grams depend on how much text is counted, so a figure means something only beside one from equally many
sequences of equal length: that is what the validation column is. None of these sees whether text makes sense.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from sumi_core.base.options import later
from sumi_core.base.registry import Part
from sumi_core.base.statistics import jackknife_stderr, ratio_or_nan

if TYPE_CHECKING:
    from numpy.typing import NDArray

Gram = tuple[str, ...]


@dataclass(frozen=True)
class SampleSet:
    """Sequences to describe. tokens: one integer array a sequence. texts: the same, cut at end-of-text tokens."""

    tokens: Sequence[NDArray[np.integer[Any]]]
    texts: Sequence[Sequence[str]]

    @cached_property
    def words(self) -> list[list[list[str]]]:
        """Words of every text of every sequence."""
        return [[text.split() for text in sequence] for sequence in self.texts]

    def ngrams(self, n: int) -> list[list[Gram]]:
        """Word n-grams of every sequence, in order."""
        return [[gram for words in sequence for gram in word_ngrams(words, n)] for sequence in self.words]


@dataclass(frozen=True)
class Reference:
    """What samples are held against. train_texts: opens the documents of the train split, as often as asked."""

    train_texts: Callable[[], Iterable[str]]


def word_ngrams(words: Sequence[str], n: int) -> Iterator[Gram]:
    """Every run of ``n`` words."""
    return zip(*(words[i:] for i in range(n)), strict=False)


class SampleMetric(Part, ABC):
    """A figure of a set of samples. Its class docstring is the definition that reports print as a footnote."""

    @property
    def definition(self) -> str:
        """What the figures are, in a sentence or two: the class docstring on one line."""
        return " ".join((self.__doc__ or "").split())

    @abstractmethod
    def compute(self, samples: SampleSet, reference: Reference) -> dict[str, float]:
        """Figures by name; ``<name>_stderr`` is the standard error over sequences. NaN: too little text to tell."""

    def compute_all(self, sets: Mapping[str, SampleSet], reference: Reference) -> dict[str, dict[str, float]]:
        """``compute`` for several sets by label; a metric that reads the train split reads it once here."""
        return {label: self.compute(samples, reference) for label, samples in sets.items()}


class UnigramEntropy(SampleMetric):
    """unigram_entropy: entropy of the token frequencies of all samples together, in bits per token (plug-in estimate,
    which is low for little text). Far below validation text: collapse onto few tokens; far above: noise."""

    def compute(self, samples: SampleSet, reference: Reference) -> dict[str, float]:
        """Bits per token, with the jackknife error over sequences."""
        size = 1 + max((int(t.max()) for t in samples.tokens if t.size), default=0)
        counts = [np.bincount(t.astype(np.int64), minlength=size) for t in samples.tokens]
        total = np.sum(counts, axis=0)
        left_out = [_entropy_bits(total - own) for own in counts]
        return {"unigram_entropy": _entropy_bits(total), "unigram_entropy_stderr": jackknife_stderr(left_out)}


def _entropy_bits(counts: NDArray[np.integer[Any]]) -> float:
    positive = counts[counts > 0].astype(np.float64)
    if not positive.size:
        return math.nan
    share = positive / positive.sum()
    return float(-(share * np.log2(share)).sum())


class Distinct(SampleMetric):
    """distinct_n: different word n-grams as a share of all word n-grams of all samples together, n = 1, 2, 3
    (distinct-n of Li et al., 1510.03055). 1: no n-gram occurs twice; low: few phrases, again and again."""

    sizes = (1, 2, 3)

    def compute(self, samples: SampleSet, reference: Reference) -> dict[str, float]:
        """Shares in [0, 1], with jackknife errors over sequences."""
        figures: dict[str, float] = {}
        for n in self.sizes:
            own = [Counter(grams) for grams in samples.ngrams(n)]
            everywhere: Counter[Gram] = Counter()
            for counts in own:
                everywhere.update(counts)
            total, different = everywhere.total(), len(everywhere)
            left_out = [
                (different - sum(everywhere[g] == c for g, c in counts.items())) / (total - counts.total())
                for counts in own
                if total > counts.total()
            ]
            figures[f"distinct_{n}"] = different / total if total else math.nan
            figures[f"distinct_{n}_stderr"] = jackknife_stderr(left_out) if left_out else math.nan
        return figures


class Repetition(SampleMetric):
    """repetition_4: share of the word 4-grams of a sample that already occurred earlier in the same sample, over all
    samples (seq-rep-4 of Welleck et al., 1908.04319, weighted by length). 0: nothing repeated; near 1: a loop."""

    size = 4

    def compute(self, samples: SampleSet, reference: Reference) -> dict[str, float]:
        """Share in [0, 1], with its ratio-estimate error over sequences."""
        grams = samples.ngrams(self.size)
        return _share(f"repetition_{self.size}", [len(g) - len(set(g)) for g in grams], [len(g) for g in grams])


class CopyRate(SampleMetric):
    """copy_rate_8: share of the word 8-grams of the samples that occur in the train split, word for word. Validation
    text shows how much of it is mere idiom; well above that: the model recites what it was trained on."""

    @dataclass
    class Options(Part.Options):
        size: Annotated[
            int, Field(ge=1, le=1000, description="words of an n-gram, which the figure's name ends in")
        ] = later(8)

    options: Options

    @property
    def definition(self) -> str:
        return super().definition.replace("8", str(self.options.size))

    def compute(self, samples: SampleSet, reference: Reference) -> dict[str, float]:
        """Share in [0, 1], with its ratio-estimate error over sequences."""
        return self.compute_all({"": samples}, reference)[""]

    def compute_all(self, sets: Mapping[str, SampleSet], reference: Reference) -> dict[str, dict[str, float]]:
        """One pass over the train split looks up the samples' n-grams: memory grows with the samples, not the split."""
        size = self.options.size
        grams = {label: samples.ngrams(size) for label, samples in sets.items()}
        wanted = {gram for sequences in grams.values() for sequence in sequences for gram in sequence}
        copied: set[Gram] = set()
        for text in reference.train_texts() if wanted else ():
            copied.update(wanted.intersection(word_ngrams(text.split(), size)))
        return {
            label: _share(
                f"copy_rate_{size}",
                [sum(gram in copied for gram in sequence) for sequence in sequences],
                [len(sequence) for sequence in sequences],
            )
            for label, sequences in grams.items()
        }


def _share(name: str, hits: Sequence[int], totals: Sequence[int]) -> dict[str, float]:
    estimate = ratio_or_nan(hits, totals)
    return {name: estimate.value, f"{name}_stderr": estimate.stderr}
