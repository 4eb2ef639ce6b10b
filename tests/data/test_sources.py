"""Local files as sources: what is read, what is skipped and counted, and the sentence for each mistake."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
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


def source(name: str, **options: Any) -> Source:
    return SOURCES.build(name, options)


def documents(name: str, **options: Any) -> list[Document]:
    return list(source(name, **options).documents())


def complaint(name: str, **options: Any) -> str:
    with pytest.raises(SourceError) as caught:
        documents(name, **options)
    return str(caught.value)


def lines(path: Path, *rows: Any) -> None:
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))


# --- text -----------------------------------------------------------------------------------------------------------


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


# --- jsonl ----------------------------------------------------------------------------------------------------------


def test_json_lines_count_what_they_skip(project: Path) -> None:
    rows = [
        {"text": "first", "n": 1},
        b"{broken",
        b"",
        {"text": None},
        {"body": "x"},
        b"\xff\xfe",
        [1],
        {"text": "last"},
        rb'{"text": "a \ud800 b"}',
    ]
    lines(project / "a.jsonl", *rows)
    made = source("jsonl", paths=["a.jsonl"])
    assert list(made.documents()) == [Document("a.jsonl:1", "first"), Document("a.jsonl:8", "last")]
    assert made.skipped == {
        "not JSON": 1,
        "no text in column 'text'": 2,
        "not UTF-8": 1,
        "not a JSON object": 1,
        "lone surrogate, which UTF-8 cannot hold": 1,
    }
    assert made.first_skipped == {
        "not JSON": "a.jsonl line 2",
        "no text in column 'text'": "a.jsonl line 4",
        "not UTF-8": "a.jsonl line 6",
        "not a JSON object": "a.jsonl line 7",
        "lone surrogate, which UTF-8 cannot hold": "a.jsonl:9",
    }


def test_packed_json_lines(project: Path) -> None:
    with gzip.open(project / "a.jsonl.gz", "wt") as file:
        file.write('\ufeff{"text": "packed"}\n')
    assert documents("jsonl", paths=["a.jsonl.gz"]) == [Document("a.jsonl.gz:1", "packed")]


def pack(path: Path, content: bytes) -> None:
    """Written as the end of the name says."""
    kind = path.name.lower().rpartition(".")[2]
    if kind == "zst":
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(content)
    else:
        path.write_bytes({"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[kind](content))


@pytest.mark.parametrize("end", ["gz", "GZ", "bz2", "Bz2", "xz", "zst", "ZST"])
def test_every_packing_is_unpacked_whatever_its_name(project: Path, end: str) -> None:
    rows = b"".join(b'{"text": "row %d"}\n' % n for n in range(50_000))
    pack(project / f"a.jsonl.{end}", rows)
    found = documents("jsonl", paths=[f"a.jsonl.{end}"])
    assert (len(found), found[-1]) == (50_000, Document(f"a.jsonl.{end}:50000", "row 49999"))
    pack(project / f"a.txt.{end}", b"\xef\xbb\xbfwords")
    assert documents("text", paths=[f"a.txt.{end}"]) == [Document(f"a.txt.{end}", "words")]
    shutil.move(project / f"a.txt.{end}", project / "a.txt")
    assert documents("text", paths=["a.txt"]) == [Document("a.txt", "words")], "it is packed, whatever it is called"
    content = (project / f"a.jsonl.{end}").read_bytes()
    (project / f"a.jsonl.{end}").write_bytes(content[: len(content) // 2])
    assert f"a.jsonl.{end} is not a complete " in complaint("jsonl", paths=[f"a.jsonl.{end}"])


def test_a_file_packed_in_parts(project: Path) -> None:
    pack(project / "a.txt.gz", b"one ")
    pack(project / "b.zst", b"one ")
    for name, end in (("a.txt.gz", "gz"), ("b.zst", "zst")):
        pack(project / f"more.{end}", b"two")
        content = (project / name).read_bytes() + (project / f"more.{end}").read_bytes()
        (project / f"joined.txt.{end}").write_bytes(content)
        assert [d.text for d in documents("text", paths=[f"joined.txt.{end}"])] == ["one two"]


def test_archives_and_other_packings_are_refused_by_name(project: Path) -> None:
    with zipfile.ZipFile(project / "a.txt.zip", "w") as archive:
        archive.writestr("a.txt", "words")
    (project / "a.txt").write_text("words")
    for mode, name in (("w", "a.tar"), ("w:gz", "a.tgz"), ("w:xz", "a.tar.xz")):
        with tarfile.open(project / name, mode) as tar:  # type: ignore[call-overload]
            tar.add(project / "a.txt")
        assert complaint("text", paths=[name]).startswith(f"corpus.source.paths: {name} is a ")
        assert " tar archive, which is not read; unpack it, or pack its files one by one as .gz, .bz2, .xz or .zst" in (
            complaint("jsonl", paths=[name])
        )
    assert "a.txt.zip is a zip archive, which is not read; unpack it" in complaint("text", paths=["a.txt.zip"])
    shutil.copy(project / "a.tgz", project / "a.txt.bz2")
    assert "a.txt.bz2 is not a complete bzip2 file (but packed with gzip); rename it" in (
        complaint("text", paths=["a.txt.bz2"])
    )
    (project / "b.txt").write_text("BZh9 is how bzip2 files begin, and PK those of zip.")
    assert len(documents("text", paths=["b.txt"])) == 1


def test_a_wrong_json_column_names_the_nearest(project: Path) -> None:
    lines(project / "a.jsonl", {"texts": "x", "id": 1}, {"texts": "y"})
    assert complaint("jsonl", paths=["a.jsonl"]) == (
        "corpus.source.column: no line of a.jsonl has 'text'; did you mean 'texts'?"
    )
    assert [d.text for d in documents("jsonl", paths=["a.jsonl"], column="texts")] == ["x", "y"]


def test_all_lines_broken(project: Path) -> None:
    lines(project / "a.jsonl", b"{", b"}")
    assert complaint("jsonl", paths=["a.jsonl"]) == (
        "corpus.source: no document is left to read (skipped: 2 × not JSON (first: a.jsonl line 1))"
    )
    lines(project / "a.jsonl")
    assert complaint("jsonl", paths=["a.jsonl"]) == "corpus.source: no document is left to read (there was none)"


# --- parquet --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_rows(project: Path, kind: pa.DataType) -> None:
    column = pa.array(["one", None, "三", "one"]).cast(kind)
    pq.write_table(pa.table({"body": column, "n": [1, 2, 3, 4]}), project / "a.parquet")
    made = source("parquet", paths=["a.parquet"], column="body")
    assert list(made.documents()) == [
        Document("a.parquet:1", "one"),
        Document("a.parquet:3", "三"),
        Document("a.parquet:4", "one"),
    ]
    assert made.skipped == {"no text in column 'body'": 1}


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_a_parquet_row_that_is_not_utf8_is_counted(project: Path, kind: pa.DataType) -> None:
    stored = {pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}.get(kind, pa.binary())
    column = pa.array([b"one", None, b"caf\xe9", "三".encode()]).cast(stored).view(kind)
    pq.write_table(pa.table({"text": column}), project / "a.parquet")
    made = source("parquet", paths=["a.parquet"])
    assert list(made.documents()) == [Document("a.parquet:1", "one"), Document("a.parquet:4", "三")]
    assert made.skipped == {"no text in column 'text'": 1, "not UTF-8": 1}
    assert made.describe("not UTF-8") == "not UTF-8 (first: a.parquet row 3)"


def test_a_parquet_dictionary_that_is_not_utf8_is_named(project: Path) -> None:
    values = pa.array([b"one", b"caf\xe9"]).view(pa.string())
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), values)
    pq.write_table(pa.table({"text": column}), project / "a.parquet")
    assert complaint("parquet", paths=["a.parquet"]) == (
        "corpus.source.column: 'text' of a.parquet is a dictionary with text that is not UTF-8; write it as plain text"
    )


def test_a_parquet_file_whose_name_is_not_utf8(project: Path) -> None:
    pq.write_table(pa.table({"text": ["one"]}), project / "a.parquet")
    try:
        (project / "a.parquet").rename(project / os.fsdecode(b"caf\xe9.parquet"))
    except OSError:
        pytest.skip("this file system has no such names")
    assert documents("parquet", paths=["*.parquet"]) == [Document("caf\\xe9.parquet:1", "one")]


def test_a_packed_parquet_file_is_named(project: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), project / "a.parquet")
    pack(project / "a.parquet.gz", (project / "a.parquet").read_bytes())
    assert complaint("parquet", paths=["a.parquet.gz"]) == (
        "corpus.source.paths: a.parquet.gz is packed with gzip, and Parquet packs its columns itself; unpack it"
    )


def test_parquet_mistakes(project: Path) -> None:
    pq.write_table(pa.table({"texts": ["a"], "n": [1]}), project / "a.parquet")
    assert complaint("parquet", paths=["a.parquet"]) == (
        "corpus.source.column: a.parquet has no column 'text'; did you mean 'texts'?"
    )
    assert complaint("parquet", paths=["a.parquet"], column="n") == (
        "corpus.source.column: 'n' of a.parquet holds int64, not text; choose a text column"
    )
    (project / "b.parquet").write_bytes(b"PAR1 no")
    assert complaint("parquet", paths=["b.parquet"]) == (
        "corpus.source.paths: b.parquet is not a Parquet file, or is damaged; leave it out or copy it again"
    )


def test_a_parquet_file_with_damaged_pages(project: Path) -> None:
    pq.write_table(pa.table({"text": [f"{n} {n * n}" for n in range(5000)]}), project / "a.parquet", compression="zstd")
    content = bytearray((project / "a.parquet").read_bytes())
    content[200:2000] = bytes(1800)
    (project / "a.parquet").write_bytes(content)
    assert "is not a Parquet file, or is damaged" in complaint("parquet", paths=["a.parquet"])


# --- options --------------------------------------------------------------------------------------------------------


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


def test_lines_that_python_cannot_parse_are_counted_as_no_json(project: Path) -> None:
    rows = ['{"text": "one"}', "[" * 100_000, '{"n": ' + "9" * 5000 + "}", '{"text": "two"}']
    (project / "a.jsonl").write_text("\n".join(rows))
    found = source("jsonl", paths=["a.jsonl"])
    assert [d.text for d in found.documents()] == ["one", "two"]
    assert found.skipped["not JSON"] == 2


# Named: a gzip file holds the second of its making, and the two workers would collect two names of one test.
@pytest.mark.parametrize(
    "content",
    [b"plain text", gzip.compress(b'{"text": "one"}\n' * 1000, mtime=0)[:-20]],
    ids=["plain text", "cut off"],
)
def test_an_incomplete_gzip_file_is_named(project: Path, content: bytes) -> None:
    (project / "a.jsonl.gz").write_bytes(content)
    assert "a.jsonl.gz is not a complete gzip file" in complaint("jsonl", paths=["a.jsonl.gz"])


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
