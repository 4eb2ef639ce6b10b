"""Names of cells that the command line changed: ``smoke[training.steps=6]``.

What is computed with changes is another experiment than its file, and has a name of its own wherever it is shown. The
section ``runtime`` does not affect results, so names omit it. The order of the changes does not matter; a value
that a name cannot hold (quotes, control characters, one that is too long) stands as ``~`` and the first digits of its
hash, which a project remembers for what was computed under such a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sumi_core.base.hashing import fingerprint

_LONGEST_VALUE, _LONGEST = 60, 150  # characters: MLflow cuts a run's name at 250, and a table has other columns
_CHANGED = re.compile(r"(?P<plain>[^\[\]=]+)\[(?P<changes>[^\[\]=]+=.*)\]", re.DOTALL)
_UNFIT = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029'\"`\\|]|\.\.\."
)  # Dagster refuses some, others are quotes to it or MLflow
_OPENING, _CLOSING = "[{(", "]})"


def deciding_changes(overrides: Iterable[str]) -> tuple[str, ...]:
    """The overrides that decide a result: not those of ``runtime``, of each key the last, in alphabetical order."""
    last = {override.partition("=")[0].strip(): override for override in overrides}
    return tuple(last[key] for key in sorted(last) if not re.match(r"runtime(\.|$)", key))


def change_suffix(overrides: Iterable[str]) -> str:
    """What follows the name of a cell or sweep that is computed with overrides: ``[training.steps=6]``; empty where
    they decide no result."""
    changes = deciding_changes(overrides)
    if not changes:
        return ""
    body = ",".join(_fitting(change) for change in changes)
    if len(body) > _LONGEST:
        body = f"changes=~{fingerprint(list(changes))[:8]}"
    return f"[{body}]"


def _fitting(change: str) -> str:
    key, _, value = change.partition("=")
    unfit = _UNFIT.search(change) or not change.isprintable() or len(value) > _LONGEST_VALUE or value.startswith("~")
    if unfit or value != value.strip() or _split(change) != [change]:
        return f"{key.strip()}=~{fingerprint(value)[:8]}"
    return change


def is_changed_name(text: str) -> bool:
    """Whether a text has the form of such a name, rather than that of a name, a glob or an override."""
    return _CHANGED.fullmatch(text) is not None


def is_override(text: str) -> bool:
    """Whether an argument of the command line is ``key=value`` rather than a name."""
    return "=" in text and not is_changed_name(text)


def split_name(name: str) -> tuple[str, tuple[str, ...]]:
    """The plain name, and the changes as they stand in the brackets; none for a plain name."""
    found = _CHANGED.fullmatch(name)
    return (found["plain"], tuple(_split(found["changes"]))) if found else (name, ())


def is_shortened(changes: Iterable[str]) -> bool:
    """Whether some of the changes in a name stand for values that only a project's memory has."""
    return any(re.search(r"=~[0-9a-f]{8}$", change) for change in changes)


def _split(changes: str) -> list[str]:
    """Cut at the commas outside brackets; brackets that do not match make it one piece with what follows."""
    pieces, depth = [""], 0
    for letter in changes:
        depth += (letter in _OPENING) - (letter in _CLOSING)
        if depth < 0:
            return [changes, ""]
        if letter == "," and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += letter
    return pieces if depth == 0 else [*pieces, ""]
