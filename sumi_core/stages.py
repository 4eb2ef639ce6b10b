"""The stages of an experiment: what each reads, what it is made from, and how one is computed or found.

A stage's fingerprint is the hash of its code version, the config sections it reads and the fingerprints of its inputs,
so it is known before anything is computed, and equal for every cell that shares the work.
"""

from __future__ import annotations

import functools
import importlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sumi_core.config import Experiment
from sumi_core.data import TOKEN_TABLES
from sumi_core.errors import SumiError
from sumi_core.lineage.fingerprint import canonical_json, fingerprint
from sumi_core.lineage.provenance import provenance
from sumi_core.lineage.store import Artifact, Build, Store
from sumi_core.registry import Registry
from sumi_core.typed import parts_in

if TYPE_CHECKING:
    from sumi_core.lineage.tracking import Tracking


@dataclass(frozen=True)
class Stage:
    """One step from corpus to evaluation. Raise ``version`` whenever its code would give other outputs."""

    name: str
    version: str
    reads: tuple[str, ...]  # sections of the experiment
    inputs: tuple[str, ...]  # stages
    function: str  # "module:function", imported when first computed
    resumable: bool = False  # continues from what an interrupted run left in its folder
    reads_source: bool = False  # from beginning to end, so a source that changes meanwhile spoils the output
    knows_tokens: bool = False  # also takes the stages of the token tables that the experiment's parts are made from


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("corpus", "1", ("corpus",), (), "sumi_core.data.corpus:build_corpus", reads_source=True),
        Stage(
            "tokenizer",
            "1",
            ("tokenizer",),
            ("corpus",),
            "sumi_core.data.tokenization:build_tokenizer",
            reads_source=True,
        ),
        Stage(
            "token_shards",
            "2",
            ("shards",),
            ("corpus", "tokenizer"),
            "sumi_core.data.shards:build_token_shards",
            resumable=True,
        ),
        Stage(
            "token_clusters",
            "1",
            ("clusters",),
            ("tokenizer", "token_shards"),
            "sumi_core.data.clusters.stage:build_token_clusters",
        ),
        Stage(
            "pretrained_denoiser",
            "3",
            ("model", "process", "schedule", "clock", "parameterisation", "objective", "training", "seed"),
            ("tokenizer", "token_shards"),
            "sumi_core.training.stage:build_pretrained_denoiser",
            resumable=True,
            knows_tokens=True,
        ),
        Stage(
            "exported_model",
            "3",
            (),
            ("corpus", "tokenizer", "token_shards", "pretrained_denoiser"),
            "sumi_core.export.stage:build_exported_model",
            knows_tokens=True,
        ),
        Stage(
            "evaluation",
            "6",
            ("evaluation",),
            ("corpus", "tokenizer", "token_shards", "exported_model"),
            "sumi_core.evaluation.stage:build_evaluation",
        ),
    )
}
DATA_STAGES = ("corpus", "tokenizer", "token_shards")
CELL_STAGES = ("token_clusters", "pretrained_denoiser", "exported_model", "evaluation")
OPTIONAL_STAGES = ("token_clusters",)  # only experiments have them whose parts are made from what they measure


def stages_of(experiment: Experiment) -> tuple[str, ...]:
    """The stages that an experiment has, upstream first."""
    wanted = _table_stages(experiment)
    return tuple(name for name in STAGES if name not in OPTIONAL_STAGES or name in wanted)


def stage_inputs(experiment: Experiment, name: str) -> tuple[str, ...]:
    """The stages that a stage of this experiment is made from."""
    stage = STAGES[name]
    more = _table_stages(experiment) if stage.knows_tokens else []
    return (*stage.inputs, *(upstream for upstream in more if upstream not in stage.inputs))


def _table_stages(experiment: Experiment) -> list[str]:
    from sumi_core.parts import needed_tables

    return list(dict.fromkeys(TOKEN_TABLES[table] for table in needed_tables(experiment)))


class Launcher(Protocol):
    """Runs a training process for a request file and returns when it has ended well."""

    def run(self, request: Path) -> None: ...


@dataclass
class StageContext:
    """What a stage function gets: the experiment, whole inputs, and a folder that is its own to write."""

    experiment: Experiment
    key: str
    folder: Path
    inputs: Mapping[str, Artifact]
    launcher: Launcher | None = None
    tracking: Tracking | None = None
    run_id: str | None = None  # the cell's MLflow run
    log: Callable[[str], None] = print
    progress: Callable[[float, float, str, str], None] = lambda done, total, unit, note: None

    @property
    def folders(self) -> dict[str, Path]:
        """The folders of the inputs, by stage."""
        return {name: artifact.folder for name, artifact in self.inputs.items()}


class MissingInput(SumiError, RuntimeError):
    """A stage was asked for before one of its inputs is whole."""


class ChangedSource(SumiError, RuntimeError):
    """Files that were edited while a stage read them: its output would stand under the digest of what they were."""


