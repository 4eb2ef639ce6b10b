"""Where MLflow's embedded database says that artifacts are. It holds absolute addresses, which point to the old place
once a project is moved or copied: its pages would show no files, and a copy would write into the original."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

_ADDRESSES = {  # table → its column of addresses, and the key of a row
    "experiments": ("artifact_location", "experiment_id"),
    "runs": ("artifact_uri", "run_uuid"),
    "logged_models": ("artifact_location", "model_id"),
}


def follow_move(database: Path, artifacts: Path) -> str | None:
    """Let addresses below a folder of another project that is named as ``artifacts`` (``…/.sumi/mlartifacts/``) point
    below ``artifacts``; other addresses were chosen by somebody and stay. Returns what was changed, in words, or
    None where no run was concerned."""
    moved: dict[str, list[tuple[str, str]]] = {}
    places: dict[str, bool] = {}
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        for table, (column, key) in _ADDRESSES.items():
            rows = _elsewhere(connection, table, column, key, artifacts)
            moved[table] = []
            for row, place, rest in rows:
                if place not in places:
                    places[place] = not _is_same(place, artifacts)
                if places[place]:
                    moved[table].append((f"{artifacts.as_uri()}/{rest}", row))
            connection.executemany(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", moved[table])
    if not moved["runs"]:  # experiments without runs have no artifacts
        return None
    old = " and ".join(unquote(place.removeprefix("file://")) for place, is_other in places.items() if is_other)
    return (
        f"this project was at another place: MLflow's addresses of artifacts, which pointed to {old}, point to "
        f"{artifacts} now ({len(moved['experiments'])} experiments, {len(moved['runs'])} runs)"
    )


def _elsewhere(
    connection: sqlite3.Connection, table: str, column: str, key: str, artifacts: Path
) -> Iterator[tuple[str, str, str]]:
    """Key, folder of artifacts and path below it of each row that does not point below ``artifacts``."""
    own, named = f"{artifacts.as_uri()}/", f"/{artifacts.parent.name}/{artifacts.name}/"
    query = f"SELECT {key}, {column} FROM {table} WHERE instr({column}, ?) > 0 AND instr({column}, ?) != 1"
    with contextlib.suppress(sqlite3.OperationalError):  # an MLflow that has no such table
        for row, address in connection.execute(query, [named, own]).fetchall():
            before, _, rest = address.rpartition(named)
            yield row, f"{before}{named}".rstrip("/"), rest


def _is_same(place: str, artifacts: Path) -> bool:
    """Whether an address is another way to write the folder (through a link)."""
    with contextlib.suppress(OSError):
        return os.path.samefile(unquote(place.removeprefix("file://")), artifacts)
    return False
