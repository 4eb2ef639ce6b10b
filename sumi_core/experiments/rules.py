"""Rules that span the fields of an experiment, and what its parts say of each other."""

from __future__ import annotations

import typing

from sumi_core.base.options import ConfigError, parts_in
from sumi_core.corruption import PROCESSES
from sumi_core.experiments.modes import without_mode
from sumi_core.experiments.schema import Experiment
from sumi_core.layouts import LAYOUTS
from sumi_core.models import ATTENTION_PATTERNS
from sumi_core.objectives import OBJECTIVES
from sumi_core.sampling.suitability import unsuitable


def check(experiment: Experiment, where: str) -> None:
    """Raise ConfigError, naming ``where``, for the first rule that a resolved experiment breaks."""
    model, training = experiment.model, experiment.training

    def refuse(key: str, problem: str) -> typing.NoReturn:
        raise ConfigError(where, key, problem)

    if model.hidden_size % model.num_heads:
        refuse(
            "model.num_heads",
            f"{model.num_heads} heads do not divide hidden_size {model.hidden_size}; choose a divisor",
        )
    if (model.hidden_size // model.num_heads) % 2:
        refuse(
            "model.num_heads",
            f"a head would be {model.hidden_size // model.num_heads} wide; rotary embeddings need an even width",
        )
    if model.num_heads % model.num_kv_heads:
        refuse(
            "model.num_kv_heads",
            f"{model.num_kv_heads} key-value heads do not divide num_heads {model.num_heads}; choose a divisor",
        )
    name = experiment.objective["name"]
    objective = OBJECTIVES.get(name)
    if objective.needs_process and experiment.process is None:
        refuse("process", f"objective '{name}' needs a corruption process; one of {', '.join(PROCESSES.names())}")
    if not objective.needs_process and experiment.process is not None:
        refuse("process", f"objective '{name}' corrupts nothing; write process: null")
    plain = experiment.to_dict()
    for _, registry, own in parts_in(Experiment, plain):
        if found := registry.get(own["name"]).incompatibility(own, plain):
            refuse(*found)
    causal = ATTENTION_PATTERNS.get(model.attention["name"]).causal
    layout = LAYOUTS.get(experiment.layout["name"])
    wanted = objective.causal if layout.causal is None else layout.causal
    if wanted not in (None, causal):
        fitting = [p for p in ATTENTION_PATTERNS.names() if ATTENTION_PATTERNS.get(p).causal == wanted]
        refuse(
            "model.attention",
            f"objective '{name}' cannot train {model.attention['name']} attention; choose {' or '.join(fitting)}",
        )
    if model.time_conditioning != "none" and experiment.process is None:
        refuse("model.time_conditioning", f"objective '{name}' has no noise level to condition on; write none")

    if model.marker and not layout.reads_causally:
        refuse(
            "model.marker",
            f"tells noise from the clean text beside it, and layout '{experiment.layout['name']}' shows none; leave it "
            "out, or write layout: blocks",
        )
    if training.warmup_steps > training.steps:
        refuse(
            "training.warmup_steps",
            f"{training.warmup_steps} warm-up steps exceed training.steps {training.steps}; "
            f"set it to {training.steps} or less too",
        )
    share = training.accumulation * experiment.runtime.devices
    if training.batch_size % share:
        refuse(
            "training.batch_size",
            f"{training.batch_size} sequences cannot be split over {training.accumulation} micro-batches × "
            f"{experiment.runtime.devices} devices; choose a multiple of {share}",
        )
    sampler_name = experiment.evaluation.sampler["name"]
    if problem := unsuitable(sampler_name, plain) or without_mode(experiment):
        refuse("evaluation.sampler", problem)
    if not experiment.evaluation.sampling_steps or min(experiment.evaluation.sampling_steps) < 1:
        refuse("evaluation.sampling_steps", "expected at least one number of steps, each 1 or more")
    if "likelihood" not in [measurement["name"] for measurement in experiment.evaluation.measurements]:
        refuse("evaluation.measurements", "cells are compared by their likelihood; list likelihood too")
