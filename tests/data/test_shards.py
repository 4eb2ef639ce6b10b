"""Token shards: exact packing and byte counts, resuming, parallel building, and damage that is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from sumi_core.data import TOKENIZERS, sequences, shard_building, shards
from sumi_core.data.corpus import SPLITS, read_texts
from sumi_core.data.sequences import PackedSequences
from sumi_core.data.shards import ShardError, TokenShards
from sumi_core.data.sources.source import Document
from sumi_core.data.tokenizers.tokenizer import TokenizerError, load_tokenizer
from tests.data.conftest import TEXTS, Laboratory
from tests.data.foreign import llama_like

Make = Callable[..., Laboratory]


def built(make: Make, **config: Any) -> Laboratory:
    lab = make(**config)
    lab.run("corpus", "tokenizer", "token_shards")
    return lab


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def stream(lab: Laboratory, split: str) -> tuple[list[int], list[int], list[int]]:
    """Tokens, bytes and document starts of a split, made in the plainest way."""
    tokenizer = load_tokenizer(lab.artifacts["tokenizer"].folder)
    tokens: list[int] = []
    sizes: list[int] = []
    starts: list[int] = []
    for document in read_texts(lab.artifacts["corpus"].folder, split):
        ids, lengths = tokenizer.encode_with_lengths([document.text])[0]
        starts.append(len(tokens))
        tokens += [*ids.tolist(), tokenizer.eos_id]
        sizes += [*lengths.tolist(), 0]
    return tokens, sizes, starts


@pytest.fixture(params=["byte", "bpe", "llama"])
def lab(request: pytest.FixtureRequest, laboratory: Make, project: Path) -> Laboratory:
    """Built with each kind of tokenizer; Llama's has no exact bytes per token, only per character."""
    tokenizer: Any = request.param
    texts = [f"{text} {number}".replace("▁", "_") for number in range(12) for text in TEXTS]
    if request.param == "bpe":
        tokenizer = {"name": "bpe", "vocab_size": 300}
    if request.param == "llama":
        llama_like(project / "llama", texts[::3])
        tokenizer = {"name": "huggingface", "path": "llama"}
    return built(lambda **config: laboratory(texts, **config), tokenizer=tokenizer)


# --- what is stored -------------------------------------------------------------------------------------------------


def test_sequences_are_the_stream_cut_up(lab: Laboratory) -> None:
    stored = TokenShards(lab.artifacts["token_shards"].folder)
    summary = lab.artifacts["token_shards"].summary
    for split in SPLITS:
        tokens, sizes, starts = stream(lab, split)
        packed = stored.split(split)
        length = 16
        assert len(packed) == len(tokens) // length == summary[f"{split}_sequences"]
        for i in range(len(packed)):
            low, high = i * length, (i + 1) * length
            assert packed[i].tolist() == tokens[low:high]
            assert packed.bytes(i) == sum(sizes[low:high])
            assert packed.document_starts(i).tolist() == [start - low for start in starts if low <= start < high]
        assert sum(shards_of(stored, split)) == len(tokens)
        assert len(shards_of(stored, split)) > 2, "sequences must cross shards here"


def shards_of(stored: TokenShards, split: str) -> list[int]:
    return [shard["tokens"] for shard in stored.index["splits"][split]["shards"].values()]


