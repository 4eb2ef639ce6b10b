"""Sample metrics on samples small enough to count by hand."""

import math

import numpy as np
import pytest

from sumi_core.evaluation import METRICS
from sumi_core.evaluation.metrics import CopyRate, Distinct, Reference, Repetition, SampleSet, UnigramEntropy

NOTHING = Reference(list)


def texts(*sequences: str) -> SampleSet:
    """Sequences of one text each."""
    return SampleSet([np.zeros(4, dtype=np.int64)] * len(sequences), [[s] for s in sequences])


def test_entropy_of_uniform_tokens_is_the_logarithm_of_their_number():
    samples = SampleSet([np.array([0, 1, 2, 3]), np.array([4, 5, 6, 7])], [[""], [""]])
    assert UnigramEntropy().compute(samples, NOTHING)["unigram_entropy"] == pytest.approx(3.0)


def test_entropy_of_three_to_one():
    figures = UnigramEntropy().compute(SampleSet([np.array([5, 5, 5, 9])], [[""]]), NOTHING)
    assert figures["unigram_entropy"] == pytest.approx(0.75 * math.log2(4 / 3) + 0.25 * 2)
    assert math.isnan(figures["unigram_entropy_stderr"])


def test_entropy_error_is_what_repeated_sampling_shows():
    generator = np.random.default_rng(0)
    share = np.array([0.5, 0.2, 0.2, 0.1])
    values, claimed = [], []
    for _ in range(400):
        drawn = [generator.choice(4, 50, p=share) for _ in range(20)]
        figures = UnigramEntropy().compute(SampleSet(drawn, [[""]] * 20), NOTHING)
        values.append(figures["unigram_entropy"])
        claimed.append(figures["unigram_entropy_stderr"] ** 2)
    assert math.sqrt(np.mean(claimed)) == pytest.approx(np.std(values), rel=0.1)


def test_distinct_counts_over_all_samples():
    figures = Distinct().compute(texts("a b a b", "a b c"), NOTHING)
    assert figures["distinct_1"] == pytest.approx(3 / 7)  # a, b, c of 7 words
    assert figures["distinct_2"] == pytest.approx(3 / 5)  # ab, ba, bc of ab ba ab, ab bc
    assert figures["distinct_3"] == pytest.approx(3 / 3)  # aba, bab, abc


def test_distinct_error_is_the_jackknife_over_sequences():
    samples = ["a b c d", "a b a b", "c c c c", "x y z w"]
    figures = Distinct().compute(texts(*samples), NOTHING)
    for n in (1, 2, 3):
        left_out = [
            Distinct().compute(texts(*samples[:i], *samples[i + 1 :]), NOTHING)[f"distinct_{n}"] for i in range(4)
        ]
        expected = math.sqrt(3 / 4 * ((np.array(left_out) - np.mean(left_out)) ** 2).sum())
        assert figures[f"distinct_{n}_stderr"] == pytest.approx(expected)


def test_repetition_is_within_a_sample():
    # "a b c d" three times: 9 4-grams, 4 different. The second sample repeats nothing of its own.
    figures = Repetition().compute(texts("a b c d " * 3, "a b c d e"), NOTHING)
    assert figures["repetition_4"] == pytest.approx(5 / 11)


def test_copies_are_found_word_for_word():
    train = ["zero one two three four five six seven eight nine ten", "something else altogether"]
    reference = Reference(lambda: train)
    copied = "one two three four five six seven eight"
    altered = "one two three four five six seven EIGHT"
    assert CopyRate().compute(texts(copied), reference)["copy_rate_8"] == 1.0
    assert CopyRate().compute(texts(altered), reference)["copy_rate_8"] == 0.0
    assert CopyRate().compute(texts(copied, altered), reference)["copy_rate_8"] == 0.5
    assert CopyRate().compute(texts(copied.replace(" ", "\n\t ")), reference)["copy_rate_8"] == 1.0


def test_no_ngram_spans_an_end_of_text():
    reference = Reference(lambda: ["a b c d e f g h"])
    whole = SampleSet([np.zeros(1, dtype=np.int64)], [["a b c d e f g h"]])
    cut = SampleSet([np.zeros(1, dtype=np.int64)], [["a b c d", "e f g h"]])
    assert CopyRate().compute(whole, reference)["copy_rate_8"] == 1.0
    assert math.isnan(CopyRate().compute(cut, reference)["copy_rate_8"])
    apart = SampleSet([np.zeros(1, dtype=np.int64)], [["a b c d"], ["e f g h"]])
    assert CopyRate().compute(apart, Reference(lambda: ["a b c d", "e f g h a b c d"]))["copy_rate_8"] is not None


def test_the_train_split_is_read_once_for_all_sets():
    reads = []

    def train():
        reads.append(1)
        return ["a b c d e f g h i"]

    sets = {"few": texts("a b c d e f g h"), "many": texts("x " * 9)}
    found = CopyRate().compute_all(sets, Reference(train))
    assert (found["few"]["copy_rate_8"], found["many"]["copy_rate_8"]) == (1.0, 0.0)
    assert len(reads) == 1


@pytest.mark.parametrize("name", METRICS.names())
def test_every_metric_defines_what_it_reports_and_bears_empty_samples(name):
    metric = METRICS.build(name, {})
    empty = SampleSet([np.zeros(0, dtype=np.int64)], [[""]])
    figures = metric.compute(empty, NOTHING)
    assert all(math.isnan(value) for value in figures.values())
    stem = next(iter(figures)).rstrip("0123456789")
    assert metric.definition.startswith(stem)
    assert "\n" not in metric.definition
