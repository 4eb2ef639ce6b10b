"""What a source is: it yields documents, says what they are made from, and counts what it skipped."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sumi_core.base.errors import SumiError
from sumi_core.base.registry import Part


class SourceError(SumiError, ValueError):
    """A source that cannot give documents. One sentence that names the file or key and what to do."""


@dataclass(frozen=True)
class Document:
    """A text with an id that is unique within its source."""

    id: str
    text: str


class Source(Part, ABC):
    """A stream of documents. A new source is a class with ``read`` and ``identity``, and a line in ``SOURCES``."""

    licence: str = "unknown"

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.skipped: Counter[str] = Counter()  # reason → documents, of the latest iteration
        self.first_skipped: dict[str, str] = {}  # reason → where it was first met

    @abstractmethod
    def read(self) -> Iterator[Document]:
        """Every document, in an order that is the same every time. Raises SourceError."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What the documents are made from, as plain data: versions and digests, never paths or times."""

    def documents(self) -> Iterator[Document]:
        """What ``read`` gives, less texts that cannot be stored or say nothing. Raises SourceError when nothing is
        left."""
        self.skipped.clear()
        self.first_skipped.clear()
        found = 0
        for document in self.read():
            if not document.text.strip():
                self.skip("empty document", document.id)
            elif not _is_unicode(document.text):
                self.skip("lone surrogate, which UTF-8 cannot hold", document.id)
            else:
                found += 1
                yield document
        if not found:
            skipped = "; ".join(f"{count} × {self.describe(reason)}" for reason, count in self.skipped.items())
            raise SourceError(
                f"corpus.source: no document is left to read ({'skipped: ' + skipped if skipped else 'there was none'})"
            )

    def skip(self, reason: str, where: str) -> None:
        """Count something that is not a document, and remember where the first of its kind was."""
        self.skipped[reason] += 1
        self.first_skipped.setdefault(reason, where)

    def describe(self, reason: str) -> str:
        """A reason in words: ``not JSON (first: notes.jsonl line 3)``."""
        return f"{reason} (first: {self.first_skipped[reason]})"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate: JSON can write one, no UTF-8 text can
        return False
    return True
