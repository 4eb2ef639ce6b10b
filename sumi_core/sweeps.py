"""Experiment files: inheritance through ``base:``, and sweeps whose ``axes:`` expand to cells.

    experiments/demo.yaml
        description: one sentence on what is asked
        base: base/nano-bible            # a file below experiments/, without .yaml; its keys are the defaults
        training: {steps: 500}           # any section of sumi_core.config.Experiment
        axes:                            # absent: a plain experiment, which is a sweep of one cell
          method:                        # a free name: labels with the keys each one sets
            uniform: {process: uniform}
            absorbing: {process: absorbing}
          schedule.name: [linear, cosine]   # a config key: the values it takes
          seed: [0, 1, 2]

Cells are the product of the axes, named by their labels: ``demo.uniform.linear.s0``.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from sumi_core.config import ConfigError, Experiment, check_keys, merge, resolve
from sumi_core.registry import nearest
from sumi_core.typed import typed_value
from sumi_core.yaml_files import parse_yaml, read_yaml

FILE_KEYS = ("base", "description", "axes")  # what a file may hold beside the sections of an Experiment
MAX_CELLS = 10_000  # of one file: more can only be a slip in its axes
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+-]*")
_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+-]*(\.[A-Za-z0-9_+-]+)*")
_ABSENT = object()


@dataclass(frozen=True)
class Cell:
    """One experiment of a sweep. ``key`` is its name everywhere: CLI, Dagster partition, MLflow run."""

    key: str
    sweep: str
    labels: dict[str, str]  # axis → label
    experiment: Experiment
    overrides: tuple[str, ...] = ()  # dotlist given on the command line


@dataclass(frozen=True)
class Sweep:
    """An experiment file, expanded. ``refused`` holds the cells that the given overrides do not fit, and why."""

    name: str
    file: Path
    description: str
    axes: dict[str, list[str]]  # axis → labels
    cells: tuple[Cell, ...] = field(repr=False)
    refused: dict[str, ConfigError] = field(default_factory=dict, repr=False)


class Sweeps(dict[str, Sweep]):
    """Sweeps by name. ``broken`` holds the files that are no valid experiment, and why: they hide no other."""

    def __init__(self, sweeps: Mapping[str, Sweep], broken: Mapping[Path, ConfigError]) -> None:
        super().__init__(sweeps)
        self.broken = dict(broken)

    def refuse_broken(self, pattern: str) -> None:
        """Raise the ConfigError of a broken file if it is what a name or glob asks for. A broken file's cells are not
        known, so whatever begins with its name counts as one of them."""
        for file, error in self.broken.items():
            if file.stem in self:  # such as demo.yml beside demo.yaml: the name means the sound one
                continue
            if fnmatchcase(file.stem, pattern) or pattern == file.stem or pattern.startswith(f"{file.stem}."):
                raise error


def load_sweeps(folder: Path, overrides: Iterable[str] = ()) -> Sweeps:
    """Every sweep below ``experiments/`` by name, except the files in ``base/``, which only serve others.

    A file that is wrong is put aside in ``broken``, and so are files that share a name. Raises ConfigError when there
    is no such folder, or for overrides that no experiment could take."""
    if not folder.is_dir():
        raise ConfigError(
            str(folder), "", "there is no experiments folder; run sumi from a project, or name one in SUMI_PROJECT"
        )
    overrides = tuple(overrides)
    parse_overrides(overrides)  # a mistake in these is no file's
    sweeps: dict[str, Sweep] = {}
    broken: dict[Path, ConfigError] = {}
    by_name: dict[str, Path] = {}
    for file in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]):
        if file.relative_to(folder).parts[0] == "base":
            continue
        try:
            if file.suffix == ".yml":
                raise ConfigError(str(file), "", "experiment files end in .yaml; rename it")
            first = by_name.setdefault(file.stem, file)
            if first != file:  # nobody can tell which of them a name means
                sweeps.pop(file.stem, None)
                taken = f"the name '{file.stem}' is taken by {first}; rename one of the files"
                raise ConfigError(str(file), "", taken)
            sweeps[file.stem] = load_sweep(file, folder, overrides)
        except ConfigError as error:
            broken[file] = error
    return Sweeps(sweeps, broken)


def load_sweep(file: Path, folder: Path, overrides: Iterable[str] = ()) -> Sweep:
    """Read, inherit, expand and validate one experiment file.

    Raises ConfigError for the first mistake in it or its bases. Overrides may fit some cells and not others (a noise
    schedule means nothing to an autoregressive cell), so those they do not fit are put aside in ``refused``."""
    overrides = tuple(overrides)
    if not _NAME.fullmatch(file.stem):
        raise ConfigError(str(file), "", "a file's name names its cells; use letters, digits, '_', '+' and '-'")
    files = _inherit(file, folder, ())
    own = files[0].data
    description = typed_value(str, own.get("description") or "", str(file), "description")
    points = _expand(own["axes"], file) if "axes" in own else [((), {})]
    changes = [_Layer("command line", parse_overrides(overrides))] if overrides else []
    cells: dict[str, Cell] = {}
    refused: dict[str, ConfigError] = {}
    for labels, settings in points:
        key = ".".join([file.stem, *(label for _, label in labels)])
        if key in cells or key in refused:
            raise ConfigError(str(file), "axes", f"two cells are called '{key}'; give their labels different names")
        layers = [_Layer(str(file), settings), *files]
        experiment = _resolve_layers(layers)
        if changes:
            try:
                experiment = _resolve_layers([*changes, *layers])
                _refuse_untrue_labels(key, settings, [*changes, *layers])
            except ConfigError as error:
                refused[key] = error
                continue
        cells[key] = Cell(key, file.stem, dict(labels), experiment, overrides)
    names = list(dict.fromkeys(axis for labels, _ in points for axis, _ in labels))
    axes = {name: list(dict.fromkeys(dict(labels)[name] for labels, _ in points)) for name in names}
    return Sweep(file.stem, file, description, axes, tuple(cells.values()), refused)


def select_cells(sweeps: Mapping[str, Sweep], patterns: Iterable[str]) -> list[Cell]:
    """The cells that names or globs ask for: a sweep's name means all of its cells.

    Raises ConfigError when a pattern matches nothing, a broken file, or a cell that the overrides do not fit."""
    every = {cell.key: (sweep.name, cell) for sweep in sweeps.values() for cell in sweep.cells}
    refused = {key: (sweep.name, error) for sweep in sweeps.values() for key, error in sweep.refused.items()}
    chosen: dict[str, Cell] = {}
    for pattern in patterns:

        def asked(key: str, sweep: str, pattern: str = pattern) -> bool:
            return pattern in (key, sweep) or fnmatchcase(key, pattern) or fnmatchcase(sweep, pattern)

        if isinstance(sweeps, Sweeps):
            sweeps.refuse_broken(pattern)
        for key, (sweep, error) in refused.items():
            if asked(key, sweep):
                raise ConfigError(error.where, error.key, f"{error.problem} (cell {key})")
        found = {key: cell for key, (sweep, cell) in every.items() if asked(key, sweep)}
        if not found:
            known = nearest(pattern, [*sweeps, *every], show=list(sweeps))
            raise ConfigError("experiments", pattern, f"no experiment or cell has this name; {known}")
        chosen |= found
    return list(chosen.values())


def split_arguments(arguments: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """Names and ``key=value`` overrides of one command line. Raises ConfigError when no name is left."""
    arguments = list(arguments)
    names = [argument for argument in arguments if "=" not in argument]
    if not names:
        raise ConfigError("command line", "", "name at least one experiment, cell or glob; `sumi list` shows them")
    return names, tuple(argument for argument in arguments if "=" in argument)


def parse_overrides(dotlist: Iterable[str]) -> dict[str, Any]:
    """``["training.steps=10"]`` → ``{"training": {"steps": 10}}``; unknown keys are refused."""
    dotlist = list(dotlist)
    for item in dotlist:
        if "=" not in item:
            raise ConfigError("command line", item, "expected key=value")
    data: dict[str, Any] = {}
    for item in dotlist:
        key, _, text = item.partition("=")
        data = merge(data, _nest(key, parse_yaml(text, f"command line: {item}")))
    check_keys(data, "command line")
    return data


# --- reading --------------------------------------------------------------------------------------------------------


class _Layer(NamedTuple):
    """What one place says, and how to name the place in a complaint."""

    where: str
    data: dict[str, Any]


def _resolve_layers(layers: list[_Layer]) -> Experiment:
    """Merge layers, the first on top, and resolve them. A complaint names the layer that wrote the key."""
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged = merge(merged, {key: value for key, value in layer.data.items() if key not in FILE_KEYS})
    try:
        return resolve(merged, layers[0].where)
    except ConfigError as error:
        raise ConfigError(_writer(layers, error.key), error.key, error.problem) from None


def _writer(layers: list[_Layer], key: str) -> str:
    """The topmost layer that wrote the key, or else the nearest key around it."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        for layer in layers:
            value: Any = layer.data
            for part in parts[:length]:
                value = value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT
            if value is not _ABSENT:
                return layer.where
    return layers[0].where


