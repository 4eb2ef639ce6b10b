"""A folder of experiment files, and a way to write them."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.config.sweep_files import Write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "experiments"
    made.mkdir()
    return made


@pytest.fixture
def write(folder: Path) -> Write:
    def put(name: str, text: str = "") -> Path:
        file = folder / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        return file

    return put
