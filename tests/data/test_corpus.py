"""The corpus stage: exact duplicates, the split, statistics, and splits that would be empty."""

from __future__ import annotations

import random
from collections.abc import Callable

import pyarrow.parquet as pq
import pytest

from sumi_core.data import corpus
from sumi_core.data.corpus import SPLITS, read_texts
from sumi_core.data.sources.source import SourceError
from tests.data.conftest import Laboratory

Make = Callable[..., Laboratory]


def sides(laboratory: Laboratory) -> dict[str, str]:
    """Text → split."""
    folder = laboratory.artifacts["corpus"].folder
    return {d.text: split for split in SPLITS for d in read_texts(folder, split)}


def test_statistics_are_those_of_the_files(laboratory: Make) -> None:
    lab = laboratory(["one", "二", "one", "  ", "three", *(f"text {n}" for n in range(40))])
    summary = lab.run("corpus")
    folder = lab.artifacts["corpus"].folder
    for split in SPLITS:
        texts = [d.text for d in read_texts(folder, split)]
        assert summary[f"{split}_documents"] == len(texts) == pq.read_metadata(folder / f"{split}.parquet").num_rows
        assert summary[f"{split}_bytes"] == sum(len(text.encode()) for text in texts)
    assert summary["documents"] == 43
    assert summary["train_documents"] + summary["validation_documents"] == 43
    assert (summary["duplicates"], summary["skipped"]) == (1, {"empty document": 1})
    assert (summary["source"], summary["licence"]) == ("jsonl", "unknown")
    assert lab.log == ["skipped 1 × empty document (first: texts-1.jsonl:4)"]
    report = (folder / "report.md").read_text()
    assert f"| train | {summary['train_documents']} |" in report
    assert "Skipped: 1 × empty document (first: texts-1.jsonl:4)." in report
    assert pq.read_schema(folder / "train.parquet").names == ["id", "text"]


def test_documents_keep_their_order_and_ids(laboratory: Make) -> None:
    lab = laboratory([f"text {n}" for n in range(50)])
    lab.run("corpus")
    for split in SPLITS:
        documents = list(read_texts(lab.artifacts["corpus"].folder, split))
        numbers = [int(d.text.split()[1]) for d in documents]
        assert numbers == sorted(numbers)
        assert [d.id for d in documents] == [f"texts-1.jsonl:{n + 1}" for n in numbers]


def test_a_document_never_changes_sides(laboratory: Make) -> None:
    texts = [f"text {n}" for n in range(300)]
    first, shuffled, fewer = (laboratory(t) for t in (texts, random.Random(1).sample(texts, 300), texts[::3]))
    for lab in (first, shuffled, fewer):
        lab.run("corpus")
    assert sides(first) == sides(shuffled)
    assert sides(fewer).items() <= sides(first).items()
    assert 0.2 < list(sides(first).values()).count("validation") / 300 < 0.4  # of which 0.3 are expected


def test_a_larger_fraction_only_moves_documents_to_validation(laboratory: Make) -> None:
    found = []
    for fraction in (0.1, 0.3):
        lab = laboratory([f"text {n}" for n in range(200)])
        lab.experiment.corpus.validation_fraction = fraction
        lab.run("corpus")
        found.append({text for text, side in sides(lab).items() if side == "validation"})
    assert found[0] < found[1]


def test_duplicates_never_cross_the_split(laboratory: Make) -> None:
    texts = [f"text {n % 40}" for n in range(200)]
    lab = laboratory(texts)
    lab.experiment.corpus.deduplicate = False
    summary = lab.run("corpus")
    assert (summary["documents"], summary["duplicates"]) == (200, 0)
    folder = lab.artifacts["corpus"].folder
    train, validation = ({d.text for d in read_texts(folder, split)} for split in SPLITS)
    assert not train & validation
    assert len(train | validation) == 40

    lab = laboratory(texts)
    summary = lab.run("corpus")
    assert (summary["documents"], summary["duplicates"]) == (40, 160)


def test_the_same_documents_give_the_same_bytes(laboratory: Make) -> None:
    texts = [f"text {n}" * 50 for n in range(100)]
    one, other = laboratory(texts), laboratory(texts)
    other.experiment.corpus.source = one.experiment.corpus.source
    for lab in (one, other):
        lab.run("corpus")
    for split in SPLITS:
        name = f"corpus/{split}.parquet"
        assert (one.root / name).read_bytes() == (other.root / name).read_bytes()


def test_much_text_is_written_in_row_groups(laboratory: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_GROUP_CHARACTERS", 1000)
    lab = laboratory([f"text {n}" * 20 for n in range(100)])
    lab.run("corpus")
    folder = lab.artifacts["corpus"].folder
    metadata = pq.read_metadata(folder / "train.parquet")
    assert metadata.num_row_groups > 3
    assert len(list(read_texts(folder, "train"))) == metadata.num_rows


@pytest.mark.parametrize("count", [1, 2])
def test_a_split_without_documents_says_what_to_change(laboratory: Make, count: int) -> None:
    lab = laboratory([f"text {n}" for n in range(count)])
    lab.experiment.corpus.validation_fraction = 1e-9
    with pytest.raises(SourceError) as caught:
        lab.run("corpus")
    assert str(caught.value) == (
        f"corpus.validation_fraction: 1e-09 of {count} documents leaves the validation split empty; "
        "change the fraction or give more documents"
    )
