"""The fingerprints of every shipped cell, written down: a refactoring that changes one would recompute finished work.

A change that means to move them writes the file anew (`python -m tests.test_golden_fingerprints`) and says why in the
CHANGELOG. The Python library's own version is held fixed, since that corpus is whatever the interpreter ships."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

from sumi_core.data.sources.python_stdlib import PythonStdlib
from sumi_core.lineage.project import Project
from sumi_core.stages.identity import experiment_fingerprints, refresh_source_identities

GOLDEN = Path(__file__).parent / "golden" / "fingerprints.json"
ROOT = Path(__file__).parents[1]


def fingerprints() -> dict[str, dict[str, str]]:
    """Cell → stage → fingerprint."""
    refresh_source_identities()
    with patch.object(PythonStdlib, "identity", lambda self: {"python": "golden"}):
        try:
            sweeps = Project(ROOT).sweeps()
            assert not sweeps.broken
            return {
                cell.key: experiment_fingerprints(cell.experiment) for sweep in sweeps.values() for cell in sweep.cells
            }
        finally:
            refresh_source_identities()


def write() -> None:
    """Write the file anew, a line a cell."""
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(found)}" for key, found in sorted(fingerprints().items()))
    GOLDEN.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def test_no_shipped_cell_has_another_fingerprint() -> None:
    golden, found = json.loads(GOLDEN.read_text(encoding="utf-8")), fingerprints()
    assert found.keys() == golden.keys()
    assert {key: own for key, own in found.items() if own != golden[key]} == {}


if __name__ == "__main__":
    write()
