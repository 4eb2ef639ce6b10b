"""Where the project is, and what the paths of its configs mean. Imports nothing of the rest, so that all may ask."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, unquote

_SQLITE = "sqlite:///"
_KEPT = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in "%?#")  # in the address of a file


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


def readable_name(path: Path) -> str:
    """A path as text that UTF-8 can hold: a byte that is not UTF-8 is written ``\\xe9``.

    >>> readable_name(Path("caf\\udce9.txt"))
    'caf\\\\xe9.txt'
    """
    return path.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def sqlite_uri(path: Path) -> str:
    """The address of a database file, whatever characters its path has."""
    return _SQLITE + quote(str(path), safe=_KEPT)


def sqlite_path(uri: str) -> Path | None:
    """The file of a database address; None for a server's."""
    return Path(unquote(uri.removeprefix(_SQLITE))) if uri.startswith(_SQLITE) else None
