"""The axes of a sweep, expanded: every combination of their labels, with the keys that it sets."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sumi_core.base.options import ConfigError
from sumi_core.experiments.layers import check_keys, merge

MAX_CELLS = 10_000  # of one file: more can only be a slip in its axes
_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+-]*(\.[A-Za-z0-9_+-]+)*")


def expand_axes(axes: Any, file: Path) -> list[tuple[tuple[tuple[str, str], ...], dict[str, Any]]]:
    """Every combination of the axes of ``file``: (axis, label) pairs, and the keys they set. Raises ConfigError."""
    if not isinstance(axes, Mapping) or not axes:
        raise ConfigError(
            str(file), "axes", "expected at least one axis, written as name: [values] or name: {label: {key: value}}"
        )
    choices: list[list[tuple[tuple[str, str], dict[str, Any]]]] = []
    for axis, points in axes.items():
        key = f"axes.{axis}"
        if not isinstance(points, list | Mapping) or not points:
            shown = "nothing" if not points else repr(points)
            raise ConfigError(str(file), key, f"expected at least one value, as in [0, 1], got {shown}")
        if isinstance(points, list):
            settings = [(_value_label(str(axis), value), nest(str(axis), value)) for value in points]
        else:
            settings = [(str(label), _nest_all(keys, file, f"{key}.{label}")) for label, keys in points.items()]
        for label, setting in settings:
            if not _LABEL.fullmatch(label):
                raise ConfigError(
                    str(file), key, f"'{label}' cannot name a cell; use letters, digits, '_', '+', '-' and '.'"
                )
            check_keys(setting, str(file), prefix=f"{key}: ")
        choices.append([((str(axis), label), setting) for label, setting in settings])
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


def _nest_all(keys: Any, file: Path, where: str) -> dict[str, Any]:
    if keys is None:
        return {}
    if not isinstance(keys, Mapping):
        raise ConfigError(
            str(file), where, f"expected the keys this label sets, such as {{process: uniform}}, got {keys!r}"
        )
    return one_layer(nest(str(dotted), value) for dotted, value in keys.items())