def _refuse_untrue_labels(key: str, settings: dict[str, Any], layers: list[_Layer]) -> None:
    """Refuse overrides that undo what a cell's labels say of it."""
    overridden, labelled = _resolve_layers(layers), _resolve_layers([_Layer("labels", settings), *layers])
    if overridden != labelled:
        problem = f"'{key}' is named for a key that these overrides change; choose another cell, or drop the override"
        raise ConfigError("command line", "", problem)


def _inherit(file: Path, folder: Path, seen: tuple[Path, ...]) -> list[_Layer]:
    """The file and its bases, each as it is written."""
    if file in seen:
        chain = " → ".join(str(p.relative_to(folder).with_suffix("")) for p in (*seen, file))
        raise ConfigError(str(seen[-1]), "base", f"{chain} is a circle; remove one of these bases")
    data = read_yaml(file)
    check_keys(data, str(file), extra=FILE_KEYS)
    base = data.get("base")
    if base is None:
        return [_Layer(str(file), data)]
    parent = folder / f"{base}.yaml"
    if not parent.is_file():
        known = [str(p.relative_to(folder).with_suffix("")) for p in folder.rglob("*.yaml") if p != file]
        raise ConfigError(str(file), "base", f"there is no {parent}; {nearest(str(base), known)}")
    return [_Layer(str(file), data), *_inherit(parent, folder, (*seen, file))]


