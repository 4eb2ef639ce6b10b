"""What an experiment is: a typed record from which every stage is computed.

An experiment has sections (``corpus``, ``model``, ``training`` …), each declared beside the code that reads it.
Sections that name a registered part are *components*: ``process: uniform`` or ``process: {name: clustered, late: 2}``;
the keys beside ``name`` are the part's own ``Options``.

Two kinds of fields: *identity* fields decide what comes out and enter the fingerprints; the ``runtime`` section
(device, threads, cadence of logs and checkpoints) says how it is computed and never does. Upper limits are set where
anything beyond can only be a slip of the keyboard.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from sumi_core.base.options import MAX_SEED, marked, part, parts_in, plain_data
from sumi_core.corruption import CLOCKS, PARAMETERISATIONS, PROCESSES, SCHEDULES
from sumi_core.data import CLUSTERINGS, TOKENIZERS
from sumi_core.data.config import CorpusConfig, ShardsConfig
from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.layouts import LAYOUTS
from sumi_core.models.config import ModelConfig
from sumi_core.objectives import OBJECTIVES
from sumi_core.training.config import RuntimeConfig, TrainingConfig

#: Sections that came later, with the value under which nothing is otherwise than before: it stands in no recipe, so
#: that what was computed without them keeps its fingerprint; options of a part that came later still are left out.
UNSAID: Mapping[str, Mapping[str, Any]] = {"layout": {"name": "whole"}}


@dataclass
class Experiment:
    """One experiment (a cell of a sweep), resolved. Component sections are dicts ``{name, **options}``."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    tokenizer: Annotated[Any, Field(description="text to token ids and back")] = part(TOKENIZERS, "byte")
    shards: ShardsConfig = field(default_factory=ShardsConfig)
    clusters: Annotated[Any, Field(description="how tokens are clustered, for processes that use clusters")] = part(
        CLUSTERINGS, "surface"
    )
    model: ModelConfig = field(default_factory=ModelConfig)
    process: Annotated[Any, Field(description="how clean tokens become noise; null for objectives without noise")] = (
        part(PROCESSES, "uniform", optional=True)
    )
    schedule: Annotated[Any, Field(description="share of signal at each time; null where there is no process")] = part(
        SCHEDULES, "linear", optional=True
    )
    clock: Annotated[Any, Field(description="which positions share a noise level; null where there is no process")] = (
        part(CLOCKS, "shared", optional=True)
    )
    parameterisation: Annotated[
        Any, Field(description="what the denoiser's logits mean; null where there is no process")
    ] = part(PARAMETERISATIONS, "leave_one_out", optional=True)
    layout: Annotated[Any, Field(description="how a text is shown to the denoiser: whole, or block by block")] = part(
        LAYOUTS, "whole"
    )
    objective: Annotated[Any, Field(description="what is minimised in training")] = part(OBJECTIVES, "nelbo")
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    seed: Annotated[int, Field(ge=0, le=MAX_SEED, description="of weights, batches and noise of the training")] = 0

    def to_dict(self) -> dict[str, Any]:
        """The resolved experiment as plain data, every default written out."""
        plain: dict[str, Any] = plain_data(self)
        return plain

    def sections(self) -> dict[str, Any]:
        """The sections by name as mappings: not copies, so that what is changed in them changes the experiment."""
        return {name: vars(held) if dataclasses.is_dataclass(held) else held for name, held in vars(self).items()}

    def recipe(self) -> dict[str, Any]:
        """``to_dict`` without what decides no result: the runtime sections, the presets' labels and ``UNSAID``, its own
        and those of the cells that it refers to."""
        return _without_runtime(self.to_dict())

    def method(self) -> dict[str, Any]:
        """``recipe`` without what tells the seeds of one method apart: its own seed, and the seeds and names of the
        cells that it refers to."""
        return _without_seeds(self.recipe())

    def identity(self) -> dict[str, Any]:
        """``recipe`` as fingerprints hold it: without the places where parts find what they are made from, whose
        content their own identity tells, without later options that have their defaults, and without references, which
        enter as the fingerprints they stand for."""
        data = self.recipe()
        _leave_out_later(ModelConfig, data["model"])
        for _, registry, found in parts_in(Experiment, data):
            for option, _ in marked(registry.options(found["name"]), "location"):
                del found[option]
            _leave_out_later(registry.options(found["name"]), found)
        return data

    def token_tables(self) -> tuple[str, ...]:
        """The token tables that the experiment's parts are built from: a number per token that a stage writes."""
        found = parts_in(Experiment, self.sections())
        return tuple(dict.fromkeys(table for _, registry, own in found for table in registry.get(own["name"]).tables))


def references_in(data: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """The options that refer to another cell (``sumi_core.base.references``) in an experiment's sections: the option's
    key, the stage whose output it means, and the component that holds it with the option's name there."""
    for key, registry, component in parts_in(Experiment, data):
        if len(component) == 1:  # its name
            continue
        for option, stage in marked(registry.options(component["name"]), "stage_ref"):
            yield f"{key}.{option}", stage, component, option


def _without_runtime(data: dict[str, Any]) -> dict[str, Any]:
    del data["runtime"]
    del data["model"]["preset"]
    for key, registry, held in [*parts_in(Experiment, {name: data[name] for name in UNSAID if name in data})]:
        if (value := UNSAID.get(key)) is not None:
            said = dict(held)
            _leave_out_later(registry.options(held["name"]), said)
            if said == value:
                del data[key]
    for _, _, component, option in references_in(data):
        component[option] = {**component[option], "experiment": _without_runtime(component[option]["experiment"])}
    return data


def _leave_out_later(schema: Any, held: dict[str, Any]) -> None:
    """Delete what came later (``base.options.later``) and has its default, in place."""
    for option, (default,) in marked(schema, "later"):
        if option in held and held[option] == default:
            del held[option]


def _without_seeds(data: dict[str, Any]) -> dict[str, Any]:
    del data["seed"]
    for _, _, component, option in references_in(data):
        component[option] = _without_seeds(component[option]["experiment"])
    return data
