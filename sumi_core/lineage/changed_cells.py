"""What a project remembers of cells that were computed with changes: names, and the overrides behind them.

Dagster loads its partitions from here beside those of the experiment files, and names whose values are shortened are
read by it. The newest are kept: a name that is forgotten loses its partition, and no output.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from sumi_core.base.files import made_folder, write_atomically
from sumi_core.base.locks import locked
from sumi_core.experiments.cells import Cell
from sumi_core.experiments.changed_names import deciding_changes

_KEPT = 50  # each is resolved whenever Dagster loads the project


@dataclass(frozen=True)
class ChangedCell:
    """A cell that was computed with overrides: its name, and the name of its file, its plain name and the overrides."""

    name: str
    sweep: str
    plain: str
    overrides: tuple[str, ...]


class ChangedCells:
    """The changed cells of a project, in the file ``path``; ``locks`` keeps concurrent processes apart."""

    def __init__(self, path: Path, locks: Path) -> None:
        self.path, self.locks = path, locks

    def read(self) -> list[ChangedCell]:
        """Those that are remembered, the oldest first. A file that is damaged remembers none."""
        try:
            records = json.loads(self.path.read_text(encoding="utf-8"))
            return [ChangedCell(r["name"], r["sweep"], r["plain"], tuple(map(str, r["overrides"]))) for r in records]
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return []

    def names(self) -> dict[str, tuple[str, ...]]:
        """Name → overrides, of cells and of their sweeps."""
        found = self.read()
        suffixes = {c.sweep + c.name.removeprefix(c.plain): c.overrides for c in found}
        return {**suffixes, **{changed.name: changed.overrides for changed in found}}

    def remember(self, cells: Iterable[Cell]) -> None:
        """Add the changed ones among cells."""
        new = {
            cell.key: ChangedCell(cell.key, cell.sweep, cell.plain, deciding_changes(cell.overrides))
            for cell in cells
            if cell.change
        }
        if not new:
            return
        made_folder(self.locks)
        with locked(self.locks / "changed-cells.lock"):
            known = [changed for changed in self.read() if changed.name not in new]
            kept = [asdict(changed) for changed in [*known[-_KEPT:], *new.values()]]  # all that is asked for now
            write_atomically(self.path, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
