"""Files of several kinds as one text."""

from __future__ import annotations

import bz2
import gzip
import json
import os
from pathlib import Path

import pandas as pd
import pytest

from sumi_core.data.sources.by_suffix import Files
from sumi_core.data.sources.source import SourceError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"text": "two"}, {"text": " "}, {"text": "three"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.TXT").write_text("one", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text(lines)
    with gzip.open(tmp_path / "c.jsonl.gz", "wt") as file:
        file.write(lines.replace("t", "T").replace("TexT", "text"))
    pd.DataFrame({"text": ["four"]}).to_parquet(tmp_path / "d.parquet")
    return tmp_path


def test_documents_come_in_the_order_of_the_names(folder: Path) -> None:
    files = Files([f"{folder}/*"])
    assert [document.text for document in files.documents()] == ["one", "two", "three", "Two", "Three", "four"]


def test_a_packed_file_is_of_the_kind_that_is_packed(folder: Path) -> None:
    with bz2.open(folder / "e.TXT.BZ2", "wt") as file:
        file.write("five")
    assert [document.text for document in Files([f"{folder}/[ae]*"]).documents()] == ["one", "five"]


def test_the_identity_is_the_content_wherever_it_lies(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    first = Files([f"{folder}/*"]).identity()
    moved = tmp_path_factory.mktemp("moved")
    for path in folder.iterdir():
        os.rename(path, moved / f"x-{path.name}")
    assert Files([f"{moved}/*"]).identity() == first
    assert Files([f"{moved}/*"], column="body").identity() != first
    assert Files([f"{moved}/*.TXT"], column="body").identity() == first[:1], "a text has no columns"
    (moved / "x-a.TXT").write_text("uno")
    assert Files([f"{moved}/*"]).identity() != first


def test_what_cannot_be_read_is_an_error_and_not_left_out(folder: Path) -> None:
    (folder / "b.jsonl").write_text('{"text": "whole"}\n{"text": "cut', encoding="utf-8")
    with pytest.raises(SourceError, match=r"not all of the text can be read: 1 × not JSON \(first: b.jsonl line 2\)"):
        list(Files([f"{folder}/*"]).documents())
    with pytest.raises(SourceError, match=r"there is no file '/none.txt'; name files or globs that exist"):
        Files(["/none.txt"])
    (folder / "e.html").touch()
    with pytest.raises(SourceError, match=r"e.html is not of a kind that is read; name .txt, .jsonl \(packed"):
        Files([f"{folder}/*"])
