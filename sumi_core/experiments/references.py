"""What an experiment takes from other cells of the project."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sumi_core.base.hashing import canonical_json
from sumi_core.experiments.resolve import resolve_for
from sumi_core.experiments.schema import Experiment, references_in


@dataclass(frozen=True)
class StageRef:
    """The output of a stage of another cell, from which a part of an experiment is made.

    key: of the option that names the cell, such as ``model.initialiser.of``. cell: the other cell's name. experiment:
    its recipe, as it was when the name was looked up."""

    key: str
    cell: str
    experiment: Experiment
    stage: str


def stage_refs(experiment: Experiment) -> tuple[StageRef, ...]:
    """The references of a resolved experiment, its own only: those cells may refer to others in turn."""
    return tuple(
        StageRef(
            key, component[option]["cell"], _experiment(stage, canonical_json(component[option]["experiment"])), stage
        )
        for key, stage, component, option in references_in(experiment.sections())
    )


def located(experiment: Experiment, folders: Mapping[str, Path]) -> Experiment:
    """A copy of an experiment whose references, by key, hold the folder of the output that they mean."""
    experiment = copy.deepcopy(experiment)
    for key, _, component, option in references_in(experiment.sections()):
        if key in folders:
            component[option] = {**component[option], "folder": str(folders[key].resolve())}
    return experiment


def unlocated(experiment: Experiment) -> Experiment:
    """A copy of an experiment whose references hold no folders: what ``located`` was given."""
    experiment = copy.deepcopy(experiment)
    for _, _, component, option in references_in(experiment.sections()):
        component[option] = {key: value for key, value in component[option].items() if key != "folder"}
    return experiment


def ancestors(experiment: Experiment, *, of_model: bool = False) -> list[StageRef]:
    """All references behind an experiment, the most distant first, each output once. of_model: those that its model is
    made from, without those of its evaluation."""
    found: dict[str, StageRef] = {}
    for ref in stage_refs(experiment):
        if of_model and ref.key.startswith("evaluation."):
            continue
        for behind in (*ancestors(ref.experiment, of_model=of_model), ref):
            found.setdefault(canonical_json([behind.stage, behind.experiment.recipe()]), behind)
    return list(found.values())


@functools.lru_cache(maxsize=1024)
def _experiment(stage: str, plain: str) -> Experiment:
    """A recorded experiment, of which the output of ``stage`` is meant. Every plan of every cell looks at it; it is not
    to be changed."""
    data: dict[str, Any] = json.loads(plain)
    return resolve_for(stage, data, "the recipe of a cell that is referred to")
