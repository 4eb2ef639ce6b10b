"""The axes and phases of a sweep, expanded: every combination of their labels, with the keys that it sets."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sumi_core.base.options import ConfigError
from sumi_core.experiments.layers import check_keys, merge

MAX_CELLS = 10_000  # of one file: more can only be a slip in its axes
PHASE = "phase"  # the axis of a file's phases
_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+-]*(\.[A-Za-z0-9_+-]+)*")


def expand_axes(own: Mapping[str, Any], file: Path) -> list[tuple[tuple[tuple[str, str], ...], dict[str, Any]]]:
    """Every combination of the phases and axes that ``file`` itself writes: (axis, label) pairs, and the keys they
    set; without either, one combination of nothing. Raises ConfigError."""
    choices: list[list[tuple[tuple[str, str], dict[str, Any]]]] = []
    for axis, key, points in _written(own, file):
        if not isinstance(points, list | Mapping) or not points:
            shown = "nothing" if not points else repr(points)
            raise ConfigError(str(file), key, f"expected at least one value, as in [0, 1], got {shown}")
        if isinstance(points, list):
            _refuse_equal(points, str(file), key)
            settings = [(_value_label(axis, value), nest(axis, value), key) for value in points]
        else:
            places = {label: f"{key}.{label}" for label in points}
            settings = [(str(label), _nest_all(points[label], file, place), place) for label, place in places.items()]
        for label, setting, place in settings:
            if not _LABEL.fullmatch(label):
                raise ConfigError(
                    str(file), key, f"'{label}' cannot name a cell; use letters, digits, '_', '+', '-' and '.'"
                )
            check_keys(setting, str(file), prefix=f"{place}: ")
            if key == "phases" and "initialiser" in (setting.get("model") or {}):
                problem = "a phase starts from the one before it; remove model.initialiser, or write it in the file"
                raise ConfigError(str(file), f"{key}.{label}", problem)
        choices.append([((axis, label), setting) for label, setting, _ in settings])
    _refuse_shared_keys(choices, file)
    count = math.prod(map(len, choices))
    if count > MAX_CELLS:
        raise ConfigError(
            str(file), "axes", f"make {count:,} cells, more than {MAX_CELLS:,}; write fewer or split them"
        )
    expanded = []
    for combination in itertools.product(*choices):
        labels = tuple(label for label, _ in combination)
        expanded.append((labels, one_layer(setting for _, setting in combination)))
    return expanded


def _written(own: Mapping[str, Any], file: Path) -> Iterator[tuple[str, str, Any]]:
    """The axes that a file writes, its phases first: name, key, points."""
    if "phases" in own:
        if not isinstance(own["phases"], Mapping) or not own["phases"]:
            problem = f"expected at least one phase, written as name: {{key: value}}, got {own['phases']!r}"
            raise ConfigError(str(file), "phases", problem)
        yield PHASE, "phases", own["phases"]
    if "axes" not in own:
        return
    if not isinstance(own["axes"], Mapping) or not own["axes"]:
        raise ConfigError(
            str(file), "axes", "expected at least one axis, written as name: [values] or name: {label: {key: value}}"
        )
    for axis, points in own["axes"].items():
        if axis == PHASE and "phases" in own:
            raise ConfigError(str(file), f"axes.{axis}", "is the axis that phases make; call this one otherwise")
        yield str(axis), f"axes.{axis}", points


def one_layer(settings: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Keys that are set side by side, merged. A part's name goes below its options, in whatever order they come."""
    leaves = [leaf for setting in settings for leaf in _leaves(setting)]
    merged: dict[str, Any] = {}
    for dotted, value in sorted(leaves, key=lambda leaf: _whole(leaf[0]).count(".")):
        merged = merge(merged, nest(dotted, value))
    return merged


def _refuse_shared_keys(choices: list[list[tuple[tuple[str, str], dict[str, Any]]]], file: Path) -> None:
    """A key that two axes set would have the value of one and the labels of both."""
    written: dict[str, str] = {}
    for points in choices:
        axis = points[0][0][0]
        for key in dict.fromkeys(_whole(key) for _, setting in points for key, _ in _leaves(setting)):
            if key in written:
                problem = f"'{written[key]}' and '{axis}' both set {key}; let one of them do it"
                raise ConfigError(str(file), "axes", problem)
            written[key] = axis


def _leaves(setting: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys that are set, and their values."""
    for key, value in setting.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _whole(key: str) -> str:
    """A part's name is the part itself: ``process.name`` means ``process``."""
    return key.removesuffix(".name")


def _value_label(axis: str, value: Any) -> str:
    """``seed: 3`` → ``s3``; text labels itself; other numbers carry their key: ``learning_rate0.001``."""
    last = axis.rsplit(".", 1)[-1]
    if isinstance(value, Mapping):
        return str(value.get("name", value))
    if isinstance(value, str):
        return value
    return f"{'s' if last == 'seed' else last}{value}"


def nest(dotted: str, value: Any) -> dict[str, Any]:
    """``training.steps``, 3 → ``{training: {steps: 3}}``."""
    for part in reversed(dotted.split(".")):
        value = {part: value}
    return value


def _refuse_equal(values: list[Any], where: str, key: str) -> None:
    """Raise ConfigError for a value that is written twice, as 1e3 and 1_000 would be: two cells would be one."""
    for place, value in enumerate(values):
        for other in values[:place]:
            if _alike(value, other):
                first, second = _as_written(other), _as_written(value)
                alike = f"{second} is written twice" if first == second else f"{first} and {second} are one"
                raise ConfigError(where, key, f"{alike}; remove one of them")


def _as_written(value: Any) -> str:
    """A value in a complaint; what YAML has and Python has not, as YAML writes it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _alike(value: Any, other: Any) -> bool:
    """Whether two values are one, as 0 and "0" are where a key takes a number."""
    if isinstance(value, str) != isinstance(other, str):
        return str(value) == str(other)
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _nest_all(keys: Any, file: Path, where: str) -> dict[str, Any]:
    if keys is None:
        return {}
    if not isinstance(keys, Mapping):
        raise ConfigError(
            str(file), where, f"expected the keys this label sets, such as {{process: uniform}}, got {keys!r}"
        )
    settings = [nest(str(dotted), value) for dotted, value in keys.items()]
    written = [_whole(key) for setting in settings for key, _ in _leaves(setting)]
    for key, count in Counter(written).items():
        if count > 1:
            raise ConfigError(str(file), where, f"the key '{key}' is written twice; remove one of them")
    return one_layer(settings)
