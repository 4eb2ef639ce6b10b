"""The cells of sweeps, and their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from sumi_core.base.options import ConfigError
from sumi_core.experiments.file_keys import SweepOptions
from sumi_core.experiments.schema import Experiment

SEED = "seed"  # the axis whose labels tell the cells of a group apart


@dataclass(frozen=True)
class Cell:
    """One experiment of a sweep. ``key`` is its name everywhere: CLI, Dagster partition, MLflow run."""

    key: str
    sweep: str
    labels: dict[str, str]  # axis → label
    experiment: Experiment
    overrides: tuple[str, ...] = ()  # dotlist given on the command line
    parents: tuple[Cell, ...] = field(default=(), repr=False)  # the cells it takes outputs of

    @property
    def group(self) -> str:
        """The key without the seed's label: what it shares with the cells that differ from it in the seed alone."""
        return cell_key(self.sweep, self.labels, without=SEED)


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
    """Sweeps by name. ``broken`` holds the files that are not valid experiments, and why; the others stay visible."""

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
