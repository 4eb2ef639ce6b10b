"""Local files as sources: which files a path means, what they are called, and when they are read again."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sumi_core.base import hashing as fingerprint
from sumi_core.base.hashing import file_sha256
from sumi_core.data import SOURCES
from sumi_core.data.sources.files import TextFiles
from sumi_core.data.sources.source import Document, Source, SourceError
from sumi_core.experiments.resolve import resolve
from sumi_core.stages.base import ChangedSource
from sumi_core.stages.computation import Computation
from sumi_core.stages.identity import refresh_source_identities, stage_fingerprint
from sumi_core.stages.store import Store
from tests.data.source_files import complaint, documents, lines, source

# --- text -------------------------------------------------------------------------------------------------------------


def test_a_text_file_is_a_document_byte_for_byte(project: Path) -> None:
    (project / "a.txt").write_bytes("zwei\r\nZeilen 🙂\n".encode())
    (project / "b.txt").write_bytes(b"\xef\xbb\xbfmarked")
    assert documents("text", paths=["b.txt", "a.txt"]) == [
        Document("a.txt", "zwei\r\nZeilen 🙂\n"),
        Document("b.txt", "marked"),
    ]


def test_globs_find_each_file_once_in_the_order_of_names(project: Path) -> None:
    for name in ("deep/er/c.txt", "deep/a.txt", "b.txt", "b.md"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(name)
    found = documents("text", paths=["**/*.txt", "b.txt", "deep/*.txt"])
    assert [d.id for d in found] == ["b.txt", "deep/a.txt", "deep/er/c.txt"]


def test_a_file_name_with_brackets_is_no_glob(project: Path) -> None:
    (project / "notes[1].txt").write_text("one")
    assert [d.id for d in documents("text", paths=["notes[1].txt"])] == ["notes[1].txt"]


def test_files_outside_of_the_project_have_names_that_do_not_tell_where_it_lies(project: Path, tmp_path: Path) -> None:
    def build(place: Path) -> Source:
        for name in ("x/same.txt", "y/same.txt"):
            (place / name).parent.mkdir(parents=True)
            (place / name).write_text(name)
        return source("text", paths=[str(place / "*" / "same.txt")])

    one, other = build(tmp_path / "one"), build(tmp_path / "two" / "deeper")
    assert [d.id for d in one.documents()] == ["x/same.txt", "y/same.txt"]
    assert one.identity() == other.identity()


def test_identity_is_the_content_of_the_files(project: Path) -> None:
    file = project / "a.txt"
    file.write_text("one")
    before = source("text", paths=["a.txt"]).identity()
    os.utime(file, (1, 1))
    assert source("text", paths=["*.txt"]).identity() == before
    file.write_text("two")
    assert source("text", paths=["a.txt"]).identity() != before
    (project / "b.txt").write_text("one")
    file.write_text("one")
    assert source("text", paths=["*.txt"]).identity() != before


def test_files_that_are_not_utf8_are_counted(project: Path) -> None:
    (project / "a.txt").write_bytes("é".encode("latin-1"))
    (project / "b.txt").write_text("fine")
    (project / "c.txt").write_text(" \n")
    made = source("text", paths=["*.txt"])
    assert [d.id for d in made.documents()] == ["b.txt"]
    assert made.skipped == {"not UTF-8": 1, "empty document": 1}
    assert made.describe("not UTF-8") == "not UTF-8 (first: a.txt)"
    assert [d.id for d in made.documents()] == ["b.txt"]
    assert made.skipped == {"not UTF-8": 1, "empty document": 1}, "a second iteration counts anew"


def test_nothing_left_says_why(project: Path) -> None:
    (project / "a.txt").write_bytes(b"\xff")
    (project / "b.txt").write_bytes(b"")
    assert complaint("text", paths=["*.txt"]) == (
        "corpus.source: no document is left to read "
        "(skipped: 1 × not UTF-8 (first: a.txt); 1 × empty document (first: b.txt))"
    )


def test_paths_that_give_no_file(project: Path) -> None:
    (project / "folder").mkdir()
    assert complaint("text", paths=["gone.txt"]) == (
        "corpus.source.paths: there is no file 'gone.txt'; relative paths start at the project's folder"
    )
    assert complaint("text", paths=["*.txt"]) == (
        "corpus.source.paths: no file matches '*.txt'; relative paths start at the project's folder"
    )
    assert complaint("text", paths=["folder"]) == (
        "corpus.source.paths: 'folder' is a folder; name the files in it, such as 'folder/**/*'"
    )
    with pytest.raises(SourceError, match=r"there is no file 'gone\.txt'"):
        source("text", paths=["gone.txt"]).identity()


def test_folders_and_files_whose_names_look_like_globs(project: Path) -> None:
    for folder in ("data [v1]", "what?", "all*", "data v"):
        (project / folder / "in [2]").mkdir(parents=True)
        (project / folder / "in [2]" / "a.txt").write_text(f"text of {folder}")
    for folder in ("data [v1]", "what?", "all*"):
        for pattern in ("in [2]/*.txt", "**/*.txt", "*/a.txt", "in [2]/a.txt", "**"):
            found = documents("text", paths=[f"{folder}/{pattern}"])
            assert [d.id for d in found] == [f"{folder}/in [2]/a.txt"]
            assert documents("text", paths=[f"{project}/{folder}/{pattern}"]) == found
    assert [d.id for d in documents("text", paths=["data [u-w]/**/*.txt", "data [vw]/*/a.txt"])] == [
        "data v/in [2]/a.txt"
    ]
    assert complaint("text", paths=["data [v1]/*.md"]) == (
        "corpus.source.paths: no file matches 'data [v1]/*.md'; relative paths start at the project's folder; [ begins "
        "a set of characters, and [[] means the character"
    )


def test_globs_pass_over_hidden_files(project: Path) -> None:
    for name in (".git/a.txt", "b/.hidden.txt", "b/c.txt"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(name)
    assert [d.id for d in documents("text", paths=["**/*.txt"])] == ["b/c.txt"]
    assert [d.id for d in documents("text", paths=["b/.*.txt", ".git/**/*.txt"])] == [".git/a.txt", "b/.hidden.txt"]


def test_links_that_lead_back_are_followed_once(project: Path, tmp_path_factory: Any) -> None:
    inner = project / "in" / "sub" / "deep"
    inner.mkdir(parents=True)
    (inner / "a.txt").write_text("one")
    outside = tmp_path_factory.mktemp("outside")
    (outside / "b.txt").write_text("two")
    for place, target in {
        "in/loop": ".",
        "in/sub/up": "..",
        "in/sub/deep/top": "../..",
        "in/sub/deep/self": "self",
        "in/away": str(outside),
        "in/again": "sub",
    }.items():
        (project / place).symlink_to(target)
    (outside / "back").symlink_to(project / "in")
    found = [d.id for d in documents("text", paths=["in/**/*.txt"])]
    assert found == ["in/away/b.txt", "in/sub/deep/a.txt"], "each once, by its own name where it has one"
    found = [d.id for d in documents("text", paths=["in/again/**/*.txt"])]
    assert found == ["in/again/deep/a.txt", "in/again/up/away/b.txt"]


def test_a_name_that_is_not_utf8_is_written_with_an_escape(project: Path) -> None:
    try:
        (project / os.fsdecode(b"caf\xe9.txt")).write_text("one")
    except OSError:
        pytest.skip("this file system holds UTF-8 names only")
    lines(project / os.fsdecode(b"\xff.jsonl"), {"text": "two"}, {"no": 1})
    assert documents("text", paths=["*.txt"]) == [Document("caf\\xe9.txt", "one")]
    made = source("jsonl", paths=["*.jsonl"])
    assert list(made.documents()) == [Document("\\xff.jsonl:1", "two")]
    for name in (*made.first_skipped.values(), *(file["name"] for file in made.identity()["files"])):
        assert name.encode()


# --- options ----------------------------------------------------------------------------------------------------------


def test_where_files_lie_changes_no_fingerprint_and_what_they_hold_does(project: Path) -> None:
    def fingerprint(path: str) -> str:
        refresh_source_identities()
        experiment = resolve({"corpus": {"source": {"name": "text", "paths": [path]}}}, "a.yaml")
        return stage_fingerprint(experiment, "corpus")

    (project / "a.txt").write_text("one")
    before = fingerprint("a.txt")
    assert fingerprint(str(project / "a.txt")) == fingerprint("*.txt") == before
    (project / "a.txt").write_text("two")
    assert fingerprint("a.txt") != before


def test_a_file_that_changes_while_it_is_read_is_not_kept_under_its_old_digest(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = project / "a.txt"
    file.write_text("one\n")
    for number in range(20):
        (project / f"{number}.txt").write_text(f"{number}\n")
    source = {"name": "text", "paths": ["*.txt"]}
    experiment = resolve({"corpus": {"source": source, "validation_fraction": 0.5}}, "a.yaml")
    read = TextFiles.read_file

    def edited(self: TextFiles, name: str, path: Path) -> Iterator[Document]:
        yield from read(self, name, path)
        file.write_text("another\n")

    refresh_source_identities()
    monkeypatch.setattr(TextFiles, "read_file", edited)
    computation = Computation(Store(project / "store"), log=lambda line: None)
    with pytest.raises(ChangedSource, match="changed while it was read; run it again"):
        computation.ensure(experiment, "cell", "corpus")
    assert computation.whole(experiment, "corpus") is None


def test_a_file_is_read_again_when_it_changed_and_not_before(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = project / "a.txt"
    reads: list[Path] = []
    monkeypatch.setattr(fingerprint, "file_sha256", lambda path: reads.append(path) or file_sha256(path))
    for text, age, wanted in (("one", 10, 1), ("two", 5, 2), ("now", 0, 4)):
        file.write_text(text)
        os.utime(file, (time.time() - age,) * 2)
        for _ in range(2):
            (found,) = source("text", paths=["a.txt"]).identity()["files"]
            assert found["sha256"] == file_sha256(file)
        assert len(reads) == wanted


@pytest.mark.parametrize("name", ["text", "jsonl", "parquet"])
def test_the_licence_is_what_the_config_says(project: Path, name: str) -> None:
    assert source(name, paths=["x"]).licence == "unknown"
    assert source(name, paths=["x"], licence="CC0-1.0").licence == "CC0-1.0"
    with pytest.raises(ValueError, match="paths is empty; list at least one file or glob"):
        SOURCES.options(name)().check()


def test_sources_read_the_same_wherever_the_project_lies(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "a.txt").write_text("one")
    here = source("text", paths=["a.txt"]).identity()
    moved = project.parent / "moved"
    shutil.move(project, moved)
    monkeypatch.setenv("SUMI_PROJECT", str(moved))
    assert source("text", paths=["a.txt"]).identity() == here


def test_a_project_folder_with_brackets_is_no_part_of_a_glob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "draft [2]*"
    (root / "texts").mkdir(parents=True)
    (root / "texts" / "a.txt").write_text("alpha")
    (tmp_path / "beside.txt").write_text("beta")
    monkeypatch.setenv("SUMI_PROJECT", str(root))
    assert documents("text", paths=["texts/**/*.txt"]) == [Document("texts/a.txt", "alpha")]
    assert documents("text", paths=["../*.txt"]) == [Document("beside.txt", "beta")]


def test_a_file_of_the_project_and_one_outside_keep_names_of_their_own(project: Path, tmp_path_factory: Any) -> None:
    outside = tmp_path_factory.mktemp("outside") / "a.txt"
    for path in (project / "a.txt", outside):
        path.write_text("text")
    names = [document.id for document in source("text", paths=["a.txt", str(outside)]).documents()]
    assert names == ["a.txt", "outside/a.txt"]
