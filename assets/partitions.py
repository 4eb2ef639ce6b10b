"""Dagster's partitions: token sets, cells and sweeps, read from the project's experiment files.

Keys are names, not recipes: whether a key's *current* recipe is done follows from its fingerprint, which is the asset's
data version. What `sumi run` computed with changes has partitions of its own, ``smoke[training.steps=6]``, after those
of the files.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TypeVar

from dagster import AssetDep, StaticPartitionMapping, StaticPartitionsDefinition

from sumi_core.base.errors import SumiError
from sumi_core.base.options import ConfigError
from sumi_core.base.registry import nearest
from sumi_core.experiments.sweeps import Cell, Sweep, load_sweep
from sumi_core.experiments.token_sets import changed_token_set_name, token_set_names
from sumi_core.lineage.changed_cells import ChangedCell
from sumi_core.lineage.project import Project
from sumi_core.stages.base import Stage
from sumi_core.stages.identity import stages_of

_PROJECT = Project.find()
_FOUND = _PROJECT.sweeps()
for _error in _FOUND.broken.values():  # they hide no other, and are missed in the web interface
    logging.getLogger("dagster").warning("left out: %s", _error)


def in_order(sweeps: Iterable[Sweep]) -> list[Sweep]:
    """Sweeps as a newcomer looks at them: the demo first, what stands in folders after what does not, the smoke tests
    last."""
    return sorted(sweeps, key=lambda s: (s.name.startswith("smoke"), s.path.count("/"), s.name != "demo", s.path))


def changed(known: Iterable[ChangedCell]) -> tuple[list[Sweep], list[Cell]]:
    """The sweeps and cells behind what was computed with changes, as far as files and changes still go together."""
    loaded: dict[tuple[str, tuple[str, ...]], Sweep | None] = {}
    cells: list[Cell] = []
    for own in known:
        slot = own.sweep, own.overrides
        if own.sweep in _FOUND and slot not in loaded:
            try:
                loaded[slot] = load_sweep(_FOUND[own.sweep].file, _PROJECT.experiments, own.overrides)
            except (SumiError, OSError):
                loaded[slot] = None
        sweep = loaded.get(slot)
        cells += [cell for cell in sweep.cells if cell.key == own.name] if sweep else []
    shown = {cell.sweep_key for cell in cells}
    return [sweep for sweep in loaded.values() if sweep and sweep.key in shown], cells


REMEMBERED = _PROJECT.changed_cells.read()  # at the time of loading
_CHANGED_SWEEPS, _CHANGED_CELLS = changed(REMEMBERED)
_FILE_SWEEPS = in_order(_FOUND.values())
_FILE_CELLS = [cell for sweep in _FILE_SWEEPS for cell in sweep.cells]

SWEEPS_BY_NAME: dict[str, Sweep] = {sweep.key: sweep for sweep in (*_FILE_SWEEPS, *_CHANGED_SWEEPS)}
CELLS_BY_KEY: dict[str, Cell] = {cell.key: cell for cell in (*_FILE_CELLS, *_CHANGED_CELLS)}
TOKEN_SET_OF_CELL: dict[str, str] = token_set_names((cell.key, cell.experiment) for cell in _FILE_CELLS)
_RECIPES = {cell.key: cell.experiment for cell in _FILE_CELLS}
TOKEN_SET_OF_CELL |= {
    cell.key: changed_token_set_name(cell.experiment, _RECIPES, TOKEN_SET_OF_CELL) for cell in _CHANGED_CELLS
}

CELLS = StaticPartitionsDefinition(list(CELLS_BY_KEY))
TOKEN_SETS = StaticPartitionsDefinition(list(dict.fromkeys(TOKEN_SET_OF_CELL.values())))
SWEEPS = StaticPartitionsDefinition(list(SWEEPS_BY_NAME))

_CELL_TO_SWEEP = StaticPartitionMapping({key: cell.sweep_key for key, cell in CELLS_BY_KEY.items()})


def partitions_of(stage: Stage) -> StaticPartitionsDefinition:
    """The partitions of a stage's asset: token sets or cells. One that only some cells have is of those only."""
    if stage.partition == "token_set":
        return TOKEN_SETS
    return StaticPartitionsDefinition(_cells_with(stage)) if stage.optional else CELLS


def _cells_with(stage: Stage) -> list[str]:
    return [key for key, cell in CELLS_BY_KEY.items() if stage.name in stages_of(cell.experiment)]


def dependency(stage: Stage, upstream: Stage) -> AssetDep | str:
    """The dependency of a stage's asset on that of another."""
    if stage.partition == "cell" and upstream.partition == "token_set":
        return _mapped(upstream, _cells_by_token_set(_cells_with(stage) if stage.optional else CELLS_BY_KEY))
    if stage.partition == upstream.partition == "cell" and upstream.optional:
        return _mapped(upstream, {key: [key] for key in _cells_with(upstream)})
    return upstream.name


def _mapped(upstream: Stage, mapping: dict[str, list[str]]) -> AssetDep:
    return AssetDep(upstream.name, partition_mapping=StaticPartitionMapping(mapping))


def _cells_by_token_set(cells: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key in cells:
        found.setdefault(TOKEN_SET_OF_CELL[key], []).append(key)
    return found


def from_cells(asset: str) -> AssetDep:
    """A dependency of a sweep on all of its cells."""
    return AssetDep(asset, partition_mapping=_CELL_TO_SWEEP)


def cell_of_token_set(name: str) -> Cell:
    """Any cell that uses a token set: they agree on everything up to its shards."""
    return next(CELLS_BY_KEY[key] for key, own in TOKEN_SET_OF_CELL.items() if own == name)


_Found = TypeVar("_Found")


def known_partition(key: str, known: Mapping[str, _Found]) -> _Found:
    """What a partition key means. Raises ConfigError for one that was loaded once, and is gone from the files."""
    if key in known:
        return known[key]
    hint = nearest(key, known, show=SWEEPS_BY_NAME)
    problem = f"nothing in the experiment files is called so any more; materialize what it is called now ({hint})"
    raise ConfigError("partition", key, problem)


def refuse_other_name(partition: str, expected: str, found: str, request: str) -> None:
    """Raise ConfigError for overrides that make another thing than the partition is named for."""
    if found != expected:
        problem = f"make {found} of {expected}; run `sumi run {request}`, which gives it a partition of its own"
        raise ConfigError(f"partition {partition}", "overrides", problem)