def stage_identity(experiment: Experiment, name: str, known: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The plain data a stage's fingerprint is the hash of. ``known``: fingerprints that the caller has already, since
    each is the hash of all before it."""
    stage, config = STAGES[name], experiment.identity()
    identity: dict[str, Any] = {
        "stage": name,
        "version": stage.version,
        "config": {section: config[section] for section in stage.reads},
        "inputs": {
            upstream: (known or {}).get(upstream) or stage_fingerprint(experiment, upstream)
            for upstream in stage_inputs(experiment, name)
        },
    }
    if made_from := _made_from(experiment, stage):
        identity["source"] = made_from
    return identity


def _made_from(experiment: Experiment, stage: Stage) -> dict[str, Any]:
    """What the parts that a stage reads are made from beside their options, by key."""
    return {
        key: own
        for key, registry, component in parts_in(Experiment, experiment.to_dict())
        if key.partition(".")[0] in stage.reads and (own := _part_identity(registry, canonical_json(component)))
    }


def stage_fingerprint(experiment: Experiment, name: str) -> str:
    """A stage's name for what would make it, from the config alone."""
    return fingerprint(stage_identity(experiment, name))


def experiment_fingerprints(experiment: Experiment) -> dict[str, str]:
    """The fingerprint of every stage that the experiment has."""
    found: dict[str, str] = {}
    for name in stages_of(experiment):
        found[name] = fingerprint(stage_identity(experiment, name, found))
    return found


@functools.lru_cache(maxsize=256)
def _part_identity(registry: Registry[Any], component_json: str) -> dict[str, Any]:
    """What a part is made from beside its options (file digests, versions), read once per process."""
    component = json.loads(component_json)
    if not hasattr(registry.get(component["name"]), "identity"):
        return {}
    identity: dict[str, Any] = registry.from_config(component).identity()
    return identity


def refresh_source_identities() -> None:
    """Look at the sources again: a long-lived process calls this before it plans."""
    _part_identity.cache_clear()


@dataclass
class Computation:
    """How stages are computed in this process: where outputs live, who trains, who watches."""

    store: Store
    launcher: Launcher | None = None
    tracking: Tracking | None = None
    run_id: str | None = None  # the cell's MLflow run
    log: Callable[[str], None] = print
    progress: Callable[[float, float, str, str], None] = lambda done, total, unit, note: None
    provenance: dict[str, Any] = field(default_factory=dict)  # added to every manifest: Dagster and MLflow run ids

    def ensure(self, experiment: Experiment, key: str, name: str) -> tuple[Artifact, bool]:
        """The stage's whole output, computed now if nobody has. Returns it and whether it was found ready.

        Raises MissingInput when an upstream stage is not whole, and whatever the stage function raises; the partial
        folder of a resumable stage stays for the next attempt.
        """
        stage = STAGES[name]
        identity = stage_identity(experiment, name)
        own = fingerprint(identity)
        inputs = {upstream: self._input(experiment, key, name, upstream) for upstream in stage_inputs(experiment, name)}
        with self.store.building(name, own, resumable=stage.resumable, log=self.log) as build:
            if build.artifact is not None:
                return build.artifact, True
            try:
                return self._compute(experiment, key, stage, identity, inputs, build), False
            except Exception as error:
                told = str(error) if isinstance(error, SumiError) else f"{type(error).__name__}: {error}"
                self.store.record_failure(name, own, key, told)
                raise

    def whole(self, experiment: Experiment, name: str) -> Artifact | None:
        """The stage's output if it is whole."""
        return self.store.find(name, stage_fingerprint(experiment, name))

    def ensure_all(self, experiment: Experiment, key: str) -> dict[str, Artifact]:
        """Every stage of an experiment, in order."""
        return {name: self.ensure(experiment, key, name)[0] for name in stages_of(experiment)}

    def _input(self, experiment: Experiment, key: str, name: str, upstream: str) -> Artifact:
        artifact = self.whole(experiment, upstream)
        if artifact is None:
            raise MissingInput(
                f"{name} of '{key}' needs its {upstream}, which is not computed; "
                f"materialize {upstream} first, or let `sumi run {key}` do both"
            )
        return artifact

    def _compute(
        self,
        experiment: Experiment,
        key: str,
        stage: Stage,
        identity: dict[str, Any],
        inputs: dict[str, Artifact],
        build: Build,
    ) -> Artifact:
        module, _, attribute = stage.function.partition(":")
        function = getattr(importlib.import_module(module), attribute)
        started = time.time()
        context = StageContext(
            experiment,
            key,
            build.folder,
            inputs,
            launcher=self.launcher,
            tracking=self.tracking,
            run_id=self.run_id,
            log=self.log,
            progress=self.progress,
        )
        summary = function(context)
        if stage.reads_source:
            refresh_source_identities()
            if _made_from(experiment, stage) != identity.get("source", {}):
                raise ChangedSource(
                    f"what {stage.name} of '{key}' is made from changed while it was read; run it again"
                )
        return build.finish(
            {
                "key": key,
                "identity": identity,
                "experiment": experiment.to_dict(),
                "inputs": {upstream: artifact.fingerprint for upstream, artifact in inputs.items()},
                "summary": summary,
                "started": started,
                "seconds": time.time() - started,
                "provenance": {**provenance(), **self.provenance},
            }
        )
