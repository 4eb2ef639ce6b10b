"""Plain data and its fingerprints: a short name for exactly what made an output.

A fingerprint is the hash of canonical JSON. A value that two processes could serialise differently is an error, so a
fingerprint never depends on where or when it was computed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

LENGTH = 16  # hex digits: 64 bits, a collision among a million outputs has probability 3e-8
#: The types of plain data that hold no other.
LEAVES = frozenset((str, int, float, bool, type(None)))
_SETTLED = 2 * 10**9  # ns since the last edit


def canonical_json(value: Any) -> str:
    """The one way to write ``value``: sorted keys, no spaces, no NaN. Raises TypeError for anything but plain data."""
    _refuse_other_than_plain(value, ())
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def fingerprint(value: Any) -> str:
    """Sixteen hex digits that name a piece of plain data."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:LENGTH]


def flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``{"a": {"b": 1}}`` → ``("a.b", 1)``; lists stay whole."""
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, read in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_sha256(path: Path) -> str:
    """``file_sha256``, not read again while size and times stay: servers look at every file of every source, and at
    weights that models start from, each minute."""
    stat = path.stat()
    if time.time_ns() - stat.st_mtime_ns < _SETTLED:  # a clock too coarse could miss a second edit
        return file_sha256(path)
    return _sha256_as_of(path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@functools.lru_cache(maxsize=100_000)
def _sha256_as_of(path: Path, *state: int) -> str:
    return file_sha256(path)


def _refuse_other_than_plain(value: Any, steps: tuple[str, ...]) -> None:
    """steps: the keys and indices that lead to the value, joined only for a complaint."""
    if type(value) in LEAVES:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{_place(steps)} has the key {key!r}; only text keys serialise the same everywhere")
            if type(item) not in LEAVES:
                _refuse_other_than_plain(item, (*steps, f".{key}"))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if type(item) not in LEAVES:
                _refuse_other_than_plain(item, (*steps, f"[{index}]"))
    else:
        raise TypeError(f"{_place(steps)} is a {type(value).__name__}; only plain data can be fingerprinted")


def _place(steps: tuple[str, ...]) -> str:
    return "".join(steps).lstrip(".") or "value"
