"""Where documents come from. A source yields documents, says what they are made from, and counts what it skipped."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class SourceError(ValueError):
    """A source that cannot give documents. One sentence that names the file or key and what to do."""


@dataclass(frozen=True)
class Document:
    """A text with an id that is unique within its source."""

    id: str
    text: str


class Source(ABC):
    """A stream of documents."""

    @dataclass
    class Options:
        """No options."""

    licence: str = "unknown"

    def __init__(self, options: Any) -> None:
        self.options = options
        self.skipped: Counter[str] = Counter()  # reason → documents, filled while iterating

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """Every document, in an order that is the same every time. Raises SourceError."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What the documents are made from, as plain data: versions and digests, never paths or times."""


def project_path(path: str) -> Path:
    """A path of a config: absolute, or relative to the project's folder."""
    from sumi_core.project import Project

    return Path(path) if Path(path).is_absolute() else Project.find().root / path
