"""A stack of layers, resolved: what several places write of one experiment, and which of them a complaint names."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sumi_core.base.options import ConfigError
from sumi_core.base.registry import nearest
from sumi_core.experiments.budget import MAX_STEPS, Budget
from sumi_core.experiments.file_keys import FILE_KEYS
from sumi_core.experiments.layers import check_keys, expand_presets, merge
from sumi_core.experiments.resolve import FindCell, interpolates, resolve
from sumi_core.experiments.schema import Experiment
from sumi_core.experiments.yaml_files import read_yaml

_LONGEST_NAME = 200  # characters of a base: no file system has much longer ones
_ABSENT = object()
#: The experiments of the checkout that this code is in; a project elsewhere takes bases from there.
SHIPPED = Path(__file__).resolve().parents[2] / "experiments"


class Layer(NamedTuple):
    """What one place says, and how to name the place in a complaint."""

    where: str
    data: dict[str, Any]


def resolve_layers(layers: list[Layer], find: FindCell) -> Experiment:
    """Merge layers, the first on top, and resolve them. A complaint names the layer that wrote the key."""
    try:
        return _resolved(layers, find)
    except ConfigError as error:
        raise type(error)(_culprit(layers, error, find), error.key, error.problem) from None


def _resolved(layers: list[Layer], find: FindCell) -> Experiment:
    return resolve(_merged(layers), layers[0].where, find)


def _merged(layers: list[Layer]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        written = {key: value for key, value in layer.data.items() if key not in FILE_KEYS}
        merged = merge(merged, expand_presets(written, layer.where))
    return merged


def resolve_within(budget: Budget, layers: list[Layer], find: FindCell, on_top: int = 0) -> Experiment:
    """Resolve layers with the steps that spend the budget, unless one of the first ``on_top`` writes steps itself."""
    if budget == Budget() or any(writes(layer, "training.steps") for layer in layers[:on_top]):
        return resolve_layers(layers, find)
    where = layers[on_top].where  # the file: what is wrong with a budget is wrong there

    def with_steps(steps: int) -> list[Layer]:
        return [*layers[:on_top], Layer(where, {"training": {"steps": steps}}), *layers[on_top:]]

    # As many as there may be: the steps of a base are not meant, and must not be too few for the warm-up.
    with contextlib.suppress(ConfigError):  # what is wrong, and in which layer, is found below
        merged = _merged(with_steps(MAX_STEPS))
        if not interpolates(merged):  # else other keys may follow the steps
            return resolve(merged, layers[0].where, find, lambda largest: budget.steps(largest, where))
    largest = resolve_layers(with_steps(MAX_STEPS), find)
    return resolve_layers(with_steps(budget.steps(largest, where)), find)


def refuse_steps(key: str, layers: list[Layer], where: str) -> None:
    """Raise ConfigError where one of the layers writes the steps that a budget decides."""
    if any(writes(layer, "training.steps") for layer in layers):
        problem = f"'{key}' has a budget, which decides its steps; remove training.steps or the budget"
        raise ConfigError(where, "training.steps", problem)


def writes(layer: Layer, key: str) -> bool:
    value: Any = layer.data
    for part in key.split("."):
        value = value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT
    return value is not _ABSENT


def _culprit(layers: list[Layer], error: ConfigError, find: FindCell) -> str:
    """The layer with which the complaint begins: the topmost that wrote the key if it is wrong by itself, else the one
    above whose other key does not go with it."""
    for start in range(_writer(layers, error.key), 0, -1):
        try:
            _resolved(layers[start:], find)
        except ConfigError as lower:
            if (lower.key, lower.problem) == (error.key, error.problem):
                return layers[start].where
    return layers[0].where


def _writer(layers: list[Layer], key: str) -> int:
    """The number of the topmost layer that wrote the key, or else the nearest key around it."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        for number, layer in enumerate(layers):
            if writes(layer, ".".join(parts[:length])):
                return number
    return 0


def refuse_untrue_labels(
    key: str, overridden: Experiment, settings: dict[str, Any], layers: list[Layer], budget: Budget, find: FindCell
) -> None:
    """Raise ConfigError for overrides that undo what a cell's labels say of it."""
    if overridden != resolve_within(budget, [Layer("labels", settings), *layers], find, on_top=2):
        problem = f"'{key}' is named for a key that these overrides change; choose another cell, or drop the override"
        raise ConfigError("command line", "", problem)


def _base_name(path: Path, folder: Path) -> str:
    """What ``base:`` calls a file of the project, or one that is shipped."""
    root = folder if path.is_relative_to(folder) else SHIPPED
    return path.relative_to(root).with_suffix("").as_posix()


def inherit(
    file: Path, folder: Path, seen: tuple[Path, ...] = (), bases: dict[Path, list[Layer]] | None = None
) -> list[Layer]:
    """The file and its bases, each as it is written. A base that the project does not have is looked for among those
    that come with Sumi. bases: what was read of bases before."""
    if file in seen:
        chain = " → ".join(_base_name(path, folder) for path in (*seen, file))
        raise ConfigError(str(seen[-1]), "base", f"{chain} is a circle; remove one of these bases")
    data = read_yaml(file)
    check_keys(data, str(file), extra=FILE_KEYS)
    base = data.get("base")
    if base is None:
        return [Layer(str(file), data)]
    if not isinstance(base, str):
        raise ConfigError(str(file), "base", f"expected the name of one file below {folder.name}/, got {base!r}")
    parent = folder / f"{base}.yaml"
    if len(base) > _LONGEST_NAME or not parent.is_file():
        shipped = SHIPPED / f"{base}.yaml"
        if base.startswith("base/") and len(base) <= _LONGEST_NAME and shipped.is_file():
            parent = shipped
    if len(base) > _LONGEST_NAME or not parent.is_file():
        files = [*(p for p in folder.rglob("*.yaml") if p != file), *(SHIPPED / "base").glob("*.yaml")]
        known = dict.fromkeys(_base_name(path, folder) for path in files)
        raise ConfigError(str(file), "base", f"there is no {parent}; {nearest(base, known)}")
    bases = {} if bases is None else bases
    if parent not in bases:
        bases[parent] = inherit(parent, folder, (*seen, file), bases)
    return [Layer(str(file), data), *bases[parent]]