def _expand(axes: Any, file: Path) -> list[tuple[tuple[tuple[str, str], ...], dict[str, Any]]]:
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
            settings = [(_value_label(str(axis), value), _nest(str(axis), value)) for value in points]
        else:
            settings = [(str(label), _nest_all(keys, file, f"{key}.{label}")) for label, keys in points.items()]
        for label, setting in settings:
            if not _LABEL.fullmatch(label):
                raise ConfigError(
                    str(file), key, f"'{label}' cannot name a cell; use letters, digits, '_', '+', '-' and '.'"
                )
            check_keys(setting, str(file), prefix=f"{key}: ")
        choices.append([((str(axis), label), setting) for label, setting in settings])
    count = math.prod(map(len, choices))
    if count > MAX_CELLS:
        raise ConfigError(
            str(file), "axes", f"make {count:,} cells, more than {MAX_CELLS:,}; write fewer or split them"
        )
    expanded = []
    for combination in itertools.product(*choices):
        merged: dict[str, Any] = {}
        for _, setting in combination:
            merged = merge(merged, setting)
        expanded.append((tuple(label for label, _ in combination), merged))
    return expanded


def _value_label(axis: str, value: Any) -> str:
    """``seed: 3`` → ``s3``; text labels itself; other numbers carry their key: ``learning_rate0.001``."""
    last = axis.rsplit(".", 1)[-1]
    if isinstance(value, Mapping):
        return str(value.get("name", value))
    if isinstance(value, str):
        return value
    return f"{'s' if last == 'seed' else last}{value}"


def _nest(dotted: str, value: Any) -> dict[str, Any]:
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
    merged: dict[str, Any] = {}
    for dotted, value in keys.items():
        merged = merge(merged, _nest(str(dotted), value))
    return merged
