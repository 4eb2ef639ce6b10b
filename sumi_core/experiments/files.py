"""Experiment files, read and resolved cell by cell, so that a cell may refer to another one, of whatever file."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sumi_core.base.options import ConfigError
from sumi_core.base.registry import nearest
from sumi_core.experiments.axes import PHASE, expand_axes, one_layer
from sumi_core.experiments.cells import SEED, Cell, Sweep, cell_key
from sumi_core.experiments.changed_names import change_suffix
from sumi_core.experiments.file_keys import SweepOptions, read_options
from sumi_core.experiments.layered import Layer, inherit, refuse_steps, refuse_untrue_labels, resolve_within
from sumi_core.experiments.layers import check_keys, merge
from sumi_core.experiments.schema import Experiment, references_in
from sumi_core.experiments.yaml_files import parse_override

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+-]*")
_MEASURED = "evaluation."  # how the keys of options begin that no model is made from
#: What an experiment measures where only its model is meant, whatever its file asks for.
_BARE = {"evaluation": {"measurements": ["likelihood"]}}


class CircleError(ConfigError):
    """Cells that start from each other."""


@dataclass(frozen=True)
class _Reading:
    """An experiment file as it is written, with its bases, and its points: the labels and keys of each cell."""

    file: Path
    layers: list[Layer]
    options: SweepOptions
    points: dict[str, tuple[dict[str, str], dict[str, Any]]]


class ExperimentFiles:
    """The experiment files of a folder under the overrides of one command line. Each is read, and each of its cells
    resolved, when it is first needed. Raises ConfigError for overrides that no experiment could take."""

    def __init__(self, folder: Path, overrides: Iterable[str] = (), written: ExperimentFiles | None = None) -> None:
        self.folder, self.overrides = folder, tuple(overrides)
        self._changes = [Layer("command line", parse_overrides(self.overrides))] if self.overrides else []
        self._readings: dict[Path, _Reading] = written._readings if written else {}
        self._bases: dict[Path, list[Layer]] = {}
        self._cells: dict[str, Cell | ConfigError] = {}
        self._models: dict[str, Experiment] = {}
        self._open: list[str] = []  # the cells that are being resolved, each for the one before
        #: The same files without overrides, and with those that cells of other files are taken with.
        self._written = (written or ExperimentFiles(folder)) if self.overrides else self
        runtime = tuple(o for o in self.overrides if re.match(r"runtime\b", o))
        if runtime == self.overrides:
            self._others = self
        else:
            self._others = ExperimentFiles(folder, runtime, self._written) if runtime else self._written

    def sweep(self, file: Path) -> Sweep:
        """The sweep of a file. Raises ConfigError as ``load_sweep`` does."""
        reading = self._read(file)
        cells: dict[str, Cell] = {}
        refused: dict[str, ConfigError] = {}
        for key in reading.points:
            self._written.cell(reading.file, key)  # what is wrong without overrides is wrong with the file
            try:
                cells[key] = self.cell(reading.file, key)
            except ConfigError as error:
                refused[key] = error
        points = [labels for labels, _ in reading.points.values()]
        names = list(dict.fromkeys(axis for labels in points for axis in labels))
        axes = {name: list(dict.fromkeys(labels[name] for labels in points)) for name in names}
        path = file.relative_to(self.folder).with_suffix("").as_posix()
        return Sweep(file.stem, file, path, axes, tuple(cells.values()), refused, reading.options, self.overrides)

    def cell(self, file: Path, key: str) -> Cell:
        """One cell of a file. Raises ConfigError when it cannot be resolved."""
        if key in self._open:
            chain = " → ".join([*self._open[self._open.index(key) :], key])
            raise CircleError(str(file), "", f"{chain} is a circle; start one of these cells from another")
        if key not in self._cells:
            self._open.append(key)
            try:
                self._cells[key] = self._resolved(self._read(file), key)
            except CircleError:  # each cell of a circle reports it from its own point of view
                raise
            except ConfigError as error:
                self._cells[key] = error
            finally:
                self._open.pop()
        found = self._cells[key]
        if isinstance(found, ConfigError):
            raise found
        return found

    def model(self, file: Path, key: str) -> Experiment:
        """One cell of a file as a model: without what its evaluation takes from other cells, which may be this one.
        Raises ConfigError when it cannot be resolved."""
        if key not in self._models:
            reading = self._read(file)
            budget, where = reading.options.budget, str(file)
            layers = [*self._changes, Layer(where, reading.points[key][1]), *reading.layers]

            def find(name: str, option: str, experiment: Experiment) -> tuple[str, Experiment]:
                found = self._found(file, name, option, experiment)
                return found.key, found.experiment

            bare = [Layer(where, _BARE), *layers]
            self._models[key] = resolve_within(budget, bare, find, 1 + len(self._changes))
        return self._models[key]

    def _read(self, file: Path) -> _Reading:
        if file not in self._readings:
            if not _NAME.fullmatch(file.stem):
                problem = "a file's name names its cells; use letters, digits, '_', '+' and '-'"
                raise ConfigError(str(file), "", problem)
            layers = inherit(file, self.folder, bases=self._bases)
            own = layers[0].data
            points: dict[str, tuple[dict[str, str], dict[str, Any]]] = {}
            for pairs, settings in expand_axes(own, file):
                labels = dict(pairs)
                key = cell_key(file.stem, labels)
                if key in points:
                    problem = f"two cells are called '{key}'; give their labels different names"
                    raise ConfigError(str(file), "axes", problem)
                points[key] = labels, merge(settings, _chain(file.stem, own, labels))
            groups = {cell_key(file.stem, labels, without=SEED) for labels, _ in points.values()}
            self._readings[file] = _Reading(file, layers, read_options(own, file, groups), points)
        return self._readings[file]

    def _resolved(self, reading: _Reading, key: str) -> Cell:
        labels, settings = reading.points[key]
        budget, where = reading.options.budget, str(reading.file)
        layers = [Layer(where, settings), *reading.layers]
        if reading.layers[0].data.get("budget"):
            refuse_steps(key, layers[:2], where)
        parents: dict[str, Cell] = {}

        def find(name: str, option: str, experiment: Experiment) -> tuple[str, Experiment]:
            if option.startswith(_MEASURED):
                found, model, parent = self._asked(reading.file, key, name, option, experiment)
                if parent is not None:
                    parents[option] = parent
                return found, model
            parents[option] = self._found(reading.file, name, option, experiment)
            return parents[option].key, parents[option].experiment

        experiment = resolve_within(budget, [*self._changes, *layers], find, len(self._changes))
        if self._changes:
            refuse_untrue_labels(key, experiment, settings, [*self._changes, *layers], budget, find)
        refs = references_in(experiment.sections()) if parents else ()
        own = (parents[option] for option, *_ in refs if option in parents)
        unique = {(parent.key, parent.overrides): parent for parent in own}
        name = key + change_suffix(self.overrides)
        return Cell(name, reading.file.stem, labels, experiment, self.overrides, tuple(unique.values()))

    def _found(self, file: Path, name: str, option: str, experiment: Experiment) -> Cell:
        """The cell that a reference in ``file`` means by ``name``."""
        with _naming(name, option, self.overrides if name.partition(".")[0] == file.stem else ()):
            target = self._file(name.partition(".")[0], name, option)
            files = self if target == file else self._others
            return files.cell(target, files._named(target, name, option, experiment.seed))

    def _asked(
        self, file: Path, own: str, name: str, option: str, experiment: Experiment
    ) -> tuple[str, Experiment, Cell | None]:
        """The cell that the evaluation of the cell ``own`` of ``file`` means by ``name``: what it is called, its model,
        and itself unless it is ``own``, whose model is there before its evaluation."""
        with _naming(name, option, self.overrides if name.partition(".")[0] == file.stem else ()):
            target = self._file(name.partition(".")[0], name, option)
            # How one model is measured changes no other, whose own evaluation may not even take these overrides.
            measured = all(re.match(r"(evaluation|runtime)\b", override) for override in self.overrides)
            files = self if target == file and not measured else self._others
            key = files._named(target, name, option, experiment.seed, models=True)
            itself = (target, key) == (file, own)
            files = self if itself else files
            model = files.model(target, key)
            return key + change_suffix(files.overrides), model, None if itself else files.cell(target, key)

    def _file(self, sweep: str, name: str, option: str) -> Path:
        files = [
            file for file in sorted(self.folder.rglob("*.yaml")) if file.relative_to(self.folder).parts[0] != "base"
        ]
        found = [file for file in files if file.stem == sweep]
        if len(found) > 1:
            shown = " and ".join(str(file.relative_to(self.folder)) for file in found)
            raise ConfigError("", option, f"'{name}' could be in {shown}; rename one of them")
        if not found:
            known = nearest(sweep, [file.stem for file in files])
            raise ConfigError("", option, f"no experiment is called '{sweep}'; {known}")
        return found[0]

    def _named(self, file: Path, name: str, option: str, seed: int, *, models: bool = False) -> str:
        """The key of the cell in ``file`` that a name means to an experiment of some seed. models: only the cells'
        models are looked at."""
        points = self._read(file).points
        if name in points:
            return name
        group = [key for key, (labels, _) in points.items() if cell_key(file.stem, labels, without=SEED) == name]
        if not group:
            several = [key for key in points if key.startswith(f"{name}.")]
            known = nearest(name, points)
            problem = f"'{name}' has {len(several)} cells ({_few(several)}); name one of them, or a group of seeds"
            raise ConfigError("", option, problem if several else f"no cell is called '{name}'; {known}")
        if len(group) == 1:
            return group[0]
        found = {key: self.model(file, key) if models else self.cell(file, key).experiment for key in group}
        same = [key for key, own in found.items() if own.seed == seed]
        if len(same) != 1:
            problem = f"'{name}' has {len(same) or 'no'} cells of seed {seed} ({_few(group)}); name one of them"
            raise ConfigError("", option, problem)
        return same[0]


@contextlib.contextmanager
def _naming(name: str, option: str, overrides: Iterable[str] = ()) -> Iterator[None]:
    """Complaints about a cell that a reference means become those of the option that refers. overrides: those of the
    command line, where they hold for that cell too."""
    try:
        yield
    except CircleError as error:
        raise CircleError("", option, error.problem) from None
    except ConfigError as error:
        if error.where == "":
            raise
        too = "; overrides hold for this cell too, which is in the same file" if overrides else ""
        raise ConfigError("", option, f"'{name}' cannot be taken, since {error}{too}") from None


def parse_overrides(dotlist: Iterable[str]) -> dict[str, Any]:
    """``["training.steps=10"]`` → ``{"training": {"steps": 10}}``; unknown keys are refused."""
    dotlist = list(dotlist)
    for item in dotlist:
        if "=" not in item:
            raise ConfigError("command line", item, "expected key=value")
    data = one_layer(parse_override(item, f"command line: {item}") for item in dotlist)
    check_keys(data, "command line")
    return data


def _chain(sweep: str, own: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    """What makes a cell start from that of the phase before; nothing for the first, or where there are no phases."""
    phases = [str(phase) for phase in own.get("phases") or ()]
    if PHASE not in labels or not phases or labels[PHASE] == phases[0]:
        return {}
    before = phases[phases.index(labels[PHASE]) - 1]
    return {"model": {"initialiser": {"name": "cell", "of": cell_key(sweep, {**labels, PHASE: before})}}}


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
