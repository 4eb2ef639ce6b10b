"""Merged plain data into a checked experiment: interpolation, presets, types, defaults, rules.

Everything is checked here, before anything is computed, and every complaint is one sentence that names the file, the
key, what is wrong and what to do.
"""

from __future__ import annotations

import contextlib
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sumi_core.base.options import ConfigError, component, plain_data, typed
from sumi_core.base.registry import nearest
from sumi_core.corruption import CLOCKS, PARAMETERISATIONS, SCHEDULES
from sumi_core.experiments.layers import expand_presets
from sumi_core.experiments.rules import check
from sumi_core.experiments.schema import Experiment, references_in
from sumi_core.layouts import LAYOUTS
from sumi_core.models import PRESETS
from sumi_core.objectives import OBJECTIVES
from sumi_core.sampling import SAMPLERS

#: (the name that is written, the option's key, the experiment that refers) → the cell's own name and its experiment.
FindCell = Callable[[str, str, Experiment], tuple[str, Experiment]]

#: What may be left out of a record's section ``evaluation`` for the sake of the others: no model is made from it.
_DISPENSABLE: tuple[tuple[str, ...], ...] = ((), ("measurements", "metrics"), ("measurements", "metrics", "sampler"))
_EVALUATION = "evaluation"  # the section, and the one stage that reads it


def resolve(
    data: Mapping[str, Any],
    where: str,
    find: FindCell | None = None,
    spend: Callable[[Experiment], int] | None = None,
) -> Experiment:
    """Turn merged plain data into a checked Experiment. ``where`` names the file in every complaint. find: looks up
    the cells that are referred to; without it references must be resolved already, as records hold them. spend: the
    steps to take, from the experiment with those of ``data``, which nothing else in ``data`` may follow."""
    plain = _interpolated(expand_presets(data, where), where)
    model = plain.get("model")
    if isinstance(model, dict) and model.get("preset") is not None:
        preset = model["preset"]
        if not isinstance(preset, str) or preset not in PRESETS:
            raise ConfigError(where, "model.preset", f"no preset is called {preset!r}; {nearest(str(preset), PRESETS)}")
        plain["model"] = {**PRESETS[preset], **model}
    experiment: Experiment = typed(Experiment, plain, where)
    warmup = experiment.training.warmup_steps
    _count_warmup(experiment, where)
    around_process = (("schedule", SCHEDULES), ("clock", CLOCKS), ("parameterisation", PARAMETERISATIONS))
    for section, registry in around_process:
        if experiment.process is None:
            setattr(experiment, section, None)  # means nothing without a process, so it must not change a fingerprint
        elif getattr(experiment, section) is None:
            raise ConfigError(
                where,
                section,
                f"process '{experiment.process['name']}' needs a {registry.kind}; one of {', '.join(registry.names())}",
            )
    if experiment.evaluation.sampler is None:  # written out with its options, so that they enter the fingerprint
        objective, layout = OBJECTIVES.get(experiment.objective["name"]), LAYOUTS.get(experiment.layout["name"])
        default = layout.default_sampler or objective.default_sampler
        experiment.evaluation.sampler = component(SAMPLERS, default, where, "evaluation.sampler")
    _link(experiment, where, find)
    check(experiment, where)
    if spend is not None:
        experiment.training.steps, experiment.training.warmup_steps = spend(experiment), warmup
        _count_warmup(experiment, where)
        check(experiment, where)
    return experiment


def _count_warmup(experiment: Experiment, where: str) -> None:
    """Write a warm-up that is a fraction of the steps as steps, in place: that is what it means everywhere."""
    training = experiment.training
    if training.warmup_steps < 1:
        training.warmup_steps = round(training.warmup_steps * training.steps)
    elif training.warmup_steps != int(training.warmup_steps):
        problem = f"expected whole steps or a fraction of them below 1, got {training.warmup_steps:g}"
        raise ConfigError(where, "training.warmup_steps", problem)
    training.warmup_steps = int(training.warmup_steps)


