"""Experiment files: inheritance through ``base:``, and sweeps whose ``axes:`` expand to cells.

    experiments/demo.yaml
        description: one sentence on what is asked
        base: base/nano-bible            # a file below experiments/, without .yaml; its keys are the defaults
        training: {steps: 500}           # any section of sumi_core.experiments.schema.Experiment
        axes:                            # absent: a plain experiment, which is a sweep of one cell
          method:                        # a free name: labels with the keys each one sets
            uniform: {process: uniform}
            absorbing: {process: absorbing}
          schedule.name: [linear, cosine]   # a config key: the values it takes
          seed: [0, 1, 2]
        reference: uniform.linear        # what others are compared with: labels, or a cell's name, without the seed
        budget: {tokens: 3e6}            # or {flops: 2e13}: what every cell spends; decides training.steps
        cron: "0 3 * * *"                # when Dagster looks after it by itself (sumi_core.experiments.cron)
        retries: 1                       # how often a failed cell is tried again without being asked, 0 to 10

Cells are the product of the axes, named by their labels: ``demo.uniform.linear.s0``. Cells that differ in nothing but
their label on the axis ``seed`` are a group, ``demo.uniform.linear``.

All but the sections are a file's own: none comes from its base. A budget replaces the ``training.steps`` of a base; a
file or an axis that writes both is refused, and so is a cell that whole steps cannot bring within 1 % of it. Whoever
writes training.steps on the command line leaves the budget.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from sumi_core.base.options import ConfigError, typed
from sumi_core.base.registry import nearest
from sumi_core.experiments.axes import expand_axes, one_layer
from sumi_core.experiments.budget import MAX_STEPS, Budget
from sumi_core.experiments.cron import cron_mistake
from sumi_core.experiments.layers import check_keys, expand_presets, merge
from sumi_core.experiments.resolve import resolve
from sumi_core.experiments.schema import Experiment
from sumi_core.experiments.yaml_files import parse_override, read_yaml


@dataclass
class SweepOptions:
    """What a file says of its sweep as a whole, beside its axes."""

    description: Annotated[str, Field(description="one sentence on what is asked")] = ""
    reference: Annotated[
        str | None,
        Field(description="the cells that the others are compared with: labels, or a cell's name, without the seed"),
    ] = None
    budget: Budget = field(default_factory=Budget)
    cron: Annotated[
        str | None,
        Field(description="when Dagster looks after the sweep by itself: minute hour day month weekday, UTC"),
    ] = None
    retries: Annotated[
        int, Field(ge=0, le=10, description="how often a failed cell is tried again without being asked")
    ] = 1


_OPTIONS = tuple(option.name for option in fields(SweepOptions))
FILE_KEYS = ("base", "axes", *_OPTIONS)  # what a file may hold beside the sections of an Experiment
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+-]*")
_LONGEST_NAME = 200  # characters of a base: no file system has much longer ones
_ABSENT = object()
_SEED = "seed"  # the axis whose labels tell the cells of a group apart


@dataclass(frozen=True)
class Cell:
    """One experiment of a sweep. ``key`` is its name everywhere: CLI, Dagster partition, MLflow run."""

    key: str
    sweep: str
    labels: dict[str, str]  # axis → label
    experiment: Experiment
    overrides: tuple[str, ...] = ()  # dotlist given on the command line

    @property
    def group(self) -> str:
        """The key without the seed's label: what it shares with the cells that differ from it in the seed alone."""
        return _key(self.sweep, self.labels, without=_SEED)


@dataclass(frozen=True)
class Sweep:
    """An experiment file, expanded. ``refused`` holds the cells that the given overrides do not fit, and why."""

    name: str
    file: Path
    path: str  # of the file below experiments/, without .yaml: what globs of folders match
    axes: dict[str, list[str]]  # axis → labels
    cells: tuple[Cell, ...] = field(repr=False)
    refused: dict[str, ConfigError] = field(default_factory=dict, repr=False)
    options: SweepOptions = field(default_factory=SweepOptions)

    @property
    def description(self) -> str:
        """One sentence on what is asked."""
        return self.options.description

    @property
    def reference(self) -> str | None:
        """The group that the others are compared with, if the file names one."""
        return self.options.reference

    @property
    def groups(self) -> dict[str, tuple[Cell, ...]]:
        """The cells that differ in their seed alone, by the name they share."""
        found: dict[str, list[Cell]] = {}
        for cell in self.cells:
            found.setdefault(cell.group, []).append(cell)
        return {group: tuple(cells) for group, cells in found.items()}


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
            below = "/" in pattern and fnmatchcase(file.with_suffix("").as_posix(), f"*/{pattern}")
            if below or fnmatchcase(file.stem, pattern) or pattern == file.stem or pattern.startswith(f"{file.stem}."):
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
        if file.relative_to(folder).parts[0] == "base" or not (file.is_file() or file.is_symlink()):
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
        except Exception as error:  # a mistake that nobody foresaw must not hide the other experiments
            broken[file] = ConfigError(str(file), "", f"cannot be read ({type(error).__name__}: {error}); mend it")
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
    points = expand_axes(own["axes"], file) if "axes" in own else [((), {})]
    options = _options(own, file, {_key(file.stem, dict(labels), without=_SEED) for labels, _ in points})
    changes = [_Layer("command line", parse_overrides(overrides))] if overrides else []
    cells: dict[str, Cell] = {}
    refused: dict[str, ConfigError] = {}
    for labels, settings in points:
        key = _key(file.stem, dict(labels))
        if key in cells or key in refused:
            raise ConfigError(str(file), "axes", f"two cells are called '{key}'; give their labels different names")
        layers = [_Layer(str(file), settings), *files]
        if own.get("budget"):
            _refuse_steps(key, layers[:2], str(file))
        experiment = _resolve_within(options.budget, layers)
        if changes:
            try:
                experiment = _resolve_within(options.budget, [*changes, *layers], len(changes))
                _refuse_untrue_labels(key, experiment, settings, [*changes, *layers], options.budget)
            except ConfigError as error:
                refused[key] = error
                continue
        cells[key] = Cell(key, file.stem, dict(labels), experiment, overrides)
    names = list(dict.fromkeys(axis for labels, _ in points for axis, _ in labels))
    axes = {name: list(dict.fromkeys(dict(labels)[name] for labels, _ in points)) for name in names}
    path = file.relative_to(folder).with_suffix("").as_posix()
    return Sweep(file.stem, file, path, axes, tuple(cells.values()), refused, options)


