"""Clusters of tokens, and the optional stage that makes them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sumi_core.data import CLUSTERINGS
from sumi_core.data.clusters.distribution import ClusterError
from sumi_core.data.clusters.surface import surface_class
from sumi_core.data.sequences import PackedSequences
from sumi_core.data.tokenizers.tokenizer import load_tokenizer
from sumi_core.experiments.resolve import resolve
from sumi_core.stages.computation import Computation
from sumi_core.stages.identity import stage_fingerprint, stage_inputs, stages_of
from sumi_core.stages.store import Artifact, Store

# Nouns stand before verbs, and nothing else tells them apart.
NOUNS, VERBS = ["cat", "dog", "cow", "fox"], ["runs", "eats", "naps", "digs"]


def tokens_of(tmp_path: Path, clusters: Any) -> tuple[dict[str, Artifact], Any]:
    generator = np.random.default_rng(0)
    for number in range(40):
        words = [f"{generator.choice(NOUNS)} {generator.choice(VERBS)}" for _ in range(200)]
        (tmp_path / f"{number:02}.txt").write_text(". ".join(words) + ".\n", encoding="utf-8")
    experiment = resolve(
        {
            "corpus": {"source": {"name": "text", "paths": [str(tmp_path / "*.txt")]}, "validation_fraction": 0.3},
            "tokenizer": {"name": "bpe", "vocab_size": 300},
            "shards": {"sequence_length": 32},
            "clusters": clusters,
        },
        "t.yaml",
    )
    computation = Computation(Store(tmp_path / "store"), log=lambda text: None)
    names = ("corpus", "tokenizer", "token_shards", "token_clusters")
    return {name: computation.ensure(experiment, "cell", name)[0] for name in names}, experiment


def test_alike_neighbours_make_a_cluster(tmp_path: Path) -> None:
    made, _ = tokens_of(tmp_path, {"name": "distribution", "clusters": 4, "dimensions": 8, "window": 1})
    tokenizer = load_tokenizer(made["tokenizer"].folder)
    cluster = np.load(made["token_clusters"].folder / "token_clusters.npy")
    assert cluster.shape == (tokenizer.vocab_size,)
    assert set(cluster) == set(range(5))

    def clusters_of(words: list[str]) -> list[set[int]]:
        return [set(cluster[tokenizer.encode_batch([f". {word}"])[0][-1:]].tolist()) for word in words]

    nouns, verbs = clusters_of(NOUNS[:]), clusters_of(VERBS)
    assert len(set.union(*nouns)) == 1
    assert len(set.union(*verbs)) == 1
    assert nouns[0] != verbs[0]
    assert cluster[tokenizer.eos_id] == 0
    report = (made["token_clusters"].folder / "report.md").read_text(encoding="utf-8")
    assert f"5 clusters of {tokenizer.vocab_size} tokens, by distribution" in report
    assert "`␣cat`" in report or "`cat`" in report
    summary = made["token_clusters"].summary
    assert (summary["clusters"], summary["tokens"]) == (5, tokenizer.vocab_size)
    assert 0 < summary["entropy_bits"] <= np.log2(5)
    assert summary["largest_cluster"] == np.bincount(cluster).max()


def test_co_occurrences_are_counted_at_each_offset() -> None:
    clustering = CLUSTERINGS.build("distribution", {"window": 1})
    rows = [np.array([0, 1, 2, 1]), np.array([2, 0, 0, 1])]

    class Rows(PackedSequences):
        def __init__(self) -> None:
            self.length = 4

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            return rows[index]

    counted = clustering._cooccurrence(3, Rows(), lambda *note: None).toarray()  # type: ignore[attr-defined]
    before, after = np.zeros((3, 3)), np.zeros((3, 3))
    for row in rows:
        for left, right in itertools.pairwise(row):
            before[right, left] += 1
            after[left, right] += 1
    assert counted.tolist() == np.concatenate([before, after], axis=1).tolist()


@pytest.mark.parametrize("window", [2, 3, 4, 7])
def test_a_window_wider_than_a_sequence_counts_what_there_is(window: int) -> None:
    class Rows:
        length = 4
        rows = np.array([[0, 1, 2, 3], [3, 2, 1, 0], [4, 5, 4, 5]])

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: int) -> Any:
            return self.rows[index]

    clustering: Any = CLUSTERINGS.build("distribution", {"window": window})
    counted = clustering._cooccurrence(6, Rows(), lambda *note: None).toarray()
    wanted = np.zeros_like(counted)
    for place, offset in enumerate(o for o in range(-window, window + 1) if o):
        for row, here in itertools.product(Rows.rows, range(4)):
            if 0 <= here + offset < 4:
                wanted[row[here], place * 6 + row[here + offset]] += 1
    assert counted.tolist() == wanted.tolist()


def test_too_many_clusters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"clusters.clusters: 290 clusters for \d+ tokens that occur at least 5"):
        tokens_of(tmp_path, {"name": "distribution", "clusters": 290})


def test_surface_classes() -> None:
    found = {
        text: surface_class(text.encode())
        for text in [
            " the",
            "ing",
            " Lord",
            "Lord",
            " GOD",
            "I",
            "12",
            " 7",
            ",",
            " (",
            " ",
            "\n",
            "it's",
            "a1",
        ]
    }
    assert found == {
        " the": "word start, lower case",
        "ing": "word part, lower case",
        " Lord": "word start, capitalised",
        "Lord": "word part, capitalised",
        " GOD": "word start, upper case",
        "I": "word part, upper case",
        "12": "digits",
        " 7": "digits",
        ",": "punctuation",
        " (": "punctuation",
        " ": "white space",
        "\n": "white space",
        "it's": "word part, lower case",
        "a1": "word part, mixed",
    }
    assert surface_class(b"\xe2\x80") == "bytes of a character"


def test_surface_clusters_give_end_of_text_its_own(tmp_path: Path) -> None:
    made, _ = tokens_of(tmp_path, "surface")
    tokenizer = load_tokenizer(made["tokenizer"].folder)
    cluster = np.load(made["token_clusters"].folder / "token_clusters.npy")
    assert (cluster == cluster[tokenizer.eos_id]).sum() == 1
    (dog,) = tokenizer.encode_batch([" dog"])[0][-1:]
    (cow,) = tokenizer.encode_batch([" cow"])[0][-1:]
    assert cluster[dog] == cluster[cow]
    assert "word start, lower case" in (made["token_clusters"].folder / "report.md").read_text(encoding="utf-8")


def test_only_experiments_that_know_tokens_have_the_stage() -> None:
    plain = resolve({"process": "uniform"}, "t.yaml")
    assert "token_clusters" not in stages_of(plain)
    assert stage_inputs(plain, "pretrained_denoiser") == ("tokenizer", "token_shards")
    other = resolve({"process": "uniform", "clusters": {"name": "distribution", "clusters": 9}}, "t.yaml")
    assert stage_fingerprint(other, "pretrained_denoiser") == stage_fingerprint(plain, "pretrained_denoiser")
