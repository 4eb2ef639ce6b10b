"""What an experiment file may hold beside the sections of an Experiment: the keys of its sweep as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from sumi_core.base.options import ConfigError, typed
from sumi_core.base.registry import nearest
from sumi_core.experiments.budget import Budget
from sumi_core.experiments.cron import cron_mistake


@dataclass
class SweepOptions:
    """What a file says of its sweep as a whole, beside its axes and phases."""

    description: Annotated[str, Field(description="one sentence on what is asked")] = ""
    reference: Annotated[
        str | None,
        Field(description="the cells that the others are compared with: labels, or a cell's name, without the seed"),
    ] = None
    contrasts: Annotated[
        list[list[str]],
        Field(description="pairs of such names, [first, second]: the differences that the file is written to settle"),
    ] = field(default_factory=list)
    budget: Budget = field(default_factory=Budget)
    cron: Annotated[
        str | None,
        Field(description="when Dagster looks after the sweep by itself: minute hour day month weekday, UTC"),
    ] = None
    retries: Annotated[
        int, Field(ge=0, le=10, description="how often a failed cell is tried again without being asked")
    ] = 1


_OPTIONS = tuple(option.name for option in fields(SweepOptions))
FILE_KEYS = ("base", "axes", "phases", *_OPTIONS)


def read_options(own: Mapping[str, Any], file: Path, groups: set[str]) -> SweepOptions:
    """What a file says of its sweep, checked; ``reference`` and ``contrasts`` become names of groups. Raises
    ConfigError."""
    where = str(file)
    options: SweepOptions = typed(SweepOptions, {key: own[key] for key in _OPTIONS if own.get(key) is not None}, where)
    kinds = [kind.name for kind in fields(Budget)]
    given = [kind for kind in kinds if getattr(options.budget, kind) is not None]
    if "budget" in own and len(given) != 1:
        expected = f"{', '.join(kinds[:-1])} or {kinds[-1]}"
        raise ConfigError(where, "budget", f"expected {expected}, got {' and '.join(given) or 'neither'}")
    if options.cron is not None and (mistake := cron_mistake(options.cron)):
        raise ConfigError(where, "cron", mistake)
    if options.reference is not None:
        options.reference = _group(options.reference, file, groups, "reference")
    for number, pair in enumerate(options.contrasts):
        key = f"contrasts[{number}]"
        if len(pair) != 2 or pair[0] == pair[1]:
            raise ConfigError(where, key, f"expected the names of two different groups of cells, got {pair}")
        options.contrasts[number] = [_group(name, file, groups, key) for name in pair]
    return options


def _group(name: str, file: Path, groups: set[str], key: str) -> str:
    """The whole name of a group of cells. Raises ConfigError."""
    named = [group for group in groups if name in (group, group.removeprefix(f"{file.stem}."))]
    if not named:
        known = [group.removeprefix(f"{file.stem}.") for group in groups]
        problem = f"no cells are called '{name}', without a seed; {nearest(name, known)}"
        raise ConfigError(str(file), key, problem)
    return named[0]
