"""The cells of sweeps, and their names."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from sumi_core.base.options import ConfigError
from sumi_core.experiments.changed_names import change_suffix, is_shortened, split_name
from sumi_core.experiments.file_keys import SweepOptions
from sumi_core.experiments.schema import Experiment

SEED = "seed"  # the axis whose labels tell the cells of a group apart


@dataclass(frozen=True)
class Cell:
    """One experiment of a sweep. ``key`` is its name everywhere: CLI, Dagster partition, MLflow run. With overrides
    that decide a result it is a name of its own, ``smoke[training.steps=6]``."""

    key: str
    sweep: str  # the name of its file
    labels: dict[str, str]  # axis → label
    experiment: Experiment
    overrides: tuple[str, ...] = ()  # dotlist given on the command line
    parents: tuple[Cell, ...] = field(default=(), repr=False)  # the cells it takes outputs of

    @property
    def change(self) -> str:
        """What its name ends in, ``[training.steps=6]``; empty as its file says."""
        return change_suffix(self.overrides)

    @property
    def plain(self) -> str:
        """Its name as its file says, whatever was changed."""
        return self.key.removesuffix(self.change)

    @property
    def request(self) -> str:
        """What to write after `sumi run` to compute it: the plain name, and what was changed."""
        return shlex.join([self.plain, *self.overrides])

    @property
    def sweep_key(self) -> str:
        """The name of its sweep, with what was changed."""
        return self.sweep + self.change

    @property
    def group(self) -> str:
        """The key without the seed's label: what it shares with the cells that differ from it in the seed alone."""
        return cell_key(self.sweep, self.labels, without=SEED) + self.change


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
    overrides: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its name where it is shown: that of its file, with what was changed, ``smoke[training.steps=6]``."""
        return self.name + change_suffix(self.overrides)

    @property
    def description(self) -> str:
        """One sentence on what is asked."""
        return self.options.description

    @property
    def reference(self) -> str | None:
        """The group that the others are compared with, if the file names one."""
        named = self.options.reference
        return named and named + change_suffix(self.overrides)

    @property
    def contrasts(self) -> tuple[tuple[str, str], ...]:
        """The pairs of groups whose differences the file names, first minus second."""
        suffix = change_suffix(self.overrides)
        return tuple((first + suffix, second + suffix) for first, second in self.options.contrasts)

    @property
    def groups(self) -> dict[str, tuple[Cell, ...]]:
        """The cells that differ in their seed alone, by the name they share."""
        found: dict[str, list[Cell]] = {}
        for cell in self.cells:
            found.setdefault(cell.group, []).append(cell)
        return {group: tuple(cells) for group, cells in found.items()}


class Sweeps(dict[str, Sweep]):
    """Sweeps by name. ``broken`` holds the files that are not valid experiments, and why; the others stay visible."""

    def __init__(
        self,
        sweeps: Mapping[str, Sweep],
        broken: Mapping[Path, ConfigError],
        overrides: tuple[str, ...] = (),
        load: Callable[[tuple[str, ...]], Sweeps] | None = None,
        remembered: Callable[[], Mapping[str, tuple[str, ...]]] = dict,
    ) -> None:
        """load: the same files with other overrides. remembered: the changes behind names with shortened values."""
        super().__init__(sweeps)
        self.broken, self.overrides = dict(broken), overrides
        self._load, self._remembered = load, remembered
        self._changed: dict[tuple[str, ...], Sweeps] = {}

    def read_name(self, name: str) -> tuple[str, Sweeps]:
        """The plain name in a name such as ``smoke[training.steps=6]``, and the sweeps with these changes beside their
        own. Raises ConfigError for changes that no experiment could take, or that are shortened and not remembered:
        they need not be where their own are these changes."""
        plain, changes = split_name(name)
        if changes and name.removeprefix(plain) == change_suffix(self.overrides):
            return plain, self
        if is_shortened(changes):
            known = self._remembered()
            if name not in known:
                problem = (
                    "~ stands for a value that a name cannot hold, and a project remembers those of its newest "
                    f"changed cells only; write {plain}, and after it each key=value"
                )
                raise ConfigError("experiments", name, problem)
            changes = known[name]
        more = tuple(change for change in changes if change not in self.overrides)
        if not more or self._load is None:
            return plain, self
        if more not in self._changed:
            self._changed[more] = self._load((*self.overrides, *more))
        return plain, self._changed[more]

    def of(self, cell: Cell) -> Sweep:
        """The sweep of a cell that was selected here."""
        every = [sweeps[cell.sweep] for sweeps in (self, *self._changed.values()) if cell.sweep in sweeps]
        return next(sweep for sweep in every if sweep.overrides == cell.overrides)

    def refuse_broken(self, pattern: str) -> None:
        """Raise the ConfigError of a broken file if it is what a name or glob asks for. A broken file's cells are not
        known, so whatever begins with its name counts as one of them."""
        for file, error in self.broken.items():
            if file.stem in self:  # such as demo.yml beside demo.yaml: the name means the sound one
                continue
            below = "/" in pattern and fnmatchcase(file.with_suffix("").as_posix(), f"*/{pattern}")
            if below or fnmatchcase(file.stem, pattern) or pattern == file.stem or pattern.startswith(f"{file.stem}."):
                raise error


def cell_key(sweep: str, labels: Mapping[str, str], without: str | None = None) -> str:
    """The name of a cell, or of a group: the labels but for that of the axis ``without``."""
    return ".".join([sweep, *(label for axis, label in labels.items() if axis != without)])


def with_ancestors(cells: Iterable[Cell]) -> list[Cell]:
    """Cells with all that they start from, in an order in which each comes after those."""
    ordered: dict[tuple[str, tuple[str, ...]], Cell] = {}
    for cell in cells:
        for before in (*with_ancestors(cell.parents), cell):
            ordered.setdefault((before.key, before.overrides), before)
    return list(ordered.values())
