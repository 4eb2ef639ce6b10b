"""The exported model that a name means, and the settings it is used with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sumi_core.base.options import ConfigError, component
from sumi_core.base.text import counted
from sumi_core.experiments.modes import modes_of, objectives_of_two_modes
from sumi_core.experiments.resolve import resolve_for
from sumi_core.experiments.schema import Experiment
from sumi_core.lineage.project import Project
from sumi_core.lineage.targets import EXPORT_RECORD, LineageError, Target
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.modes import MODES

if TYPE_CHECKING:
    from torch import Tensor

    from sumi_core.data.tokenizers.tokenizer import Tokenizer
    from sumi_core.experiments.build import Parts
    from sumi_core.sampling.sampler import Sampler


LONGEST = 16  # times the trained length: a text may be as long


def exported_folder(project: Project, target: Target) -> Path:
    """The exported model of ``target``. Raises LineageError when it is not computed."""
    if target.folder is not None and (target.folder / EXPORT_RECORD).is_file():
        return target.folder
    own = target.fingerprints.get("exported_model")
    artifact = project.store.find("exported_model", own) if own else None
    if artifact is None:
        raise LineageError(f"'{target.given}' has no exported model here; run `sumi run {target.request}` first")
    return artifact.folder


def sampled_experiment(project: Project, target: Target, stage: str = "exported_model") -> Experiment | None:
    """The experiment whose sampler, steps and threads apply: that of a named cell, or that of the evaluation behind a
    run or a folder. An export records those of the cell it was first made for, which may be another one. None: only the
    export's own record is known. stage: what it is wanted for; for ``evaluation`` a record with measurements that are
    no longer there is a ConfigError (see ``resolve_for``)."""
    own = target.fingerprints.get("evaluation")
    if target.experiment is not None or own is None:
        return target.experiment
    evaluation = project.store.find("evaluation", own)
    return resolve_for(stage, evaluation.manifest["experiment"], str(evaluation.folder)) if evaluation else None


def sample_length(length: int | None, trained: int, where: str = "command line", dashes: str = "--") -> int:
    """The tokens of a text to write: those that the model was trained on, unless another number is asked for. Raises
    ConfigError for one so far beyond that no model has anything to say there, while the time to write it grows with the
    square."""
    length = trained if length is None else length
    if length > LONGEST * trained:
        more = "" if dashes.endswith(".") else f", or more texts with {dashes}num"  # a condition has no number of texts
        problem = (
            f"{length:,} tokens is more than {LONGEST} times the {trained:,} it was trained on, far beyond where its "
            f"texts decay; write at most {LONGEST * trained:,}{more}"
        )
        raise ConfigError(where, f"{dashes}length", problem)
    return length


def text_ids(
    text: str, tokenizer: Tokenizer, longest: int, where: str = "command line", key: str = "--correct"
) -> Tensor:
    """The tokens of a text to correct, ``[L]``. Raises ConfigError for one of fewer than two tokens or more
    than ``longest``."""
    import torch

    from sumi_core.sampling.conditions import Place, encoded

    ids = torch.tensor(encoded(text, tokenizer, key, Place(where)), dtype=torch.int64)
    if not 2 <= len(ids) <= longest:
        problem = f"has {counted(len(ids), 'token')}; a text to correct has at least 2 and at most {longest:,}"
        raise ConfigError(where, key, problem)
    return ids


def corrector_of(
    experiment: Experiment, parts: Parts, name: str, where: str = "command line", key: str = "--correct"
) -> Sampler:
    """What corrects a finished text of a model: the sampler of its evaluation, if that can, or else
    ``self_correction`` with its defaults.

    Raises ConfigError for a model that writes in an order, and cannot change what stands."""
    if parts.sampler.revises:
        return parts.sampler
    layout = experiment.layout["name"]
    if parts.process is None or layout != "whole":
        how = "token by token" if parts.process is None else f"under layout '{layout}'"
        raise ConfigError(
            where, key, f"{name} writes {how} and changes no finished text; choose a model of whole texts"
        )
    context = {"process": parts.process, "vocabulary": parts.vocabulary, "layout": parts.layout}
    sampler: Sampler = SAMPLERS.from_config(component(SAMPLERS, "self_correction", where, key), **context)
    return sampler


def sampler_of(
    experiment: Experiment,
    parts: Parts,
    mode: str | None,
    name: str,
    where: str = "command line",
    key: str = "--mode",
) -> Sampler:
    """What a model writes with: the sampler of its evaluation, or in a mode the one that writes so, with the options of
    the evaluation's where that is one of the mode. name: of the model, in the refusal.

    Raises ConfigError for a mode that there is not, or that the model has not."""
    if mode is None:
        return parts.sampler
    if mode not in MODES:
        raise ConfigError(where, key, f"no mode is called '{mode}'; one of {', '.join(MODES)}")
    there = [found.name for found in modes_of(experiment)]
    if mode not in there:
        if len(there) == 1:
            problem = (
                f"{name} is trained with objective '{experiment.objective['name']}' for one mode, {there[0]}, in which "
                "it writes anyway; leave the mode out, or train a model with objective: "
            )
            raise ConfigError(where, key, problem + " or ".join(objectives_of_two_modes()))
        raise ConfigError(where, key, f"{name} has no mode {mode}; one of {', '.join(there)}")
    if parts.sampler.mode == mode:
        return parts.sampler
    wanted = component(SAMPLERS, MODES[mode].sampler, where, key)
    context = {"process": parts.process, "vocabulary": parts.vocabulary, "layout": parts.layout}
    sampler: Sampler = SAMPLERS.from_config(wanted, **context)
    return sampler
