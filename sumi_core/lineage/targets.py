"""What a name means: a cell, an MLflow or Dagster run, a fingerprint, an artifact's folder, an exported model that was
copied elsewhere. Each resolves to the fingerprints of the stages that made it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sumi_core.base.errors import StoreError, SumiError
from sumi_core.base.paths import sqlite_path
from sumi_core.base.registry import nearest
from sumi_core.experiments.changed_names import change_suffix, is_changed_name
from sumi_core.experiments.references import StageRef
from sumi_core.experiments.schema import Experiment
from sumi_core.experiments.sweeps import select_cells
from sumi_core.lineage.mlflow_file import RunAbsent
from sumi_core.lineage.project import Project
from sumi_core.stages import DATA_STAGES, STAGES
from sumi_core.stages.identity import experiment_fingerprints
from sumi_core.stages.measurements import is_measurement
from sumi_core.stages.store import MANIFEST, Artifact, Store, is_manifest

EXPORT_RECORD = "sumi.json"  # what an exported folder says of itself once it has left the store
_RECORDED = ("experiment", "code", "packages", "training", "stock", "inputs")  # mappings of that record
_MLFLOW_RUN = re.compile(r"[0-9a-f]{32}")
_DAGSTER_RUN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHORT_RUN = re.compile(r"[0-9a-f]{8}")  # as Dagster's pages show it
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")


class LineageError(StoreError):
    """Something that cannot be traced. One sentence: what was named, why not, what to do."""


@dataclass(frozen=True)
class Target:
    """What was pointed at: the stages behind it, upstream first, and what is known of it outside the store."""

    given: str
    kind: str  # cell, MLflow run, Dagster run, fingerprint, folder
    key: str  # the cell's name
    fingerprints: dict[str, str]  # stage → fingerprint
    experiment: Experiment | None = None  # of a cell: as its file and the overrides say
    overrides: tuple[str, ...] = ()
    folder: Path | None = None  # the folder that was named, if one was
    record: dict[str, Any] = field(default_factory=dict)  # sumi.json of an exported folder
    mlflow_run_id: str | None = None

    @property
    def last(self) -> str:
        """The most downstream stage."""
        return list(self.fingerprints)[-1]

    @property
    def request(self) -> str:
        """What to write after `sumi run` to compute it: the cell's name, and what was changed."""
        return shlex.join([self.key.removesuffix(change_suffix(self.overrides)), *self.overrides])


def find_target(project: Project, given: str, overrides: Iterable[str] = ()) -> Target:
    """What ``given`` names; with ``overrides`` (``key=value``) it names a cell with these changes.

    Raises LineageError, with what to do, when it is nothing or several things or no cell that could be changed, and
    ConfigError for overrides that are wrong."""
    overrides = tuple(overrides)
    path = Path(given)
    if not path.exists() and (inside := project.store.root / path).exists() and os.sep in given:
        path = inside  # as the web interfaces name outputs, wherever the store is
    folder = path.parent if path.is_file() else path
    if overrides or (is_changed_name(given) and not path.exists()):
        return _from_name(project, given, overrides)
    if (folder / MANIFEST).is_file() or (folder / EXPORT_RECORD).is_file():
        return _from_folder(project.store, given, folder.resolve())
    if _MLFLOW_RUN.fullmatch(given):
        return _from_mlflow_run(project, given)
    if _DAGSTER_RUN.fullmatch(given):
        return _from_artifacts(
            project.store,
            given,
            "Dagster run",
            lambda a: a.manifest.get("provenance", {}).get("dagster_run_id") == given,
        )
    if _SHORT_RUN.fullmatch(given) and (run := _whole_run_id(project.store, given)):
        return find_target(project, run)
    if _FINGERPRINT.fullmatch(given):
        return _from_artifacts(project.store, given, "fingerprint", lambda a: a.fingerprint == given)
    if path.exists() and os.sep in given:
        raise LineageError(f"{given} holds neither {MANIFEST} nor {EXPORT_RECORD}; name an artifact or exported folder")
    return _from_name(project, given)


