"""How stages are computed, or found."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass, field, replace
from typing import Any

from sumi_core.base.errors import SumiError
from sumi_core.base.hashing import fingerprint
from sumi_core.base.progress import Log, Progress, unwatched
from sumi_core.base.provenance import provenance
from sumi_core.experiments.references import StageRef, located, stage_refs
from sumi_core.experiments.schema import Experiment
from sumi_core.stages.base import ChangedSource, Launcher, MissingInput, Stage, StageContext
from sumi_core.stages.identity import (
    STAGES,
    TOKEN_TABLES,
    edited_parts,
    experiment_fingerprints,
    foreign_refs,
    made_from,
    outside_code,
    references_of,
    refresh_source_identities,
    stage_fingerprint,
    stage_identity,
    stage_inputs,
    stage_recipe,
    stages_of,
)
from sumi_core.stages.store import Artifact, Build, Store


@dataclass
class Computation:
    """How stages are computed in this process: where outputs live, who trains, who watches."""

    store: Store
    launcher: Launcher | None = None
    tracking_uri: str | None = None
    run_id: str | None = None  # the cell's MLflow run
    log: Log = print
    progress: Progress = unwatched
    provenance: dict[str, Any] = field(default_factory=dict)  # added to every manifest: Dagster and MLflow run ids

    def ensure(self, experiment: Experiment, key: str, name: str) -> tuple[Artifact, bool]:
        """The stage's whole output, computed now unless it exists. Returns it and whether it was found ready.

        Raises MissingInput when an upstream stage, or an output of another cell that the stage refers to, is not whole,
        and whatever the stage function raises; the partial
        folder of a resumable stage stays for the next attempt.
        """
        stage = STAGES[name]
        identity = stage_identity(experiment, name)
        own = fingerprint(identity)
        if "code" in identity and (edited := edited_parts(experiment, stage)):
            raise ChangedSource(
                f"the code of {' and '.join(edited)} was edited after this process imported it; "
                f"start {name} of '{key}' again"
            )
        inputs = {upstream: self._input(experiment, key, name, upstream) for upstream in stage_inputs(experiment, name)}
        references = {ref.key: self._reference(key, name, ref) for ref in references_of(experiment, name)}
        with self.store.building(name, own, resumable=stage.resumable, log=self.log) as build:
            if build.artifact is not None:
                return build.artifact, True
            try:
                return self._compute(experiment, key, stage, identity, inputs, references, build), False
            except Exception as error:
                told = str(error) if isinstance(error, SumiError) else f"{type(error).__name__}: {error}"
                self.store.record_failure(name, own, key, told)
                raise

    def whole(self, experiment: Experiment, name: str) -> Artifact | None:
        """The stage's output if it is whole."""
        return self.store.find(name, stage_fingerprint(experiment, name))

    def ensure_all(self, experiment: Experiment, key: str) -> dict[str, Artifact]:
        """Every stage of an experiment, in order, after the outputs of other cells that it refers to."""
        for ref in foreign_refs(experiment):
            self.ensure_reference(ref)
        return {name: self.ensure(experiment, key, name)[0] for name in stages_of(experiment)}

    def ensure_reference(self, ref: StageRef) -> Artifact:
        """The output that a reference means, with all that it is made from. What is computed for another cell is not
        logged into this one's MLflow run."""
        found = self.whole(ref.experiment, ref.stage)
        if found is not None:
            return found
        for behind in stage_refs(ref.experiment):
            self.ensure_reference(behind)
        other = replace(self, run_id=None)
        stages = stages_of(ref.experiment)
        made = [other.ensure(ref.experiment, ref.cell, name)[0] for name in stages[: stages.index(ref.stage) + 1]]
        return made[-1]

    def _reference(self, key: str, name: str, ref: StageRef) -> Artifact:
        artifact = self.whole(ref.experiment, ref.stage)
        if artifact is None:
            raise MissingInput(
                f"{name} of '{key}' needs {ref.stage} of '{ref.cell}' ({ref.key}), which is not computed; "
                f"materialize '{ref.cell}' first, or let `sumi run {shlex.quote(key)}` do both"
            )
        return artifact

    def _input(self, experiment: Experiment, key: str, name: str, upstream: str) -> Artifact:
        artifact = self.whole(experiment, upstream)
        if artifact is None:
            raise MissingInput(
                f"{name} of '{key}' needs its {upstream}, which is not computed; "
                f"materialize {upstream} first, or let `sumi run {shlex.quote(key)}` do both"
            )
        return artifact

    def _compute(
        self,
        experiment: Experiment,
        key: str,
        stage: Stage,
        identity: dict[str, Any],
        inputs: dict[str, Artifact],
        references: dict[str, Artifact],
        build: Build,
    ) -> Artifact:
        started = time.time()
        self.log(stage.doing)
        context = StageContext(
            located(
                experiment,
                {key: found.folder for key, found in references.items() if key.partition(".")[0] in stage.reads},
            ),
            key,
            build.folder,
            inputs,
            references,
            tables={
                table: inputs[TOKEN_TABLES[table]].folder
                for table in (experiment.token_tables() if stage.takes_tables else ())
            },
            fingerprints=self._fingerprints(experiment, stage.name),
            recipe=stage_recipe(experiment, stage.name),
            launcher=self.launcher,
            tracking_uri=self.tracking_uri,
            run_id=self.run_id,
            store=self.store,
            provenance=self.provenance,
            log=self.log,
            progress=self.progress,
        )
        summary = stage.run(context)
        if stage.reads_source or "code" in identity:
            refresh_source_identities()
            found = {"source": made_from(experiment, stage), "code": outside_code(experiment, stage)}
            if any(value != identity.get(name, {}) for name, value in found.items()):
                raise ChangedSource(
                    f"what {stage.name} of '{key}' is made from changed while it was read; run it again"
                )
        return build.finish(
            {
                "key": key,
                "identity": identity,
                "experiment": experiment.to_dict(),
                "inputs": {upstream: artifact.fingerprint for upstream, artifact in inputs.items()},
                "references": {
                    ref.key: {"cell": ref.cell, "stage": ref.stage, "fingerprint": references[ref.key].fingerprint}
                    for ref in references_of(experiment, stage.name)
                },
                "summary": summary,
                "started": started,
                "seconds": time.time() - started,
                "provenance": {**provenance(), **self.provenance},
            }
        )

    @staticmethod
    def _fingerprints(experiment: Experiment, name: str) -> dict[str, str]:
        """The fingerprints of the stages up to and including one."""
        names = list(STAGES)
        until = names[: names.index(name) + 1]
        return {stage: own for stage, own in experiment_fingerprints(experiment).items() if stage in until}
