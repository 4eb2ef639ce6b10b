"""Dagster's partitions: token sets, cells and sweeps, read from the project's experiment files.

Keys are names, not recipes: whether a key's *current* recipe is done follows from its fingerprint, which is the asset's
data version.
"""

from __future__ import annotations

import logging

from dagster import AssetDep, StaticPartitionMapping, StaticPartitionsDefinition

from sumi_core.experiments.sweeps import Cell, Sweep
from sumi_core.experiments.token_sets import token_set_names
from sumi_core.lineage.project import Project

_FOUND = Project.find().sweeps()
for _error in _FOUND.broken.values():  # they hide no other, and are missed in the web interface
    logging.getLogger("dagster").warning("left out: %s", _error)

SWEEPS_BY_NAME: dict[str, Sweep] = _FOUND
CELLS_BY_KEY: dict[str, Cell] = {cell.key: cell for sweep in SWEEPS_BY_NAME.values() for cell in sweep.cells}
TOKEN_SET_OF_CELL: dict[str, str] = token_set_names((key, cell.experiment) for key, cell in CELLS_BY_KEY.items())

CELLS = StaticPartitionsDefinition(list(CELLS_BY_KEY))
TOKEN_SETS = StaticPartitionsDefinition(sorted(set(TOKEN_SET_OF_CELL.values())))
SWEEPS = StaticPartitionsDefinition(list(SWEEPS_BY_NAME))

_TOKEN_SET_TO_CELLS = StaticPartitionMapping(
    {name: [key for key, own in TOKEN_SET_OF_CELL.items() if own == name] for name in set(TOKEN_SET_OF_CELL.values())}
)
_CELL_TO_SWEEP = StaticPartitionMapping({key: cell.sweep for key, cell in CELLS_BY_KEY.items()})


def from_token_set(asset: str) -> AssetDep:
    """A dependency of a cell on its token set."""
    return AssetDep(asset, partition_mapping=_TOKEN_SET_TO_CELLS)


def from_cells(asset: str) -> AssetDep:
    """A dependency of a sweep on all of its cells."""
    return AssetDep(asset, partition_mapping=_CELL_TO_SWEEP)


def cell_of_token_set(name: str) -> Cell:
    """Any cell that uses a token set: they agree on everything up to its shards."""
    return next(CELLS_BY_KEY[key] for key, own in TOKEN_SET_OF_CELL.items() if own == name)
