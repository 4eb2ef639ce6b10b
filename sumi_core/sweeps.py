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
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sumi_core.config import ConfigError, Experiment, check_keys, merge, resolve
from sumi_core.registry import nearest

FILE_KEYS = ("base", "description", "axes")  # what a file may hold beside the sections of an Experiment
_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+-]*(\.[A-Za-z0-9_+-]+)*")


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
    """An experiment file, expanded."""

    name: str
    file: Path
    description: str
    axes: dict[str, list[str]]  # axis → labels
    cells: tuple[Cell, ...] = field(repr=False)


def load_sweeps(folder: Path, overrides: Iterable[str] = ()) -> dict[str, Sweep]:
    """Every sweep below ``experiments/`` by name, except the files in ``base/``, which only serve others.

    Raises ConfigError for the first file that is wrong, or when two files share a name."""
    if not folder.is_dir():
        raise ConfigError(
            str(folder), "", "there is no experiments folder; run sumi from a project, or name one with --project"
        )
    sweeps: dict[str, Sweep] = {}
    for file in sorted(folder.rglob("*.yaml")):
        if file.relative_to(folder).parts[0] == "base":
            continue
        if file.stem in sweeps:
            raise ConfigError(
                str(file), "", f"the name '{file.stem}' is taken by {sweeps[file.stem].file}; rename one of the files"
            )
        sweeps[file.stem] = load_sweep(file, folder, overrides)
    return sweeps


def load_sweep(file: Path, folder: Path, overrides: Iterable[str] = ()) -> Sweep:
    """Read, inherit, expand and validate one experiment file."""
    overrides = tuple(overrides)
    data = _inherit(file, folder, ())
    description = data.pop("description", "") or ""
    axes = data.pop("axes", None)
    points = _expand(axes, file) if axes is not None else [((), {})]
    cells: dict[str, Cell] = {}
    for labels, settings in points:
        merged = merge(data, settings)
        where = str(file)
        if overrides:
            merged = merge(merged, parse_overrides(overrides))
        key = ".".join([file.stem, *(label for _, label in labels)])
        if key in cells:
            raise ConfigError(str(file), "axes", f"two cells are called '{key}'; give their labels different names")
        cells[key] = Cell(key, file.stem, dict(labels), resolve(merged, where), overrides)
    shown: dict[str, list[str]] = {}
    for cell in cells.values():
        for axis, label in cell.labels.items():
            if label not in shown.setdefault(axis, []):
                shown[axis].append(label)
    return Sweep(file.stem, file, str(description), shown, tuple(cells.values()))


def select_cells(sweeps: Mapping[str, Sweep], patterns: Iterable[str]) -> list[Cell]:
    """The cells that names or globs ask for: a sweep's name means all of its cells. Raises ConfigError on no match."""
    chosen: dict[str, Cell] = {}
    every = [cell for sweep in sweeps.values() for cell in sweep.cells]
    for pattern in patterns:
        found = [
            c
            for c in every
            if c.sweep == pattern or c.key == pattern or fnmatchcase(c.key, pattern) or fnmatchcase(c.sweep, pattern)
        ]
        if not found:
            raise ConfigError(
                "experiments",
                pattern,
                f"no experiment or cell has this name; {nearest(pattern, [*sweeps, *(c.key for c in every)])}",
            )
        chosen.update((cell.key, cell) for cell in found)
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
    try:
        data = OmegaConf.to_container(OmegaConf.from_dotlist(dotlist))
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError("command line", " ".join(dotlist), str(error).splitlines()[0]) from None
    assert isinstance(data, dict)
    check_keys(data, "command line")
    return data  # type: ignore[return-value]


# --- reading --------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key written twice and reads ``1e-3`` as a number."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key '{key}' is written twice", key_node.start_mark
            )
        seen.add(key)
    return dict(loader.construct_mapping(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9][0-9_]*)(\.[0-9_]*)?([eE][-+]?[0-9]+)$"),
    list("-+0123456789"),
)


def _read(file: Path) -> dict[str, Any]:
    try:
        data = _Loader(file.read_text(encoding="utf-8")).get_single_data()  # a SafeLoader: plain data only
    except FileNotFoundError:
        raise ConfigError(str(file), "", "no such file") from None
    except UnicodeDecodeError:
        raise ConfigError(str(file), "", "not UTF-8 text; save the file as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}" if mark else "somewhere"
        raise ConfigError(str(file), line, f"not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(str(file), "", f"expected a mapping of sections, got {type(data).__name__}")
    check_keys(data, str(file), extra=FILE_KEYS)
    return data


def _inherit(file: Path, folder: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if file in seen:
        raise ConfigError(str(file), "base", f"inherits from itself through {' → '.join(p.stem for p in seen)}")
    data = _read(file)
    base = data.pop("base", None)
    if base is None:
        return data
    parent = folder / f"{base}.yaml"
    if not parent.is_file():
        known = [str(p.relative_to(folder).with_suffix("")) for p in folder.rglob("*.yaml")]
        raise ConfigError(str(file), "base", f"there is no {parent}; {nearest(str(base), known)}")
    inherited = _inherit(parent, folder, (*seen, file))
    inherited.pop("description", None)
    inherited.pop("axes", None)
    return merge(inherited, data)


def _expand(axes: Any, file: Path) -> list[tuple[tuple[tuple[str, str], ...], dict[str, Any]]]:
    if not isinstance(axes, Mapping) or not axes:
        raise ConfigError(
            str(file), "axes", "expected at least one axis, written as name: [values] or name: {label: {key: value}}"
        )
    choices: list[list[tuple[tuple[str, str], dict[str, Any]]]] = []
    for axis, points in axes.items():
        key = f"axes.{axis}"
        if not points or not isinstance(points, list | Mapping):
            raise ConfigError(str(file), key, "is empty; list at least one value, or remove the axis")
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
