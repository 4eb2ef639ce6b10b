"""All readings of the models of a comparison in one table: exact figures and bounds of one model beside each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sumi_core.base.statistics import mean_estimate
from sumi_core.base.text import with_error
from sumi_core.objectives import OBJECTIVES
from sumi_core.reports.row import Row

if TYPE_CHECKING:
    from sumi_core.experiments.schema import Experiment

PREFIX = "reading."
INITIAL = "initial."
READINGS = (
    "readings: the likelihoods that one model has. `autoregressive` is exact (=), `blocks_n` is the bound (≤) of "
    "blocks of n tokens, each given the clean text before it, `diffusion` that of whole texts. Cells are ranked by "
    "their bits per byte, which are one of these; of two bounds the smaller one need not be of the better model. "
    "At step 0: of the weights that the training began with."
)
_EXACT = ("autoregressive",)
_STDERR = "_stderr"


def reported_reading(experiment: Experiment) -> str:
    """The name of the reading that a model is ranked by."""
    own = experiment.objective
    return str(OBJECTIVES.get(own["name"]).reported_reading(own, experiment.to_dict()))


def readings_differ(rows: Sequence[Row]) -> bool:
    """Whether rows are ranked by more than one reading."""
    return len({row.reading for row in rows if row.bits_per_byte is not None and row.reading}) > 1


def mean_readings(members: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over seeds of the readings that all have, and √(documents² + seeds²) as their errors, ``<name>_stderr``."""
    if not members:
        return {}
    found: dict[str, float] = {}
    for name in members[0]:
        if name.endswith(_STDERR) or any(name not in own for own in members):
            continue
        mean = mean_estimate([own[name] for own in members])
        documents = math.fsum(own.get(name + _STDERR, math.nan) for own in members) / len(members)
        error = documents if math.isnan(mean.stderr) else math.hypot(documents, mean.stderr)
        found |= {name: mean.value, **({} if math.isnan(error) else {name + _STDERR: error})}
    return found


def reading_rows(rows: Sequence[Row]) -> list[dict[str, str]]:
    """A row for each method that was read in several ways, a column for each reading."""
    return _rows({row.name: row.readings for row in rows if row.readings})


def initial_rows(rows: Sequence[Row]) -> list[dict[str, str]]:
    """The same of the weights that each training began with, for methods where those were read."""
    return _rows({row.name: row.initial_readings for row in rows if row.initial_readings}, " at step 0")


def _rows(read: Mapping[str, Mapping[str, float]], behind: str = "") -> list[dict[str, str]]:
    names = dict.fromkeys(name for own in read.values() for name in own if not name.endswith(_STDERR))
    ordered = sorted(names, key=_order)
    return [{"cell": cell, **{f"{name}{behind}": _shown(own, name) for name in ordered}} for cell, own in read.items()]


def _order(name: str) -> tuple[bool, int, str]:
    """The exact one first, then blocks by their length."""
    length = name.rpartition("_")[2]
    return name not in _EXACT, int(length) if length.isdigit() else 0, name


def _shown(readings: Mapping[str, float], name: str) -> str:
    return with_error(readings.get(name), readings.get(name + _STDERR), "=" if name in _EXACT else "≤")
