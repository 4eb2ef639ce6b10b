"""What sources read in JSON lines and Parquet, packed or not, and what they skip or refuse."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sumi_core.data.sources.source import Document
from tests.data.source_files import complaint, documents, lines, source

# --- jsonl ------------------------------------------------------------------------------------------------------------


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


# --- parquet ----------------------------------------------------------------------------------------------------------


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


# --- damage -----------------------------------------------------------------------------------------------------------


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
