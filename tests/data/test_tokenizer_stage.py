"""The fit of a tokenizer: its stage, long words, and what stops it."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import normalizers

from sumi_core.base.options import ConfigError, component
from sumi_core.base.process import interruptible
from sumi_core.data import TOKENIZERS
from sumi_core.data.sources.source import Document
from sumi_core.data.tokenization import check_round_trip
from sumi_core.data.tokenizers.bpe import cut_long_words
from sumi_core.data.tokenizers.tokenizer import TokenizerError, load_tokenizer
from tests.data.built_tokenizers import build, covered
from tests.data.conftest import TEXTS, Laboratory
from tests.data.foreign import byte_level, without_accents

# --- the stage --------------------------------------------------------------------------------------------------------


def test_the_stage_fits_on_train_and_proves_the_round_trip(laboratory: Callable[..., Laboratory]) -> None:
    lab = laboratory(tokenizer={"name": "bpe", "vocab_size": 300})
    lab.run("corpus")
    summary = lab.run("tokenizer")
    loaded = load_tokenizer(lab.artifacts["tokenizer"].folder)
    assert (summary["tokenizer"], summary["vocab_size"], summary["eos_id"]) == ("bpe", 300, 299)
    assert summary["round_trip_documents"] == lab.artifacts["corpus"].summary["validation_documents"] > 0
    assert 1 < summary["bytes_per_token"] < 6
    assert "exact round trip" in (lab.artifacts["tokenizer"].folder / "report.md").read_text()
    assert loaded.vocab_size == 300


def test_validation_text_is_not_fitted_on(laboratory: Callable[..., Laboratory]) -> None:
    texts = [f"document {n}" for n in range(60)]
    lab = laboratory(texts, tokenizer={"name": "bpe", "vocab_size": 400})
    lab.run("corpus", "tokenizer")
    from sumi_core.data.corpus import read_texts

    folder = lab.artifacts["corpus"].folder
    alone = TOKENIZERS.build("bpe", {"vocab_size": 400})
    alone.train(d.text for d in read_texts(folder, "train"))
    alone.save(lab.root / "alone")
    for name in ("tokenizer.json", "sumi_tokenizer.json"):
        assert (lab.root / "alone" / name).read_bytes() == (lab.root / "tokenizer" / name).read_bytes()


def test_an_unfaithful_tokenizer_quotes_the_text(laboratory: Callable[..., Laboratory], project: Path) -> None:
    without_accents(project / "plain")
    texts = [f"plain words {n}" for n in range(40)]
    lab = laboratory([*texts, *(f"some plain words before a café, {n}" for n in range(20))])
    lab.experiment.tokenizer = {"name": "huggingface", "path": "plain", "revision": None}
    lab.run("corpus")
    with pytest.raises(TokenizerError) as caught:
        lab.run("tokenizer")
    sentence = str(caught.value)
    assert sentence.startswith("tokenizer: the text of 'texts-1.jsonl:")
    assert "does not survive a round trip: 'n words before a café, " in sentence
    assert "comes back as 'n words before a cafe, " in sentence
    assert sentence.endswith("; choose a tokenizer that keeps every byte")


def test_an_unfaithful_tokenizer_is_found_by_a_train_document_too(
    laboratory: Callable[..., Laboratory], project: Path
) -> None:
    byte_level(project / "lower", normalizer=normalizers.Lowercase())
    texts = [f"plain words {n}" for n in range(40)]
    shouted = next(text for n in range(100) if not _is_validation(text := f"SHOUTED {n}"))
    lab = laboratory([*texts, shouted], tokenizer={"name": "huggingface", "path": "lower", "revision": None})
    lab.run("corpus", "tokenizer")
    with pytest.raises(TokenizerError) as caught:
        lab.run("token_shards")
    assert "does not survive a round trip: 'SHOUTED" in str(caught.value)
    assert "comes back as 'shouted" in str(caught.value)


def _is_validation(text: str) -> bool:
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < 0.3


def test_other_tokens_each_time_are_refused(laboratory: Callable[..., Laboratory], project: Path) -> None:
    byte_level(project / "dropping", dropout=0.5)
    with pytest.raises(TokenizerError) as caught:
        build("huggingface", path="dropping")
    assert str(caught.value) == (
        "tokenizer.path: dropping/tokenizer.json: model.dropout is 0.5, so that a text has other tokens each time; "
        "set it to null"
    )
    byte_level(project / "whole", dropout=0.0)
    assert build("huggingface", path="whole").vocab_size == 260

    class Sampled(type(TOKENIZERS.build("byte", {}))):  # type: ignore[misc]
        """Other ids every time, of whatever origin."""

        ids_are_bytes, calls = False, 0

        def encode_with_lengths(self, texts: Any) -> Any:
            self.calls += 1
            return [(np.arange(self.calls), np.ones(self.calls)) for _ in texts]

    with pytest.raises(TokenizerError, match="the text of 'a' has other tokens each time that it is encoded"):
        check_round_trip(Sampled(), [Document("a", "a")])


def test_what_an_export_would_refuse_is_refused_before_the_training(
    laboratory: Callable[..., Laboratory], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sumi_core.export.tokenizer as export

    lab = laboratory()
    lab.run("corpus")
    monkeypatch.setattr(export, "_unused", lambda backend, name: "<|endoftext|>")
    with pytest.raises(TokenizerError) as caught:
        lab.run("tokenizer")
    assert str(caught.value).startswith("tokenizer: no model with it could be exported: ")
    assert "a further token would get id 256, but the model's state is 257" in str(caught.value)


# --- long words -------------------------------------------------------------------------------------------------------


def test_a_long_word_costs_no_more_than_as_much_ordinary_text() -> None:
    letters = random.Random(0)
    genome = "".join(letters.choice("ACGT") for _ in range(200_000))  # some 14 s where a word is fitted whole
    bpe = TOKENIZERS.build("bpe", {"vocab_size": 300})
    start = time.process_time()
    bpe.train(iter([genome]))
    assert time.process_time() - start < 5
    assert len(bpe.encode_batch([genome])[0]) < 100_000
    covered(bpe, genome)


def test_ordinary_text_is_fitted_as_it_is() -> None:
    assert [list(cut_long_words(text)) for text in TEXTS] == [[text] for text in TEXTS]
    minified = "var a=[1,2,3],b=f(a);" * 200  # long without a blank, but not one word
    assert list(cut_long_words(minified)) == [minified]
    for word in ("x" * 2500, "7" * 2500, "=_" * 1250, " " * 2500):
        text = f"(a {word}b)"
        pieces = list(cut_long_words(text))
        assert "".join(pieces) == text
        assert len(pieces) == 3
        assert max(map(len, pieces)) <= 1000 + len("(a ")


def test_ctrl_c_ends_a_fit_at_once() -> None:
    code = (
        "import signal, time; from sumi_core.base.process import interruptible\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # it is ignored where tests run in the background
        "print('begun', flush=True)\n"
        "interruptible(lambda: time.sleep(60))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) != 0


def test_what_a_thread_raises_is_raised() -> None:
    assert interruptible(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 // 0)


@pytest.mark.parametrize(("size", "limit"), [(257, "at least 258"), (2**20 + 1, "at most 1048576")])
def test_a_vocabulary_that_can_only_be_a_slip_is_refused(size: int, limit: str) -> None:
    with pytest.raises(ConfigError) as caught:
        component(TOKENIZERS, {"name": "bpe", "vocab_size": size}, "one.yaml", "tokenizer")
    assert str(caught.value) == f"one.yaml: tokenizer.vocab_size: must be {limit}, got {size}"
