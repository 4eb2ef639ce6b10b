"""The picture of what noise does to a text."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from sumi_core.corruption.process import ForwardProcess
from sumi_core.data import TOKENIZERS
from sumi_core.data.tokenizers.tokenizer import Tokenizer
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation.corruption_picture import TIMES, corrupted_texts, plot_corruption
from sumi_core.experiments.build import build_parts
from sumi_core.experiments.resolve import resolve

TEXT = "In the beginning God created the heavens & the $earth$."


@pytest.fixture
def tokenizer() -> Tokenizer:
    made = TOKENIZERS.build("byte", {})
    made.train(iter([TEXT]))
    return made


def process_of(tokenizer: Tokenizer, **data: object) -> ForwardProcess:
    process = build_parts(resolve(data, "t.yaml"), Vocabulary(tokenizer.vocab_size, tokenizer.eos_id)).process
    assert process is not None
    return process


@pytest.mark.parametrize(
    ("name", "kind"), [("uniform", "changed"), ("absorbing", "masked"), ("absorbing_uniform", "changed")]
)
def test_what_is_hit_stays_hit_and_nothing_is_left_at_the_end(tokenizer: Tokenizer, name: str, kind: str) -> None:
    tokens = torch.tensor(list(TEXT.encode()))
    times = (*TIMES, 1.0)
    rows = corrupted_texts(process_of(tokenizer, process=name), tokenizer, tokens, times)
    assert "".join(token.text for token in rows[0]) == TEXT
    hit = [{place for place, token in enumerate(row) if token.kind == kind} for row in rows]
    assert all(before <= after for before, after in itertools.pairwise(hit))
    assert [len(places) for places in hit] == sorted(len(places) for places in hit)
    assert not hit[0]
    assert len(hit[-1]) >= len(TEXT) - 2  # uniform noise may draw the token itself
    shares = [len(places) / len(TEXT) for places in hit]
    assert shares == pytest.approx(times, abs=0.2)


def test_spans_leave_stretches_readable(tokenizer: Tokenizer) -> None:
    """With narrow windows neighbours share their fate: kept and hit alternate less often than under one clock."""
    tokens = torch.tensor(list((TEXT * 20).encode()))

    def turns(**data: object) -> int:
        (row,) = corrupted_texts(process_of(tokenizer, **data), tokenizer, tokens, (0.5,))
        return sum(left.kind != right.kind for left, right in itertools.pairwise(row))

    spans = {"name": "spans", "mean_length": 8, "window": 0.05}
    assert turns(process="absorbing", clock=spans) < 0.5 * turns(process="absorbing")


def test_the_picture_is_the_same_every_time_and_takes_any_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokens = torch.tensor([*TEXT.encode(), tokenizer.eos_id, 10, 0, 255, 226])
    rows = corrupted_texts(process_of(tokenizer), tokenizer, tokens)
    assert "".join(token.text for token in rows[0][-5:]) == "⏎⏎···"
    first, second = (plot_corruption(rows, tmp_path / name / "c.png", "uniform") for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(b"\x89PNG")