def test_every_byte_is_counted_once(lab: Laboratory) -> None:
    stored = TokenShards(lab.artifacts["token_shards"].folder)
    summary, corpus = lab.artifacts["token_shards"].summary, lab.artifacts["corpus"].summary
    for split in SPLITS:
        packed = stored.split(split)
        covered = sum(packed.bytes(i) for i in range(len(packed)))
        assert covered + summary[f"{split}_dropped_bytes"] == summary[f"{split}_bytes"] == corpus[f"{split}_bytes"]
        assert len(packed) * 16 + summary[f"{split}_dropped_tokens"] == summary[f"{split}_tokens"]
        assert 0 <= summary[f"{split}_dropped_tokens"] < 16
        assert summary[f"{split}_documents"] == corpus[f"{split}_documents"]
        assert summary[f"{split}_shards"] == -(-corpus[f"{split}_documents"] // 8)


def test_the_text_comes_back_from_the_shards(lab: Laboratory) -> None:
    tokenizer = load_tokenizer(lab.artifacts["tokenizer"].folder)
    packed = TokenShards(lab.artifacts["token_shards"].folder).split("validation")
    ids = np.concatenate([packed[i] for i in range(len(packed))])
    documents = np.split(ids, np.flatnonzero(ids == tokenizer.eos_id) + 1)[:-1]
    texts = [document.text for document in read_texts(lab.artifacts["corpus"].folder, "validation")]
    assert [tokenizer.decode(document[:-1]) for document in documents] == texts[: len(documents)]
    assert len(documents) >= len(texts) - 1


def test_ids_are_stored_as_narrowly_as_the_vocabulary_allows(lab: Laboratory) -> None:
    folder = lab.artifacts["token_shards"].folder
    assert np.load(folder / "train-00000.tokens.npy").dtype == np.uint16
    assert TokenShards(folder).index["dtype"] == "uint16"
    assert shard_building.token_dtype(65_535) is np.uint16
    assert shard_building.token_dtype(65_536) is np.uint32
    assert np.load(folder / "train-00000.lengths.npy").dtype == np.uint8


def test_a_token_may_cover_much_text(tmp_path: Path) -> None:
    class Giant:
        """A tokenizer whose one token covers any text."""

        vocab_size, eos_id = 2, 1

        def encode_with_lengths(self, texts: list[str]) -> list[tuple[Any, Any]]:
            return [(np.zeros(1, np.int64), np.array([len(text.encode())], np.uint32)) for text in texts]

        def decode_bytes(self, ids: Any) -> bytes:
            return text.encode()

    text = "語" * 30_000
    record = shard_building.build_shard(Giant(), [Document("giant", text)], tmp_path / "s-0")  # type: ignore[arg-type]
    assert record["bytes"] == 90_000
    packed = PackedSequences(tmp_path, {"s-0": 2}, 2)
    assert packed.bytes(0) == 90_000


def test_indices_out_of_range(lab: Laboratory) -> None:
    packed = TokenShards(lab.artifacts["token_shards"].folder).split("train")
    for index in (-1, len(packed)):
        with pytest.raises(IndexError, match=f"sequence {index} of {len(packed)}"):
            packed[index]


def test_few_files_are_open_at_a_time(laboratory: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = built(laboratory, shards={"sequence_length": 16, "shard_documents": 1})
    monkeypatch.setattr(sequences, "_OPEN_ARRAYS", 3)
    packed = TokenShards(lab.artifacts["token_shards"].folder).split("train")
    tokens, _, _ = stream(lab, "train")
    for i in [*range(len(packed)), *range(len(packed) - 1, -1, -1)]:
        assert packed[i].tolist() == tokens[i * 16 : (i + 1) * 16]
        assert len(packed._arrays) <= 3


def test_a_sequence_longer_than_the_corpus(laboratory: Make) -> None:
    lab = laboratory(shards={"sequence_length": 10_000})
    lab.run("corpus", "tokenizer")
    with pytest.raises(ShardError) as caught:
        lab.run("token_shards")
    tokens = len(stream(lab, "train")[0])
    assert str(caught.value) == (
        f"shards.sequence_length: a sequence of 10000 tokens is longer than the train split, which holds {tokens}; "
        "shorten the sequences or add text"
    )


def test_tokens_that_do_not_fit_their_text_are_refused() -> None:
    tokenizer = TOKENIZERS.build("byte", {})
    tokenizer.train(iter(()))
    ids, lengths = tokenizer.encode_with_lengths(["text"])[0]
    with pytest.raises(TokenizerError) as caught:
        shard_building.check_tokens(tokenizer, Document("d", "text"), ids, lengths[:-1])
    assert str(caught.value) == (
        "tokenizer: the tokens of 'd' cover 3 bytes of its 4, which begin with 'text'; choose a tokenizer "
        "that keeps every byte"
    )
    tokenizer.eos_id = ord("t")
    with pytest.raises(TokenizerError) as caught:
        shard_building.check_tokens(tokenizer, Document("d", "text"), ids, lengths)
    assert str(caught.value) == (
        "tokenizer: the text of 'd' holds 't', which is the end-of-text token; choose a tokenizer whose end-of-text "
        "token no text can spell"
    )


# --- resuming and parallel building ---------------------------------------------------------------------------------


def test_an_interrupted_build_goes_on(laboratory: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = built(laboratory)
    folder = lab.artifacts["token_shards"].folder
    whole = files(folder)
    # A run that died: no index, one shard without its record, one cut off, one never begun, and a half-written record.
    (folder / "index.json").unlink()
    (folder / "train-00001.json").unlink()
    (folder / "train-00002.tokens.npy").write_bytes(whole["train-00002.tokens.npy"][:-3])
    for name in list(whole):
        if name.startswith("validation-00001"):
            (folder / name).unlink()
    (folder / ".train-00003.json.123.tmp").write_text('{"documents": 8,')
    (folder / "train-00004.json").write_text('{"documents": 8,')

    made: list[str] = []
    build = shard_building.build_shard

    def counted(tokenizer: Any, documents: list[Document], stem: Path) -> dict[str, Any]:
        made.append(stem.name)
        return build(tokenizer, documents, stem)

    monkeypatch.setattr(shard_building, "build_shard", counted)
    lab.progress.clear()
    lab.run("token_shards")
    assert made == ["train-00001", "train-00002", "train-00004", "validation-00001"]
    assert files(folder) == whole
    assert lab.log[-1] == f"keeping {len(shards_in(whole)) - 4} of {len(shards_in(whole))} shards of an earlier run"
    assert (
        lab.progress[-1][0]
        == lab.progress[-1][1]
        == sum(lab.artifacts["corpus"].summary[f"{split}_bytes"] for split in SPLITS)
    )


def shards_in(found: dict[str, bytes]) -> set[str]:
    return {name.split(".")[0] for name in found if name.endswith(".tokens.npy")}


def test_processes_build_the_same_bytes(laboratory: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = built(laboratory, tokenizer={"name": "bpe", "vocab_size": 300})
    serial = files(lab.artifacts["token_shards"].folder)
    monkeypatch.setattr(shards, "_INLINE_BYTES", 0)
    lab.experiment.runtime.data_workers = 2
    for path in lab.artifacts["token_shards"].folder.iterdir():
        path.unlink()
    lab.run("token_shards")
    assert files(lab.artifacts["token_shards"].folder) == serial


def die(documents: list[Document], stem: Path) -> None:
    """What happens to a process that the kernel kills for its memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_says_what_to_do(laboratory: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = laboratory()
    lab.run("corpus", "tokenizer")
    monkeypatch.setattr(shards, "_INLINE_BYTES", 0)
    monkeypatch.setattr(shard_building, "_build_in_worker", die)
    lab.experiment.runtime.data_workers = 2
    with pytest.raises(ShardError) as caught:
        lab.run("token_shards")
    assert str(caught.value) == (
        "a process that tokenized died, most likely for lack of memory; lower runtime.data_workers or "
        "shards.shard_documents and run again: finished shards are kept"
    )


KILLED = """
import sys
from pathlib import Path
from sumi_core.data import shard_building
from sumi_core.data.sources.source import Document

def endless():
    for number in range(10**6):
        yield f"train-{number:05d}", [Document(str(number), "text " * 2000)]

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name, _ in shard_building.build_shards(endless(), folder, folder, 2):
        print(name, flush=True)
"""


def test_workers_end_with_a_killed_parent(laboratory: Make, tmp_path: Path) -> None:
    lab = laboratory()
    lab.run("corpus", "tokenizer")
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    root = Path(__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, str(script), str(lab.artifacts["tokenizer"].folder)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert parent.stdout is not None
    assert parent.stdout.readline().startswith(b"train-")
    workers = psutil.Process(parent.pid).children(recursive=True)
    assert len(workers) >= 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(workers, timeout=60)
    for process in alive:
        process.kill()
    assert not alive


# --- damage ---------------------------------------------------------------------------------------------------------


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


@pytest.mark.parametrize("damage", [_flip, _truncate, Path.unlink], ids=["flipped bit", "truncated", "missing"])
@pytest.mark.parametrize("kind", ["tokens", "lengths", "starts"])
def test_damage_is_found_and_named(laboratory: Make, damage: Callable[[Path], None], kind: str) -> None:
    lab = built(laboratory)
    folder = lab.artifacts["token_shards"].folder
    TokenShards(folder).verify()
    path = folder / f"validation-00001.{kind}.npy"
    damage(path)
    with pytest.raises(ShardError) as caught:
        TokenShards(folder).verify()
    assert str(caught.value) == (f"{path} is missing or damaged; delete {folder} and compute token_shards again")


@pytest.mark.parametrize("damage", [_truncate, Path.unlink])
def test_reading_a_damaged_shard_names_it_too(laboratory: Make, damage: Callable[[Path], None]) -> None:
    lab = built(laboratory)
    folder = lab.artifacts["token_shards"].folder
    path = folder / "train-00000.tokens.npy"
    damage(path)
    with pytest.raises(ShardError, match=r"train-00000\.tokens\.npy is missing or damaged"):
        TokenShards(folder).split("train")[0]


def test_a_damaged_index(tmp_path: Path) -> None:
    for content in (None, '{"splits": '):
        if content is not None:
            (tmp_path / "index.json").write_text(content)
        with pytest.raises(ShardError) as caught:
            TokenShards(tmp_path)
        assert str(caught.value) == (f"{tmp_path / 'index.json'} is missing or damaged; compute token_shards again")


def test_files_are_opened_when_they_are_read(lab: Laboratory) -> None:
    packed = TokenShards(lab.artifacts["token_shards"].folder).split("train")
    assert not packed._arrays
    assert isinstance(packed[0], np.memmap)
    assert set(packed._arrays) == {"train-00000.tokens.npy"}
