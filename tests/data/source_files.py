"""Sources of files by their name in a config, what they read, and what they complain of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sumi_core.data import SOURCES
from sumi_core.data.sources.source import Document, Source, SourceError


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
