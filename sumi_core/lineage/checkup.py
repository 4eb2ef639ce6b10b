"""Looking a project over: versions, databases, artifacts, runs. Each finding is one line and, where safe, a repair.

What resumes by itself, or is merely unfinished, is *info*; what a repair can fix is *warn*; what needs a person, or
makes results wrong, is *bad*. Repairs never delete what took work: damaged outputs are set aside.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sumi_core.base.files import is_writable
from sumi_core.base.options import ConfigError
from sumi_core.base.text import reason_of
from sumi_core.experiments.sweeps import load_sweeps

Level = Literal["ok", "info", "warn", "bad"]
_LOW_DISK, _NO_DISK = 5 << 30, 1 << 30  # bytes
_NO_SQLITE = 1 << 20  # bytes: SQLite shares memory in a file beside a database, even to read it


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ``fix`` mends it and says what it did."""

    level: Level
    area: str
    message: str
    remedy: str = ""
    fix: Callable[[], str] | None = None


# --- versions -------------------------------------------------------------------------------------------------------


def check_versions(root: Path) -> Iterator[Finding]:
    """Installed packages against the ranges of the installed distribution, and against constraints.txt."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        metadata = importlib.metadata.metadata("sumi")
    except importlib.metadata.PackageNotFoundError:
        yield Finding("bad", "versions", "sumi is not installed as a package", "run `pip install -e .` in the checkout")
        return
    wanted = metadata["Requires-Python"]
    python = platform.python_version()
    if not SpecifierSet(wanted).contains(python, prereleases=True):
        yield Finding("bad", "versions", f"python {python} is not {wanted}", f"make a .venv with python {wanted}")
    checked = 0
    for line in metadata.get_all("Requires-Dist") or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        checked += 1
        installed = _version(requirement.name)
        if installed is None:
            yield Finding("bad", "versions", f"{requirement.name} is not installed", "run `pip install -e .` again")
        elif not requirement.specifier.contains(installed, prereleases=True):
            wanted = str(requirement.specifier)
            remedy = f"run `pip install '{requirement.name}{wanted}'`"
            yield Finding("bad", "versions", f"{requirement.name} {installed} is not {wanted}", remedy)
    pins = _pins(root / "constraints.txt")
    other = [
        f"{name} {installed} (pinned {pin})"
        for name, pin in pins.items()
        if (installed := _version(name)) is not None and installed.split("+")[0] != pin.split("+")[0]
    ]
    if other:
        remedy = "harmless if you meant it; `pip install -e . -c constraints.txt` installs the tested versions"
        yield Finding("info", "versions", f"other than the tested versions: {', '.join(other)}", remedy)
    tested = f", {len(pins)} compared with the tested versions of constraints.txt" if pins else ""
    yield Finding("ok", "versions", f"python {python}, {checked} packages compared with what Sumi needs{tested}")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _pins(constraints: Path) -> dict[str, str]:
    """``name==version`` lines; markers and anything else are left out."""
    if not constraints.is_file():
        return {}
    lines = [line.split("#")[0].split(";")[0].strip() for line in constraints.read_text(encoding="utf-8").splitlines()]
    pairs = [line.split("==", 1) for line in lines if "==" in line]
    return {name.strip(): version.strip() for name, version in pairs}


# --- the project's files --------------------------------------------------------------------------------------------


def check_experiments(folder: Path) -> Iterator[Finding]:
    """Every experiment file, loaded and validated."""
    try:
        sweeps = load_sweeps(folder)
    except ConfigError as error:
        yield Finding("bad", "experiments", str(error))
        return
    for broken in sweeps.broken.values():
        yield Finding("bad", "experiments", str(broken))
    cells = sum(len(sweep.cells) for sweep in sweeps.values())
    yield Finding("ok", "experiments", f"{len(sweeps)} files with {cells} cells are valid")


def check_disk(home: Path) -> Iterator[Finding]:
    """Free space where things are computed."""
    there = home if home.exists() else home.parent
    free = shutil.disk_usage(there).free
    message = f"{free / (1 << 30):.1f} GiB free for {home}"
    if free < _NO_DISK:
        yield Finding("bad", "disk", message, "free some space; a full disk ends runs")
    elif free < _LOW_DISK:
        yield Finding("warn", "disk", message, "training writes checkpoints several times the model's size")
    else:
        yield Finding("ok", "disk", message)


def check_writable(home: Path) -> Iterator[Finding]:
    """Whether anything can be computed here at all."""
    if not is_writable(home):
        message = f"{home} cannot be written: nothing can be computed or repaired"
        yield Finding("warn", "disk", message, "fix its permissions, or mount it writable; looking at results works")


def check_sqlite(path: Path, area: str) -> Iterator[Finding]:
    """A database's integrity, and that it names exactly one schema revision, as a clean creation leaves it."""
    remedy = f"move {path} away and run `sumi init` for an empty one, or restore a backup; no artifact is in it"
    # SQLite keeps files beside a database even to read it; where it cannot, no other process writes either.
    address = f"{path.resolve().as_uri()}?mode=ro{'' if is_writable(path.parent) else '&immutable=1'}"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=20)) as database:
            problem = str(database.execute("PRAGMA integrity_check").fetchone()[0])
            tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            heads = 0
            if "alembic_version" in tables:
                heads = database.execute("SELECT count(*) FROM alembic_version").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            yield Finding("info", area, f"{path} is busy and was not looked at", "ask again later")
        elif shutil.disk_usage(path.parent).free < _NO_SQLITE:  # it is whole, perhaps: nothing may be moved away
            yield Finding("bad", area, f"{path} cannot be read while the disk is full", "free some, and look again")
        else:
            yield Finding("bad", area, f"{path} cannot be read: {reason_of(error)}", remedy)
        return
    if problem != "ok":
        yield Finding("bad", area, f"{path} is damaged: {' '.join(problem.split())[:500]}", remedy)
    elif heads == 0:
        yield Finding("bad", area, f"{path} names no schema revision: its creation was cut off", remedy)
    elif heads > 1:
        what = f"{path} names {heads} schema revisions: several processes created it at once"
        yield Finding("bad", area, what, remedy)