def artifact_at(folder: Path) -> Artifact | None:
    """The artifact whose manifest lies in ``folder``, wherever that is; None without one."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):  # no JSON, or no UTF-8
        manifest = None
    named = isinstance(manifest, dict) and all(isinstance(manifest.get(key), str) for key in ("stage", "fingerprint"))
    if not named or not is_manifest(manifest):
        raise LineageError(f"{folder / MANIFEST} is damaged or not ours; name another folder, or run its cell again")
    artifact = Artifact(manifest["stage"], manifest["fingerprint"], folder, manifest)
    if not _is_known(artifact):
        raise LineageError(f"{folder} holds a comparison of cells ({manifest.get('key')}); name one of its cells")
    return artifact


# --- MLflow, looked at without creating anything --------------------------------------------------------------------


def mlflow_exists(project: Project) -> bool:
    """Whether there is an MLflow store to ask; a look never creates one."""
    database = sqlite_path(project.tracking.uri)
    return database is None or database.is_file()


def mlflow_url(project: Project, run_id: str | None) -> tuple[str | None, str]:
    """Where a run is shown once the UI is up; or None, and why: a store that is broken hides nothing else."""
    if run_id is None:
        return None, "no run is recorded"
    if not mlflow_exists(project):
        return None, f"run {run_id}, but there is no MLflow store here"
    try:
        return project.tracking.run_url(run_id), ""
    except Exception as error:
        if not is_of_mlflow(error):
            raise
        unknown = "cannot be looked up; `sumi doctor` looks over the databases"
        told = "is no longer there" if is_absent(error) else unknown
        return None, f"run {run_id} of {project.tracking.uri} {told}"


def is_absent(error: Exception) -> bool:
    """Whether MLflow answered that it has no such run, rather than not at all."""
    return getattr(error, "error_code", "") == RunAbsent.error_code


def is_of_mlflow(error: Exception) -> bool:
    """Whether MLflow or its database raised it, whatever was imported of them."""
    return isinstance(error, RunAbsent) or type(error).__module__.partition(".")[0] in (
        "mlflow",
        "sqlalchemy",
        "sqlite3",
    )


# --- the kinds of names ---------------------------------------------------------------------------------------------


def _from_name(project: Project, given: str, overrides: tuple[str, ...] = ()) -> Target:
    plain, sweeps = project.sweeps(overrides, [given]).read_name(given)
    sweeps.refuse_broken(plain)
    names = [*sweeps, *(key for sweep in sweeps.values() for key in (*(c.plain for c in sweep.cells), *sweep.refused))]
    if plain not in names and overrides and (Path(given).exists() or _is_id(given)):
        raise LineageError(f"'{given}' is one result, which nothing can change; leave out {shlex.join(overrides)}")
    if plain not in names:
        known = nearest(plain, names, show=list(sweeps))
        raise LineageError(f"no cell, run, fingerprint or folder is called '{given}'; {known}")
    cells = select_cells(sweeps, [plain])
    cells = [cell for cell in cells if cell.plain == plain] or cells
    if len(cells) > 1:
        raise LineageError(f"'{given}' has {len(cells)} cells; name one of {', '.join(cell.key for cell in cells)}")
    cell = cells[0]
    fingerprints = experiment_fingerprints(cell.experiment)
    target = Target(given, "cell", cell.key, fingerprints, cell.experiment, cell.overrides)
    whole = {name for name, own in target.fingerprints.items() if project.store.find(name, own) is not None}
    if not whole - set(DATA_STAGES):
        recipe = f"with {shlex.join(cell.overrides)}" if cell.overrides else "in its current recipe"
        raise LineageError(f"'{cell.plain}' is not computed {recipe}; run `sumi run {target.request}` first")
    return target


def _is_id(given: str) -> bool:
    return any(kind.fullmatch(given) for kind in (_MLFLOW_RUN, _DAGSTER_RUN, _FINGERPRINT))


def _from_folder(store: Store, given: str, folder: Path) -> Target:
    record: dict[str, Any] = {}
    path = folder / EXPORT_RECORD
    if path.is_file():
        try:
            record = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, RecursionError):
            raise LineageError(f"{path} is damaged; copy the folder again from its store") from None
        if not all(isinstance(record.get(part, {}), Mapping) for part in _RECORDED):
            raise LineageError(f"{path} is damaged or not ours; copy the folder again from its store")
    artifact = artifact_at(folder)
    if artifact is not None:
        key, behind = str(artifact.manifest.get("key")), _ancestry(store, artifact)
        return Target(given, "folder", key, behind, folder=folder, record=record)
    lineage = record.get("fingerprints")
    if not isinstance(lineage, Mapping) or "exported_model" not in lineage:
        raise LineageError(f"{path} records no fingerprints; name a folder that Sumi exported")
    fingerprints = {name: str(lineage[name]) for name in STAGES if name in lineage and name != "evaluation"}
    return Target(given, "folder", str(record.get("key", folder.name)), fingerprints, folder=folder, record=record)


def _from_mlflow_run(project: Project, given: str) -> Target:
    if not mlflow_exists(project):
        raise LineageError(f"there is no MLflow store to look up run {given} in; run `sumi init`")
    try:
        tags = project.tracking.reader.get_run(given).data.tags
    except Exception as error:
        if not is_of_mlflow(error):
            raise
        if not is_absent(error):
            raise LineageError(
                f"MLflow at {project.tracking.uri} cannot be asked for run {given}; start it, or see `sumi doctor`"
            ) from None
        raise LineageError(f"MLflow at {project.tracking.uri} has no run {given}; `sumi list` names cells") from None
    if tags.get("sumi.kind") == "sweep":
        raise LineageError(f"run {given} is that of the sweep '{tags['sumi.sweep']}'; name one of its cells instead")
    prefix = "sumi.fingerprint."
    fingerprints = {name: tags[prefix + name] for name in STAGES if prefix + name in tags}
    if not fingerprints:
        raise LineageError(f"run {given} carries no {prefix}* tags; it was not made by Sumi")
    return Target(given, "MLflow run", tags.get("sumi.cell", ""), fingerprints, mlflow_run_id=given)


def _from_artifacts(store: Store, given: str, kind: str, wanted: Callable[[Artifact], bool]) -> Target:
    found = [artifact for artifact in store.artifacts() if _is_known(artifact) and wanted(artifact)]
    if not found:
        raise LineageError(f"no output in {store.root} belongs to the {kind} {given}; `sumi list` names what there is")
    last = max(found, key=_depth)
    return Target(given, kind, str(last.manifest.get("key")), _ancestry(store, last))


def _whole_run_id(store: Store, short: str) -> str | None:
    """The Dagster run that begins so, of those that made something in the store; None where none does."""
    made = {str(a.manifest.get("provenance", {}).get("dagster_run_id")) for a in store.artifacts()}
    found = sorted(run for run in made if run.startswith(f"{short}-"))
    if len(found) > 1:
        raise LineageError(f"{len(found)} Dagster runs begin with {short}; name one of {', '.join(found)}")
    return found[0] if found else None


def referenced(store: Store, ref: StageRef, own: str) -> Target:
    """The output of another cell that something is made from, ``own`` its fingerprint. Where the store does not have
    it, its recipe, as recorded by what refers to it, says what it is made from."""
    record = {"experiment": ref.experiment.to_dict()}
    artifact = store.condition(ref.stage, own).artifact
    if artifact is not None:
        behind = _ancestry(store, artifact)
    else:
        try:
            behind = experiment_fingerprints(ref.experiment)
        except (SumiError, OSError):  # what it was made from is gone
            behind = {}
        upto = list(STAGES)[: list(STAGES).index(ref.stage)]
        behind = {**{name: found for name, found in behind.items() if name in upto}, ref.stage: own}
    return Target(own, ref.stage, ref.cell, behind, record=record)


def _ancestry(store: Store, artifact: Artifact) -> dict[str, str]:
    """The fingerprints of an artifact and of all it was made from, upstream first."""
    found, waiting = {artifact.stage: artifact.fingerprint}, [artifact]
    while waiting:
        for name, own in waiting.pop().manifest.get("inputs", {}).items():
            if name not in found:
                found[name] = own
                upstream = store.find(name, own)
                if upstream is not None:
                    waiting.append(upstream)
    return {name: found[name] for name in (*STAGES, artifact.stage) if name in found}


def _is_known(artifact: Artifact) -> bool:
    return artifact.stage in STAGES or is_measurement(artifact.stage)


def _depth(artifact: Artifact) -> float:
    """How far downstream an output is. A measurement stands before the evaluation that it is a part of."""
    order = list(STAGES)
    return order.index(artifact.stage) if artifact.stage in STAGES else order.index("evaluation") - 0.5
