"""What MLflow has of a cell: which of its values are params, which figures metrics, and how they are called.

Params are what was decided or given: the configuration, the labels on the axes of the sweep, and figures that no
training changes (the size of the corpus, the number of parameters). Metrics are what came out. Headline metrics have
plain names, which MLflow's search takes without quotes (``metrics.bits_per_byte < 2``) and sorts first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from sumi_core.base.files import json_text
from sumi_core.base.hashing import flatten
from sumi_core.base.options import absent_parts
from sumi_core.base.references import named_references
from sumi_core.experiments.schema import Experiment
from sumi_core.stages import STAGES
from sumi_core.stages.store import Artifact

if TYPE_CHECKING:
    from mlflow.entities import Run

CONSTANTS = "sumi.evaluation.constants"  # a tag: those of another evaluation of the model replace it
NONE = "none"  # what a cell has not
HEADLINE, TRAINING_SECONDS = "bits_per_byte", "training_seconds"


def config_params(experiment: Experiment, labels: Mapping[str, str]) -> dict[str, str]:
    """The configuration that made a model, and where it stands on the axes of its sweep, as params: ``axis.method``,
    ``process.name``. Params cannot be changed, so the section ``evaluation``, which may be another one for the same
    model, is not among them."""
    config = experiment.to_dict()
    absent = absent_parts(Experiment, config)  # one name a param: not ``clock`` beside ``clock.name``
    del config["evaluation"]
    flat = {f"{key}.name" if key in absent else key: text_of(value) for key, value in flatten(named_references(config))}
    # An axis of plain values is one of them, so that MLflow can plot against numbers; of labels, the label.
    axes = {f"axis.{axis}": flat.get(axis, label) for axis, label in labels.items()}
    return {**axes, **flat}


def constants(artifact: Artifact) -> dict[str, float]:
    """The figures of a stage's output that no training changes: ``corpus/train_bytes``, ``parameters``."""
    records = STAGES[artifact.stage].records
    prefix = "" if records.history else f"{artifact.stage}/"
    return {prefix + name: value for name, value in numbers(artifact.summary) if _matches(name, records.constants)}


def metrics(artifact: Artifact) -> dict[str, float]:
    """What came out of a stage: ``bits_per_byte``, ``training_seconds``, ``evaluation/samples.steps_4.distinct_1``."""
    stage = STAGES[artifact.stage]
    found: dict[str, float] = {}
    for name, value in numbers(artifact.summary):
        if not _matches(name, (*stage.records.constants, *stage.records.in_history)):
            plain = stage.records.of_model and "." not in name and name not in _NAMES.values()
            found[_NAMES.get(name, name) if stage.records.history or plain else f"{stage.name}/{name}"] = float(value)
    return found


def text_metrics(summary: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """The likelihood of another text, below a prefix."""
    left_out = STAGES["evaluation"].records.constants
    return {f"{prefix}/{name}": float(value) for name, value in numbers(summary) if not _matches(name, left_out)}


def training_name(name: str) -> str:
    """What a figure of the training is called in MLflow."""
    return _NAMES.get(name, name)


def evaluation_constants(run: Run) -> dict[str, float]:
    """What the evaluation that a run shows was measured beside and on: ``evaluation/yardsticks.xz``."""
    try:
        found: dict[str, float] = json.loads(run.data.tags.get(CONSTANTS, "{}"))
    except ValueError:  # cut, since it is longer than a tag may be
        return {}
    return found


def report_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a sweep's own run: the best method's bits per byte, and how many cells are evaluated."""
    names = {
        HEADLINE: "best_bits_per_byte",
        f"{HEADLINE}_stderr": "best_bits_per_byte_stderr",
        "cells_evaluated": "evaluated",
    }
    return {name: float(summary[key]) for name, key in names.items() if summary.get(key) is not None}


def numbers(summary: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a summary by flattened name; a truth is none."""
    for name, value in flatten(summary):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def text_of(value: Any) -> str:
    """A value of the configuration as a param."""
    return NONE if value is None else value if isinstance(value, str) else json_text(value, None)


#: Figures of the training whose names say too little beside those of other stages.
_NAMES = {
    "seconds": TRAINING_SECONDS,
    "tokens_per_second": "tokens_per_second",
    "peak_memory_bytes": "peak_memory_bytes",
}
