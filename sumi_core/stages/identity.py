"""What each stage of an experiment reads and is made from, and the fingerprint that follows.

A stage's fingerprint is the hash of its code version, the config sections it reads and the fingerprints of its inputs,
so it is known before anything is computed, and equal for every cell that shares the work. Outputs of other cells that
its parts refer to are inputs too, by the key of the option that refers.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sumi_core.base.hashing import canonical_json, fingerprint
from sumi_core.base.options import parts_in
from sumi_core.base.outside import look_again
from sumi_core.base.registry import Part, Registry
from sumi_core.experiments.references import StageRef, stage_refs
from sumi_core.experiments.schema import UNSAID, Experiment
from sumi_core.stages import STAGES, TOKEN_TABLES
from sumi_core.stages.base import Stage

_Found = tuple[str, Registry, dict[str, Any]]  # a part of an experiment: key, registry, {name, **options}


def stages_of(experiment: Experiment) -> tuple[str, ...]:
    """The stages that an experiment has, upstream first."""
    return _with_tables(_table_stages(experiment))


def _with_tables(table_stages: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name, stage in STAGES.items() if not stage.optional or name in table_stages)


def stage_inputs(experiment: Experiment, name: str) -> tuple[str, ...]:
    """The stages that a stage of this experiment is made from."""
    return _inputs(STAGES[name], _table_stages(experiment))


def _inputs(stage: Stage, table_stages: Sequence[str]) -> tuple[str, ...]:
    more = table_stages if stage.takes_tables else ()
    return (*stage.inputs, *(upstream for upstream in more if upstream not in stage.inputs))


def _table_stages(experiment: Experiment) -> list[str]:
    return list(dict.fromkeys(TOKEN_TABLES[table] for table in experiment.token_tables()))


def stage_identity(experiment: Experiment, name: str, known: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The plain data a stage's fingerprint is the hash of. ``known``: fingerprints that the caller has already, since
    each is the hash of all before it."""
    return Identities(experiment).of(name, known)


class Identities:
    """What the stages of one experiment are made from. The experiment is read once, and must not change meanwhile."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self._config = experiment.identity()
        self._parts = tuple(parts_in(Experiment, experiment.sections()))
        self._refs = stage_refs(experiment)
        self._table_stages = _table_stages(experiment)
        #: Its stages, upstream first.
        self.stages = _with_tables(self._table_stages)

    def of(self, name: str, known: Mapping[str, str] | None = None) -> dict[str, Any]:
        """``stage_identity`` of one of its stages."""
        stage = STAGES[name]
        identity: dict[str, Any] = {
            "stage": name,
            "version": stage.version,
            "config": _read_of(self._config, stage),
            "inputs": {
                upstream: (known or {}).get(upstream) or fingerprint(self.of(upstream, known))
                for upstream in _inputs(stage, self._table_stages)
            },
        }
        for ref in self._refs:
            if stage.refers(ref.key):
                identity["inputs"][ref.key] = ref_fingerprint(ref)
        own = _read_by(stage, self._parts)
        if source := _made_from(own):
            identity["source"] = source
        if code := _outside_code(own):
            identity["code"] = code
        return identity


def references_of(experiment: Experiment, name: str) -> tuple[StageRef, ...]:
    """The outputs of other cells that a stage of this experiment is made from: those that its parts refer to."""
    return tuple(ref for ref in stage_refs(experiment) if STAGES[name].refers(ref.key))


def foreign_refs(experiment: Experiment) -> list[StageRef]:
    """The references of an experiment, but for those that mean an output of its own: a model may be asked about its own
    texts."""
    refs = stage_refs(experiment)
    own = experiment_fingerprints(experiment) if refs else {}
    return [ref for ref in refs if ref_fingerprint(ref) != own.get(ref.stage)]


def ref_fingerprint(ref: StageRef) -> str:
    """The fingerprint of the output that a reference means."""
    return experiment_fingerprints(ref.experiment)[ref.stage]


def made_from(experiment: Experiment, stage: Stage) -> dict[str, Any]:
    """What the parts that a stage reads are made from beside their options, by key."""
    return _made_from(_read_by(stage, parts_in(Experiment, experiment.to_dict())))


def _made_from(parts: Iterable[_Found]) -> dict[str, Any]:
    return {key: own for key, registry, part in parts if (own := _identity_of(registry, part))}


def _identity_of(registry: Registry, part: Mapping[str, Any]) -> dict[str, Any]:
    kind: type[Part] = registry.get(part["name"])
    version = {} if kind.version == Part.version else {"version": kind.version}
    return version | (_part_identity(registry, canonical_json(part)) if kind.has_identity() else {})


def _read_by(stage: Stage, parts: Iterable[_Found]) -> list[_Found]:
    return [found for found in parts if found[0].partition(".")[0] in stage.reads]


def outside_code(experiment: Experiment, stage: Stage) -> dict[str, dict[str, str]]:
    """Name and digest of the code of those parts that a stage reads and Sumi does not ship, by key."""
    return _outside_code(_read_by(stage, parts_in(Experiment, experiment.to_dict())))


def _outside_code(parts: Iterable[_Found]) -> dict[str, dict[str, str]]:
    return {
        key: {"name": own["name"], "digest": digest}
        for key, registry, own in parts
        if (digest := registry.outside_code(own["name"]))
    }


def edited_parts(experiment: Experiment, stage: Stage) -> list[str]:
    """The parts that a stage reads and whose code was edited after this process imported it: ``process 'zipf'``."""
    return [
        f"{key} '{own['name']}'"
        for key, registry, own in _read_by(stage, parts_in(Experiment, experiment.to_dict()))
        if registry.is_edited(own["name"])
    ]


def stage_recipe(experiment: Experiment, name: str) -> str:
    """A digest of the config that a stage reads, whatever its inputs are."""
    config = experiment.identity()
    return fingerprint(_read_of(config, STAGES[name]))


def _read_of(config: Mapping[str, Any], stage: Stage) -> dict[str, Any]:
    """The sections that a stage reads, those that ``schema.UNSAID`` leaves out not among them."""
    return {section: config[section] for section in stage.reads if section in config or section not in UNSAID}


def stage_fingerprint(experiment: Experiment, name: str) -> str:
    """A stage's name for what would make it, from the config alone."""
    return fingerprint(stage_identity(experiment, name))


def experiment_fingerprints(experiment: Experiment) -> dict[str, str]:
    """The fingerprint of every stage that the experiment has."""
    found: dict[str, str] = {}
    identities = Identities(experiment)
    for name in identities.stages:
        found[name] = fingerprint(identities.of(name, found))
    return found


@functools.lru_cache(maxsize=256)
def _part_identity(registry: Registry, component_json: str) -> dict[str, Any]:
    """What a part is made from beside its options (file digests, versions), read once per process."""
    identity: dict[str, Any] = registry.from_config(json.loads(component_json)).identity()
    return identity


def refresh_source_identities() -> None:
    """Look at the sources, and the code of parts from outside, again: a long-lived process calls this before it
    plans."""
    _part_identity.cache_clear()
    look_again()