def select_cells(sweeps: Mapping[str, Sweep], patterns: Iterable[str]) -> list[Cell]:
    """The cells that names or globs ask for: a sweep's name, or that of its file as in ``ablations/*``, means all of
    its cells.

    Raises ConfigError when a pattern matches nothing, a broken file, or a cell that the overrides do not fit."""
    every = {cell.key: (sweep, cell) for sweep in sweeps.values() for cell in sweep.cells}
    refused = {key: (sweep, error) for sweep in sweeps.values() for key, error in sweep.refused.items()}
    chosen: dict[str, Cell] = {}
    for pattern in patterns:

        def asked(key: str, sweep: Sweep, pattern: str = pattern) -> bool:
            return any(pattern == name or fnmatchcase(name, pattern) for name in (key, sweep.name, sweep.path))

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
    data = one_layer(parse_override(item, f"command line: {item}") for item in dotlist)
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
        written = {key: value for key, value in layer.data.items() if key not in FILE_KEYS}
        merged = merge(merged, expand_presets(written, layer.where))
    try:
        return resolve(merged, layers[0].where)
    except ConfigError as error:
        raise ConfigError(_writer(layers, error.key), error.key, error.problem) from None


def _resolve_within(budget: Budget, layers: list[_Layer], on_top: int = 0) -> Experiment:
    """Resolve layers with the steps that spend the budget, unless one of the first ``on_top`` writes steps itself."""
    if budget == Budget() or any(_writes(layer, "training.steps") for layer in layers[:on_top]):
        return _resolve_layers(layers)
    where = layers[on_top].where  # the file: what is wrong with a budget is wrong there
    # As many as there may be: the steps of a base are not meant, and must not be too few for the warm-up.
    largest = _resolve_layers([*layers[:on_top], _steps(MAX_STEPS, where), *layers[on_top:]])
    return _resolve_layers([*layers[:on_top], _steps(budget.steps(largest, where), where), *layers[on_top:]])


def _steps(steps: int, where: str) -> _Layer:
    return _Layer(where, {"training": {"steps": steps}})


def _refuse_steps(key: str, layers: list[_Layer], where: str) -> None:
    if any(_writes(layer, "training.steps") for layer in layers):
        problem = f"'{key}' has a budget, which decides its steps; remove training.steps or the budget"
        raise ConfigError(where, "training.steps", problem)


def _writes(layer: _Layer, key: str) -> bool:
    value: Any = layer.data
    for part in key.split("."):
        value = value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT
    return value is not _ABSENT


def _writer(layers: list[_Layer], key: str) -> str:
    """The topmost layer that wrote the key, or else the nearest key around it."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        for layer in layers:
            if _writes(layer, ".".join(parts[:length])):
                return layer.where
    return layers[0].where


def _refuse_untrue_labels(
    key: str, overridden: Experiment, settings: dict[str, Any], layers: list[_Layer], budget: Budget
) -> None:
    """Refuse overrides that undo what a cell's labels say of it."""
    if overridden != _resolve_within(budget, [_Layer("labels", settings), *layers], on_top=2):
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
    if len(str(base)) > _LONGEST_NAME or not parent.is_file():
        known = [str(p.relative_to(folder).with_suffix("")) for p in folder.rglob("*.yaml") if p != file]
        raise ConfigError(str(file), "base", f"there is no {parent}; {nearest(str(base), known)}")
    return [_Layer(str(file), data), *_inherit(parent, folder, (*seen, file))]


def _options(own: Mapping[str, Any], file: Path, groups: set[str]) -> SweepOptions:
    """What a file says of its sweep, checked; ``reference`` becomes the name of the group it means."""
    where = str(file)
    options: SweepOptions = typed(SweepOptions, {key: own[key] for key in _OPTIONS if own.get(key) is not None}, where)
    given = [name for name in ("tokens", "flops") if getattr(options.budget, name) is not None]
    if "budget" in own and len(given) != 1:
        raise ConfigError(where, "budget", f"expected tokens or flops, got {' and '.join(given) or 'neither'}")
    if options.cron is not None and (mistake := cron_mistake(options.cron)):
        raise ConfigError(where, "cron", mistake)
    if options.reference is not None:
        named = [group for group in groups if options.reference in (group, group.removeprefix(f"{file.stem}."))]
        if not named:
            known = [group.removeprefix(f"{file.stem}.") for group in groups]
            problem = f"no cells are called '{options.reference}', without a seed; {nearest(options.reference, known)}"
            raise ConfigError(where, "reference", problem)
        options.reference = named[0]
    return options


def _key(sweep: str, labels: Mapping[str, str], without: str | None = None) -> str:
    return ".".join([sweep, *(label for axis, label in labels.items() if axis != without)])
