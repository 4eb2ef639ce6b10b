"""The datasets library as a source, on local files: no hub can be reached from a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sumi_core.data import SOURCES
from sumi_core.data.sources.source import Document, Source, SourceError
from sumi_core.experiments.resolve import resolve
from sumi_core.stages.identity import stage_fingerprint

datasets = pytest.importorskip("datasets")


def source(**options: Any) -> Source:
    return SOURCES.build("huggingface", options)


def complaint(**options: Any) -> str:
    with pytest.raises(SourceError) as caught:
        list(source(**options).documents())
    return str(caught.value)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def rows(project: Path) -> Path:
    path = project / "rows.jsonl"
    path.write_text("".join(json.dumps({"body": f"文 {n}", "n": n}) + "\n" for n in range(5)), encoding="utf-8")
    return path


@pytest.mark.parametrize("streaming", [False, True])
def test_a_builder_on_local_files(rows: Path, streaming: bool) -> None:
    made = source(path="json", data_files=["*.jsonl"], column="body", streaming=streaming)
    assert list(made.documents()) == [Document(f"train:{n}", f"文 {n}") for n in range(5)]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_local_folder_with_splits(project: Path, streaming: bool) -> None:
    folder = project / "set"
    folder.mkdir()
    (folder / "train.txt").write_text("one\ntwo\n")
    (folder / "test.txt").write_text("three\n")
    made = source(path="set", split="test", streaming=streaming)
    assert list(made.documents()) == [Document("test:0", "three")]
    assert [d.text for d in source(path="set", split="train[:1]").documents()] == ["one"]


def test_a_folder_of_save_to_disk(project: Path) -> None:
    rows = datasets.Dataset.from_dict({"text": ["one", None, "two"]})
    rows.save_to_disk(project / "saved")
    datasets.DatasetDict({"train": rows}).save_to_disk(project / "splits")
    made = source(path="saved")
    assert [d.text for d in made.documents()] == ["one", "two"]
    assert made.skipped == {"no text in column 'text'": 1}
    assert [d.text for d in source(path="splits").documents()] == ["one", "two"]
    assert complaint(path="splits", split="trian") == (
        "corpus.source.split: 'splits' has no split 'trian'; did you mean 'train'?"
    )


def test_the_split_of_a_saved_data_set(project: Path) -> None:
    def rows(*names: str) -> Any:
        return datasets.Dataset.from_dict({"text": list(names)})

    def texts(**options: Any) -> list[str]:
        return [document.text for document in source(**options).documents()]

    rows("a", "b", "c", "d").save_to_disk(project / "plain")
    assert texts(path="plain", split="train[:50%]") == ["a", "b"]
    assert texts(path="plain", split="train[-1:] + train[:1]") == ["d", "a"]
    assert complaint(path="plain", split="test") == ("corpus.source.split: 'plain' has no split 'test'; known: train")
    datasets.DatasetDict({"train": rows("a", "b"), "test": rows("c", "d")}).save_to_disk(project / "both")
    assert texts(path="both", split="train[1:]+test[:50%]") == ["b", "c"]
    assert complaint(path="both", split="train+tset[:1]") == (
        "corpus.source.split: 'both' has no split 'tset'; did you mean 'test'?"
    )
    assert complaint(path="both", split="train[:").startswith("corpus.source.split: 'train[:' is not a split (")
    assert complaint(path="both", split="train[:120%]").startswith("corpus.source.split: 'train[:120%]'")
    taken = rows("e", "f")
    taken._split = datasets.Split("validation")
    taken.save_to_disk(project / "taken")
    assert texts(path="taken", split="validation[:1]") == ["e"]
    assert texts(path="taken") == ["e", "f"], "the split that is meant where none is written"


@pytest.mark.parametrize("key", ["config", "revision"])
def test_what_a_saved_data_set_does_not_have_is_refused(project: Path, key: str) -> None:
    datasets.Dataset.from_dict({"text": ["one"]}).save_to_disk(project / "saved")
    assert complaint(path="saved", **{key: "other"}) == (
        f"corpus.source.{key}: 'saved' was written by save_to_disk and has no {key}; leave it out"
    )


@pytest.mark.parametrize("streaming", [False, True])
def test_brackets_in_the_name_of_a_folder(project: Path, streaming: bool) -> None:
    (project / "data [v1]").mkdir()
    (project / "data [v1]" / "x.jsonl").write_text('{"text": "x"}')
    for name in ("data [v1]/x.jsonl", "data [v1]/*"):
        found = source(path="json", data_files=[name], streaming=streaming).documents()
        assert [d.text for d in found] == ["x"]
    assert complaint(path="data [v1]", streaming=streaming).endswith("for a pattern: rename it")


def test_bytes_that_are_not_utf8_and_files_without_rows_are_said(project: Path) -> None:
    (project / "a.txt").write_bytes(b"caf\xe9\n")
    assert complaint(path="text", data_files=["a.txt"]).endswith(
        "; the sources text, jsonl and parquet read such files, and skip what is not UTF-8"
    )
    (project / "a.jsonl").touch()
    assert complaint(path="json", data_files=["a.jsonl"]) == (
        "corpus.source.path: cannot read the dataset 'json': there is nothing in it; correct its files, or name others"
    )


def test_errors_of_several_lines_are_shown_whole(project: Path) -> None:
    for name in ("a", "b"):
        (project / "set" / name).mkdir(parents=True)
        (project / "set" / name / "x.jsonl").write_text('{"text": "x"}')
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*.jsonl\n" for name in ("a", "b"))
    (project / "set" / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    assert complaint(path="set") == (
        "corpus.source.path: cannot read the dataset 'set': it has several configurations, ['a', 'b']; write one of "
        "them as corpus.source.config"
    )
    assert [d.text for d in source(path="set", config="b").documents()] == ["x"]
    (project / "1.csv").write_text("text,m\nx,1\n")
    (project / "2.csv").write_text("other\ny\n")
    assert "text: large_string m: int64 vs other" in complaint(path="csv", data_files=["1.csv", "2.csv"])


@pytest.mark.parametrize("streaming", [False, True])
def test_mistakes(rows: Path, streaming: bool) -> None:
    common = {"path": "json", "data_files": [rows.name], "streaming": streaming}
    assert complaint(**common, column="bdy") == (
        "corpus.source.column: 'json' has no column 'bdy'; did you mean 'body'?"
    )
    assert complaint(**common, column="n").startswith(
        "corpus.source: no document is left to read (skipped: 5 × no text in column 'n' (first: train row 0))"
    )
    assert complaint(**common, split="test").startswith("corpus.source.path: cannot read the dataset 'json': ")
    assert complaint(path="json", data_files=["gone.jsonl"], streaming=streaming) == (
        "corpus.source.data_files: there is no file 'gone.jsonl'; relative paths start at the project's folder"
    )
    rows.write_text('{"body": "x"}\n{broken\n')
    assert complaint(**common, column="body").startswith(
        "corpus.source.path: cannot read the dataset 'json': JSON parse error"
    )
    assert complaint(path="no/where", revision="main", streaming=streaming).startswith(
        "corpus.source.path: cannot read the dataset 'no/where': Couldn't reach 'no/where' on the Hub"
    )


def test_identity_is_the_revision_and_what_lies_here(project: Path, rows: Path) -> None:
    identity = source(path="no/where", revision="0123abc").identity()
    assert identity == {"dataset": "no/where", "revision": "0123abc", "files": []}
    here = source(path="json", data_files=[rows.name]).identity()
    rows.write_text('{"body": "x"}\n')
    assert source(path="json", data_files=[rows.name]).identity() != here
    (project / "set" / "sub").mkdir(parents=True)
    (project / "set" / "sub" / "a.txt").write_text("x")
    assert [file["name"] for file in source(path="set").identity()["files"]] == ["sub/a.txt"]


def test_a_dataset_of_the_hub_needs_its_revision(project: Path) -> None:
    config = {"corpus": {"source": {"name": "huggingface", "path": "no/where"}}}
    resolve(config, "test.yaml")  # a record of one that lay in a folder must open where that folder is not
    with pytest.raises(SourceError) as caught:
        source(path="no/where").identity()
    assert str(caught.value) == (
        "corpus.source.path: there is no folder 'no/where'; for a dataset of the Hub write its revision too (a commit)"
    )


def test_where_a_dataset_lies_is_no_part_of_what_it_is(project: Path) -> None:
    for folder in ("here", "there"):
        (project / folder).mkdir()
        (project / folder / "a.txt").write_text("x")

    def corpus_fingerprint(**options: Any) -> str:
        config = {"corpus": {"source": {"name": "huggingface", **options}}}
        return stage_fingerprint(resolve(config, "test.yaml"), "corpus")

    assert corpus_fingerprint(path="here") == corpus_fingerprint(path=str(project / "there"))
    assert corpus_fingerprint(path="here", split="test") != corpus_fingerprint(path="here")
    of_the_hub = {corpus_fingerprint(path=name, revision="0123abc") for name in ("some/set", "other/set")}
    assert len(of_the_hub) == 2
