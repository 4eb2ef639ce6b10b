"""Scorers: what they read, what they add up, and which folders they refuse."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sumi_core.data import TOKENIZERS
from sumi_core.evaluation import SCORERS
from sumi_core.evaluation.scorer import OpenScorer, ScorerError, token_entropy

TOKENS = 3
TABLE = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3], [0.25, 0.25, 0.5]], dtype=torch.float64)  # p(next | last)


class Letters:
    """Token i is the letter at i; 0 ends a text."""

    def __init__(self, letters: str = "?ab") -> None:
        self.letters, self.eos_id = letters, 0
        self.backend = self

    def to_str(self) -> str:
        return self.letters

    def decode_bytes(self, ids: Any) -> bytes:
        return "".join(self.letters[i] for i in ids).encode()

    def decode(self, ids: Any) -> str:
        return self.decode_bytes(ids).decode()


def bigram(longest: int = 99, letters: str = "?ab") -> OpenScorer:
    """A scorer whose next token depends on the last one alone."""
    own: Any = Letters(letters)
    return OpenScorer(
        "bigrams",
        lambda ids: TABLE.log()[ids],
        0,
        0,
        longest,
        lambda text: [letters.index(letter) for letter in text],
        torch.device("cpu"),
        own,
    )


def by_hand(ids: Any) -> float:
    return float(-sum(TABLE[last, own].log() for last, own in itertools.pairwise([0, *ids])))


def test_the_probabilities_of_all_sequences_add_up_to_one() -> None:
    every = [np.array(ids) for ids in itertools.product(range(TOKENS), repeat=4)]
    scores = bigram().score(every, Letters(), batch_size=7)  # type: ignore[arg-type]
    assert np.exp(-scores.nats).sum() == pytest.approx(1, abs=1e-12)
    assert scores.nats == pytest.approx([by_hand(ids) for ids in every], abs=1e-12)
    assert set(scores.tokens) == {4}
    assert [*scores.bytes] == [sum(own != 0 for own in ids) for ids in every], "an end of text has no bytes"


def test_what_is_longer_than_the_context_is_read_in_pieces() -> None:
    ids = np.array([1, 2, 0, 1, 1])
    (nats,) = bigram(longest=2).score([ids], Letters()).nats  # type: ignore[arg-type]
    assert nats == pytest.approx(sum(by_hand(piece) for piece in ([1, 2], [0, 1], [1])))


def test_other_tokens_are_decoded_and_cut_anew() -> None:
    theirs: Any = Letters("?ba")  # the same letters under other numbers
    scorer = bigram()
    assert not scorer.reads_ids_of(theirs)
    assert scorer.reads_ids_of(Letters())  # type: ignore[arg-type]
    scores = scorer.score([np.array([1, 2, 0, 1]), np.array([0])], theirs)
    assert scores.nats == pytest.approx([by_hand([2, 1, 0, 2]), by_hand([0])])
    assert [*scores.bytes] == [3, 0]
    assert [*scores.tokens] == [4, 1]


@pytest.mark.parametrize(("ids", "bits"), [([7, 7, 7], 0.0), ([1, 2, 3, 4], 2.0), ([1, 1, 2, 3], 1.5), ([], 0.0)])
def test_the_entropy_of_one_text(ids: list[int], bits: float) -> None:
    assert token_entropy(np.array(ids, dtype=np.int64)) == pytest.approx(bits)


# --- folders of stock transformers ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaMA over bytes, as stock transformers saves it."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("stock")
    bytes_: Any = TOKENIZERS.build("byte", {})
    bytes_.train(iter(()))
    PreTrainedTokenizerFast(
        tokenizer_object=bytes_.backend, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    config = LlamaConfig(
        vocab_size=257, num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=12, **sizes
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def opened(folder: Path) -> OpenScorer:
    found: OpenScorer = SCORERS.build("folder", {"folder": str(folder)}).opened(torch.device("cpu"))
    return found


def test_a_folder_scores_as_stock_transformers_computes(stock: Path) -> None:
    from transformers import AutoModelForCausalLM

    scorer = opened(stock)
    assert (scorer.longest, scorer.corpus) == (12, None)
    text = "a bb é"
    letters: Any = Letters("?" + "".join(sorted(set(text))))
    scores = scorer.score([np.array([letters.letters.index(letter) for letter in text])], letters)
    ids = list(text.encode())
    model = AutoModelForCausalLM.from_pretrained(stock)
    with torch.no_grad():
        log_probs = model(input_ids=torch.tensor([[scorer.begin, *ids[:-1]]])).logits[0].double().log_softmax(-1)
    wanted = -sum(float(log_probs[place, own]) for place, own in enumerate(ids))
    assert scores.nats[0] == pytest.approx(wanted, abs=1e-5)
    assert (scores.tokens[0], scores.bytes[0]) == (7, 7)


def test_its_files_are_its_identity(stock: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(stock, copy)
    own = SCORERS.build("folder", {"folder": str(stock)}).identity()
    assert SCORERS.build("folder", {"folder": str(copy)}).identity() == own, "wherever it lies"
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x07")
    assert SCORERS.build("folder", {"folder": str(copy)}).identity() != own


def test_folders_that_are_no_scorers_are_refused(stock: Path, tmp_path: Path) -> None:
    import shutil

    with pytest.raises(ScorerError, match=r"scorer folder .*nothing has no config\.json with model\.safetensors"):
        SCORERS.build("folder", {"folder": str(tmp_path / "nothing")}).identity()
    copy = tmp_path / "copy"
    shutil.copytree(stock, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "code.Model"}}))
    with pytest.raises(ScorerError, match=r"copy needs code of its own, which is not run"):
        opened(copy)
    (copy / "config.json").write_text(json.dumps({**config, "hidden_size": "many"}))
    with pytest.raises(ScorerError, match=r"copy: stock transformers cannot open it"):
        opened(copy)


def test_a_model_that_sees_what_comes_after_is_refused(stock: Path, tmp_path: Path) -> None:
    import shutil

    from transformers import BertConfig, BertLMHeadModel

    both = tmp_path / "both"
    shutil.copytree(stock, both)
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    torch.manual_seed(0)
    config = BertConfig(vocab_size=257, num_attention_heads=2, is_decoder=False, initializer_range=1.0, **sizes)
    BertLMHeadModel(config).save_pretrained(both)
    with pytest.raises(ScorerError, match="both is not a causal model"):
        opened(both)
