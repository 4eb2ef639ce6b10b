"""Validation text as a file, and what a model says that does not compute the same twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sumi_core.data import TOKENIZERS
from sumi_core.data.tokenizers.tokenizer import Tokenizer
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation import MEASUREMENTS
from sumi_core.evaluation.coding import Coding
from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.evaluation.measurement import Context, Findings, Model, declared_model, declared_settings
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import FromLogits
from sumi_core.objectives import OBJECTIVES
from sumi_core.objectives.likelihood import ChainRule
from sumi_core.sampling.coding import unpack
from tests.corruption.enumerable import build_process
from tests.evaluation.fakes import Sequences
from tests.models.stock import lively, small

LENGTH = 16


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    made = TOKENIZERS.build("byte", {})
    made.train(iter(["text"]))
    return made


def measure(tokenizer: Tokenizer, denoiser: Any, folder: Path, objective: str = "autoregressive") -> Findings:
    vocabulary = Vocabulary(tokenizer.vocab_size, tokenizer.eos_id)
    process = None if objective == "autoregressive" else build_process("uniform", "linear", tokenizer.vocab_size)
    built = OBJECTIVES.build(objective, {}, process=process, vocabulary=vocabulary)
    unused: Any = None
    model = Model(denoiser, built, unused, process, tokenizer, torch.device("cpu"))
    config = declared_settings(EvaluationConfig(sequences=8), Coding)
    context = Context(config, Sequences(8, LENGTH, 200), folder)
    found: Findings = MEASUREMENTS.build("coding", {"texts": 3}).run(declared_model(model, Coding), context)
    return found


def test_the_file_holds_the_texts(tokenizer: Tokenizer, tmp_path: Path) -> None:
    denoiser = lively(Denoiser(small(attention="causal"), tokenizer.vocab_size)).eval()
    found = measure(tokenizer, denoiser, tmp_path)
    figures = found.summary["coding"]
    assert figures["text_bytes"] == 3 * LENGTH
    assert figures["bits_per_byte"] == figures["file_bytes"] * 8 / (3 * LENGTH)
    assert 0 <= figures["file_bytes"] * 8 - figures["predicted_bits_per_byte"] * 3 * LENGTH < 72
    row = found.tables["packed.parquet"].iloc[0]
    packed = np.frombuffer(row["packed"], dtype=np.uint32)
    texts = unpack(denoiser, packed, row["texts"], row["tokens"], Vocabulary(tokenizer.vocab_size, tokenizer.eos_id))
    assert {tuple(text) for text in texts.tolist()} <= {tuple(text) for text in Sequences(8, LENGTH, 200).rows.tolist()}


def test_a_file_that_is_smaller_than_the_likelihood_allows_is_named(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = lively(Denoiser(small(attention="causal"), tokenizer.vocab_size)).eval()
    true = ChainRule.token_nats
    for factor, says in ((1.0, False), (1.2, True)):
        monkeypatch.setattr(ChainRule, "token_nats", lambda *of, factor=factor: factor * true(*of))
        found = measure(tokenizer, denoiser, tmp_path)
        assert any("contradict each other" in text for text in found.texts) == says


def test_a_model_without_an_exact_reading_has_no_file(tokenizer: Tokenizer, tmp_path: Path) -> None:
    assert measure(tokenizer, None, tmp_path, "nelbo") == Findings()


def test_a_model_that_is_another_one_the_second_time_is_an_error(tokenizer: Tokenizer, tmp_path: Path) -> None:
    calls = 0

    def moody(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return torch.randn(tokenizer.vocab_size, generator=torch.Generator().manual_seed(calls)).expand(*z.shape, -1)

    with pytest.raises(RuntimeError, match="does not compute the same twice"):
        measure(tokenizer, FromLogits(moody), tmp_path)
