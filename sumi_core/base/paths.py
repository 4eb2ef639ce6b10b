"""Where the project is, and what the paths of its configs mean. Imports nothing of the rest, so that all may ask."""

from __future__ import annotations

import os
from pathlib import Path


def project_root(start: Path | None = None) -> Path:
    """The folder around ``start``: SUMI_PROJECT, else the nearest folder upwards that holds ``experiments/``."""
    if start is None and (named := os.environ.get("SUMI_PROJECT")):
        return Path(named).resolve()
    here = (start or Path.cwd()).resolve()
    return next((folder for folder in (here, *here.parents) if (folder / "experiments").is_dir()), here)


def project_path(path: str) -> Path:
    """A path of a config: absolute, below the user's home (``~``), or relative to the project's folder."""
    given = Path(path).expanduser()
    return Path(os.path.abspath(given if given.is_absolute() else project_root() / given))
