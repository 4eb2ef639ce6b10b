"""Tokenizers: round trips, byte lengths that add up, the same ids everywhere, sentences for what is broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sumi_core.data import TOKENIZERS
from sumi_core.data.tokenizers.alphabet import byte_alphabet
from sumi_core.data.tokenizers.tokenizer import EOS, Tokenizer, TokenizerError, load_tokenizer
from sumi_core.experiments.resolve import resolve
from tests.data.built_tokenizers import TRAINING, build, covered
from tests.data.conftest import TEXTS
from tests.data.foreign import llama_like


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    """byte, bpe, a byte-level Hugging Face tokenizer and one in the manner of Llama 2, which is none."""
    folder = tmp_path_factory.mktemp("tokenizers")
    bpe = build("bpe", vocab_size=300)
    bpe.save(folder / "bpe")
    llama_like(folder / "llama", TRAINING)
    return {
        "byte": build("byte"),
        "bpe": bpe,
        "huggingface": build("huggingface", path=str(folder / "bpe")),
        "llama": build("huggingface", path=str(folder / "llama")),
    }


NAMES = ["byte", "bpe", "huggingface", "llama"]

BYTE_LEVEL = ["byte", "bpe", "huggingface"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", TEXTS)
def test_texts_come_back_byte_for_byte(made: dict[str, Tokenizer], name: str, text: str) -> None:
    if name == "llama":
        text = text.replace("▁", "_")  # its blank; a text with it is unfaithful, and refused below
    covered(made[name], text)


@pytest.mark.parametrize("name", BYTE_LEVEL)
@given(text=st.one_of(st.text(), st.text(alphabet="<|endofxt> \n🙂é日\u0301")))
def test_any_text_comes_back(made: dict[str, Tokenizer], name: str, text: str) -> None:
    covered(made[name], text)


@pytest.mark.parametrize("name", BYTE_LEVEL)
@given(text=st.text(min_size=1), data=st.data())
def test_the_lengths_are_those_of_each_token(
    made: dict[str, Tokenizer], name: str, text: str, data: st.DataObject
) -> None:
    ids, lengths = made[name].encode_with_lengths([text])[0]
    cut = data.draw(st.integers(0, len(ids)))  # in the middle of a character too
    assert made[name].decode_bytes(ids[:cut]) == text.encode()[: int(lengths[:cut].sum())]
    assert made[name].decode_bytes(ids[cut:]) == text.encode()[int(lengths[:cut].sum()) :]


def test_characters_cut_into_byte_tokens_count_once(made: dict[str, Tokenizer]) -> None:
    ids, lengths = made["llama"].encode_with_lengths(["a龘b"])[0]
    assert lengths.tolist() == [1, 3, 0, 0, 1]  # 龘 was not in the training text: three byte tokens
    assert made["llama"].decode(ids) == "a龘b"


@pytest.mark.parametrize("name", NAMES)
def test_batches_give_what_single_texts_give(made: dict[str, Tokenizer], name: str) -> None:
    texts = ["short", "", "吾輩は猫である " * 9, "🙂"]
    together = made[name].encode_batch(texts)
    for text, ids in zip(texts, together, strict=True):
        assert ids.tolist() == made[name].encode_batch([text])[0].tolist()


def test_byte_ids_are_bytes(made: dict[str, Tokenizer]) -> None:
    byte = made["byte"]
    assert (byte.vocab_size, byte.eos_id) == (257, 256)
    assert byte.encode_batch(["é🙂\n"])[0].tolist() == list("é🙂\n".encode())
    assert byte.decode_bytes(np.arange(257)) == bytes(range(256))
    assert byte.decode([0xE3, 0x81]) == "\ufffd"


@pytest.mark.parametrize("name", NAMES)
def test_end_of_text_and_foreign_ids_stand_for_nothing(made: dict[str, Tokenizer], name: str) -> None:
    tokenizer = made[name]
    ids = tokenizer.encode_batch(["word"])[0].tolist()
    with_marks = [tokenizer.eos_id, *ids, tokenizer.eos_id, tokenizer.vocab_size, -1]
    assert tokenizer.decode_bytes(with_marks) == b"word"


def test_bpe_has_the_size_it_was_asked_for(made: dict[str, Tokenizer]) -> None:
    bpe = made["bpe"]
    assert (bpe.vocab_size, bpe.eos_id) == (300, 299)
    assert len(bpe.encode_batch(["the quick brown fox"])[0]) < 12
    tiny = TOKENIZERS.build("bpe", {"vocab_size": 1000})
    tiny.train(iter(["ab"]))
    assert 257 <= tiny.vocab_size < 300
    assert tiny.eos_id == tiny.vocab_size - 1


def test_training_gives_the_same_file_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.data.built_tokenizers import build;"
        "build('bpe', vocab_size=310).save(Path(sys.argv[1]))"
    )
    files = []
    for number, settings in enumerate([("1", "false", "0"), ("4", "true", "17")]):
        names = ("RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM", "PYTHONHASHSEED")
        environment = os.environ | dict(zip(names, settings, strict=True))
        folder = tmp_path / str(number)
        subprocess.run([sys.executable, "-c", code, folder], check=True, timeout=120, env=environment)
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert files[0] == files[1]
    assert set(files[0]) == {"tokenizer.json", "tokenizer_config.json", "sumi_tokenizer.json"}


@pytest.mark.parametrize("name", NAMES)
def test_saved_tokenizers_are_the_same_again(made: dict[str, Tokenizer], name: str, tmp_path: Path) -> None:
    tokenizer = made[name]
    tokenizer.save(tmp_path / "a")
    loaded = load_tokenizer(tmp_path / "a")
    assert (loaded.vocab_size, loaded.eos_id, loaded.byte_level) == (
        tokenizer.vocab_size,
        tokenizer.eos_id,
        tokenizer.byte_level,
    )
    for text in TEXTS:
        for one, other in zip(*(t.encode_with_lengths([text])[0] for t in (tokenizer, loaded)), strict=True):
            assert one.tolist() == other.tolist()
    loaded.save(tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_stock_transformers_gives_the_same_ids(made: dict[str, Tokenizer], name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    made[name].save(tmp_path)
    stock = AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=False, local_files_only=True)
    assert (len(stock), stock.eos_token_id) == (made[name].vocab_size, made[name].eos_id)
    for text in TEXTS:
        found = stock(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert found == made[name].encode_batch([text])[0].tolist()
        if name != "llama" or "▁" not in text:
            assert stock.decode(found) == text


# --- Hugging Face tokenizers ------------------------------------------------------------------------------------------


def test_a_tokenizer_without_end_of_text_gets_one(tmp_path: Path) -> None:
    llama_like(tmp_path, TRAINING, eos=None)
    tokenizer = build("huggingface", path=str(tmp_path))
    assert tokenizer.eos_id == tokenizer.vocab_size - 1
    assert tokenizer.backend.id_to_token(tokenizer.eos_id) == EOS


def test_the_vocabularys_own_end_of_text_is_used(made: dict[str, Tokenizer]) -> None:
    assert made["llama"].backend.id_to_token(made["llama"].eos_id) == "</s>"
    assert made["huggingface"].eos_id == made["bpe"].eos_id


def test_byte_level_vocabularies_are_recognised(made: dict[str, Tokenizer]) -> None:
    assert {name: tokenizer.byte_level for name, tokenizer in made.items()} == {
        "byte": True,
        "bpe": True,
        "huggingface": True,
        "llama": False,
    }


def test_relative_folders_start_at_the_project(project: Path) -> None:
    build("bpe", vocab_size=300).save(project / "mine")
    assert build("huggingface", path="mine").vocab_size == 300


def test_what_cannot_be_opened_is_named(project: Path) -> None:
    (project / "empty").mkdir()
    with pytest.raises(TokenizerError, match=r"^tokenizer.path: cannot open the tokenizer 'no/where': .+ .+ .+"):
        build("huggingface", path="no/where")
    with pytest.raises(
        TokenizerError, match=r"'empty' holds no tokenizer\.json; name a folder that save_pretrained wrote"
    ):
        build("huggingface", path="empty")
    with pytest.raises(ValueError, match="path is empty; write a tokenizer's folder or name"):
        TOKENIZERS.options("huggingface")().check()


def test_a_tokenizer_of_the_hub_needs_its_revision(project: Path) -> None:
    config: dict[str, Any] = {"tokenizer": {"name": "huggingface", "path": "no/where"}}
    resolve(config, "test.yaml")  # a record of one that lay in a folder must open where that folder is not
    with pytest.raises(TokenizerError) as caught:
        TOKENIZERS.build("huggingface", {"path": "no/where"}).identity()
    assert str(caught.value) == (
        "tokenizer.path: there is no folder 'no/where'; for a tokenizer of the Hub write its revision too (a commit)"
    )


def test_identity_is_the_content_of_the_folder(project: Path) -> None:
    assert TOKENIZERS.build("bpe", {}).identity() == {}
    build("bpe", vocab_size=300).save(project / "mine")
    (project / "mine" / "model.safetensors").write_bytes(b"weights")
    tokenizer = TOKENIZERS.build("huggingface", {"path": "mine"})
    identity = tokenizer.identity()
    assert [file["name"] for file in identity["files"]] == [
        "sumi_tokenizer.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    build("bpe", vocab_size=301).save(project / "mine")
    assert tokenizer.identity() != identity
    assert TOKENIZERS.build("huggingface", {"path": "no/where", "revision": "0123abc"}).identity() == {
        "tokenizer": "no/where",
        "revision": "0123abc",
        "files": [],
    }


def test_ids_with_gaps_are_refused(project: Path) -> None:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    vocabulary = {character: byte for byte, character in enumerate(byte_alphabet())} | {"ab": 300}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b")]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    (project / "gaps").mkdir()
    backend.save(str(project / "gaps" / "tokenizer.json"))
    (project / "gaps" / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(TokenizerError) as caught:
        build("huggingface", path="gaps")
    assert str(caught.value) == (
        "tokenizer.path: 258 tokens have ids up to 300; every id is a state: number them without gaps"
    )


# --- damage -----------------------------------------------------------------------------------------------------------


def test_damaged_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError) as caught:
        load_tokenizer(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'sumi_tokenizer.json'} is missing or damaged; compute the tokenizer again"
    )
    build("byte").save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is missing or damaged \(.*\); compute it again"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is missing or damaged"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("tokenizer.json", b"", "is damaged (Expecting value: line 1 column 1 (char 0)); copy it again"),
        ("tokenizer.json", b'{"version": "1.0", "model"', "is damaged (Expecting ':' delimiter: line 1"),
        ("tokenizer.json", b"\xff\xfe{}", "is damaged ('utf-8' codec can't decode byte"),
        ("tokenizer.json", b"[1]", "holds no JSON object, but a list; copy it again"),
        ("tokenizer.json", b'{"model": {"type": "New"}}', "has a model of type 'New' that tokenizers "),
        ("tokenizer.json", b'{"model": 3}', "has a model of type None that tokenizers "),
        ("tokenizer_config.json", b"{", "is damaged (Expecting property name enclosed in double quotes"),
        ("special_tokens_map.json", b"3", "holds no JSON object, but a int; copy it again"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_named(project: Path, name: str, content: bytes, problem: str) -> None:
    build("byte").save(project / "mine")
    (project / "mine" / name).write_bytes(content)
    with pytest.raises(TokenizerError) as caught:
        build("huggingface", path="mine")
    assert str(caught.value).startswith(f"tokenizer.path: mine/{name} {problem}")


@pytest.mark.parametrize(
    ("part", "value", "told"),
    [
        ("decoder", {"type": "New"}, "decoder of type 'New'"),
        ("normalizer", {"type": "New"}, "normalizer of type 'New'"),
        ("pre_tokenizer", {"type": "New"}, "pre_tokenizer of type 'New'"),
        ("post_processor", {"type": "New"}, "post_processor of type 'New'"),
        ("version", "9.0", "version '9.0'"),
    ],
)
def test_the_part_of_a_tokenizer_that_is_not_known_is_named(project: Path, part: str, value: object, told: str) -> None:
    build("byte").save(project / "mine")
    path = project / "mine" / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), part: value}))
    with pytest.raises(TokenizerError) as caught:
        build("huggingface", path="mine")
    assert str(caught.value).startswith(f"tokenizer.path: mine/tokenizer.json has a {told} that tokenizers ")
