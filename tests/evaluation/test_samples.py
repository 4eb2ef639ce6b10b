"""Drawing samples, and cutting token sequences into texts."""

import numpy as np
import pytest

from sumi_core.corruption import PROCESSES, SCHEDULES
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.evaluation.samples import draw_samples, evenly, sample_set, sequence_bytes, shown_text, split_texts
from sumi_core.evaluation.yardsticks import token_counts
from sumi_core.sampling import SAMPLERS
from tests.evaluation.fakes import EOS, UniformDenoiser

VOCAB = 6


class Letters:
    """A tokenizer whose token i is the letter at i; 0 ends a text. The last letter takes two bytes."""

    eos_id = EOS
    letters = "?abc é"

    def decode(self, ids):
        return "".join(self.letters[i] for i in ids)

    def decode_bytes(self, ids):
        return self.decode(ids).encode()


def sampler(name, process=None):
    vocabulary = Vocabulary(VOCAB, EOS)
    built = process and PROCESSES.build(process, {}, vocabulary=vocabulary, schedule=SCHEDULES.build("linear", {}))
    return SAMPLERS.build(name, {}, process=built, vocabulary=vocabulary)


CONFIG = EvaluationConfig(samples=3, sampling_steps=[4, 2, 4], seed=5)


def test_a_process_sampler_draws_at_each_number_of_steps_rising():
    notes = []
    drawn = draw_samples(
        sampler("ancestral", "uniform"), UniformDenoiser(VOCAB), CONFIG, 7, lambda *note: notes.append(note)
    )
    assert [(d.steps, set(d.nfe.tolist())) for d in drawn] == [(2, {2}), (4, {4})]
    assert all(d.tokens.shape == (3, 7) for d in drawn)
    assert notes[-1] == (1, 2, "sampling runs", "sampling, 4 steps")
    again = draw_samples(sampler("ancestral", "uniform"), UniformDenoiser(VOCAB), CONFIG, 7)
    assert all(np.array_equal(a.tokens, b.tokens) for a, b in zip(drawn, again, strict=True))


def test_a_sampler_that_writes_token_by_token_draws_once():
    drawn = draw_samples(sampler("left_to_right"), UniformDenoiser(VOCAB), CONFIG, 7)
    assert [(d.steps, set(d.nfe.tolist())) for d in drawn] == [(7, {7})]


@pytest.mark.parametrize(
    ("ids", "texts", "data", "shown"),
    [
        ([1, 2], ["ab"], b"ab", "ab"),
        ([1, 0, 2, 5], ["a", "bé"], b"a\xffb\xc3\xa9", "a\n⟨end of text⟩\nbé"),
        ([0, 1, 0], ["", "a", ""], b"\xffa\xff", "\n⟨end of text⟩\na\n⟨end of text⟩\n"),
        ([0, 0], ["", "", ""], b"\xff\xff", "\n⟨end of text⟩\n\n⟨end of text⟩\n"),
    ],
)
def test_sequences_are_cut_at_the_ends_of_texts(ids, texts, data, shown):
    row = np.array(ids)
    assert [Letters().decode(part) for part in split_texts(row, EOS)] == texts
    assert sequence_bytes(row, Letters()) == data
    assert shown_text(row, Letters()) == shown
    assert sample_set([row], Letters()).texts == [texts]


def test_evenly_spreads_over_everything():
    assert evenly(range(10), 2) == [2, 7]
    assert evenly(range(3), 5) == [0, 1, 2]
    assert evenly(range(100), 4) == [12, 37, 62, 87]


def test_token_counts_hold_every_token():
    rows = [np.array([0, 1, 1], dtype=np.uint16), np.array([2, 2, 2]), np.array([3, 3, 3])]
    assert token_counts(iter(rows), 5).tolist() == [1, 2, 3, 3, 0]
