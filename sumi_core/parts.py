"""Build the scientific parts of an experiment from its config: schedule, process, objective, sampler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sumi_core.config import Experiment
from sumi_core.corruption import PROCESSES, SCHEDULES
from sumi_core.corruption.process import ForwardProcess
from sumi_core.objectives import OBJECTIVES
from sumi_core.objectives.objective import Objective
from sumi_core.registry import Registry
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.sampler import Sampler


@dataclass(frozen=True)
class Parts:
    """What turns token ids into a loss, a likelihood and samples."""

    process: ForwardProcess | None
    objective: Objective
    sampler: Sampler
    num_tokens: int  # V: tokens a text can contain
    num_states: int  # S: the denoiser's vocabulary, V or V + 1 with a mask


def build(registry: Registry[Any], component: Mapping[str, Any], **context: Any) -> Any:
    """Build a resolved component ``{name, **options}``."""
    options = {key: value for key, value in component.items() if key != "name"}
    return registry.build(component["name"], options, **context)


def build_parts(experiment: Experiment, num_tokens: int, eos_id: int) -> Parts:
    """The parts of an experiment over a vocabulary of ``num_tokens``, one of which ends texts (``eos_id``)."""
    process: ForwardProcess | None = None
    if experiment.process is not None:
        schedule = build(SCHEDULES, experiment.schedule)
        process = build(PROCESSES, experiment.process, num_tokens=num_tokens, schedule=schedule)
    context = {"process": process, "num_tokens": num_tokens, "eos_id": eos_id}
    objective = build(OBJECTIVES, experiment.objective, **context)
    sampler = build(SAMPLERS, experiment.evaluation.sampler, **context)
    return Parts(process, objective, sampler, num_tokens, process.num_states if process else num_tokens)