def _link(experiment: Experiment, where: str, find: FindCell | None) -> None:
    """Replace the names of cells that the experiment refers to by ``{cell, experiment}``, in place."""
    for key, stage, part, option in references_in(experiment.sections()):
        written = part[option]
        if written is None or written == "":
            raise ConfigError(where, key, "is missing; write the name of a cell, such as demo.uniform")
        if find is not None and isinstance(written, str):
            cell, found = find(written, key, experiment)
            part[option] = {"cell": cell, "experiment": found.to_dict()}
        elif find is None and isinstance(written, Mapping) and _is_reference(written):
            inner = resolve_for(stage, written["experiment"], f"{where}: {key} ({written['cell']})")
            part[option] = {**written, "experiment": inner.to_dict()}
        else:
            expected = "the name of a cell" if find is not None else "a cell with its resolved experiment"
            raise ConfigError(where, key, f"expected {expected}, got {str(written)[:100]!r}")


def _is_reference(written: Mapping[str, Any]) -> bool:
    return isinstance(written.get("cell"), str) and isinstance(written.get("experiment"), Mapping)


def resolve_recorded(recorded: Mapping[str, Any], where: str) -> Experiment:
    """An experiment as a record holds it. All dimensions are written out there: no preset of today is looked up.

    Raises ConfigError, naming ``where``, for a record that does not fit this version."""
    return resolve({**recorded, "model": {**recorded.get("model", {}), "preset": None}}, where)


def resolve_for(stage: str, recorded: Mapping[str, Any], where: str) -> Experiment:
    """An experiment as a record holds it, for the sake of the output of one of its stages.

    A measurement, a metric or a sampler of the record may be a part from outside that is gone or another one by now.
    Where the section ``evaluation`` cannot be read for it, the defaults of the measurements and metrics, and at last of
    the sampler, are taken: of all stages only the evaluation is made from them, and for that one the record is taken as
    it is. Raises ConfigError, naming ``where``, for a record that does not fit this version in what remains."""
    evaluation = recorded.get(_EVALUATION)
    if stage == _EVALUATION or not isinstance(evaluation, Mapping):
        return resolve_recorded(recorded, where)
    kept = [{key: own for key, own in evaluation.items() if key not in left_out} for left_out in _DISPENSABLE]
    for some in kept[:-1]:
        with contextlib.suppress(ConfigError):
            return resolve_recorded({**recorded, _EVALUATION: some}, where)
    return resolve_recorded({**recorded, _EVALUATION: kept[-1]}, where)


def interpolates(data: Any) -> bool:
    """Whether a value anywhere in plain data is that of another key, as ``${training.steps}`` is."""
    if isinstance(data, Mapping):
        return any(interpolates(value) for value in data.values())
    if isinstance(data, list):
        return any(interpolates(value) for value in data)
    return isinstance(data, str) and "${" in data


def _refuse_resolvers(data: Any, where: str, key: str = "") -> None:
    """An experiment names its own keys only: the environment would leak into records and exports."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            _refuse_resolvers(value, where, f"{key}.{name}".lstrip("."))
    elif isinstance(data, list):
        for value in data:
            _refuse_resolvers(value, where, key)
    elif isinstance(data, str) and re.search(r"\$\{[^}]*:", data):
        raise ConfigError(where, key, f"{data!r} asks a resolver; interpolate keys of the experiment only")


def _interpolated(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Plain data with ``${training.steps}`` and the like replaced by what they name."""
    if not interpolates(data):
        copied: dict[str, Any] = plain_data(dict(data))
        return copied
    _refuse_resolvers(data, where)
    try:
        plain = OmegaConf.to_container(OmegaConf.create(dict(data)), resolve=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or ""
        raise ConfigError(where, str(key), f"{str(error).splitlines()[0]}; correct the interpolation") from None
    assert isinstance(plain, dict)
    return typing.cast(dict[str, Any], plain)
