"""Looking over what was computed: folders of the artifact store, and the MLflow runs that tell of them."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sumi_core.base.errors import StoreError
from sumi_core.lineage.checkup import Finding
from sumi_core.lineage.mlflow_store import search_runs
from sumi_core.lineage.project import Project
from sumi_core.stages import STAGES
from sumi_core.stages.measurements import is_measurement
from sumi_core.stages.store import MANIFEST, Artifact, Store


def check_store(store: Store, *, deep: bool = False) -> Iterator[Finding]:
    """Every folder of the store: whole, in work, resumable, debris or damaged; and what failed. ``deep`` reads every
    file."""
    whole = 0
    for folder in sorted(path for path in store.root.glob("*/*") if path.is_dir() and path.name != ".locks"):
        stage = folder.parent.name
        fingerprint = folder.name.split(".")[0]
        if folder == store.partial(stage, fingerprint):
            if store.condition(stage, fingerprint).state != "failed":  # what failed is listed below, with the reason
                yield _partial(store, stage, fingerprint, folder)
        elif folder.suffix:
            yield Finding("info", "artifacts", f"{folder} was set aside", "delete it when you no longer need it")
        elif not (folder / MANIFEST).exists():
            remedy = "`sumi doctor --fix` removes it"
            fix = _remover(store, stage, fingerprint, folder)
            yield Finding("warn", "artifacts", f"{folder} has no manifest: what a killed removal left", remedy, fix)
        else:
            problems = _damage(store, stage, fingerprint, deep)
            whole += not problems
            for problem in problems[:3]:
                remedy = "`sumi doctor --fix` sets the output aside, so that `sumi run` computes it again"
                if "doctor --fix" in problem:  # the store's own sentence says so already
                    remedy = ""
                yield Finding("bad", "artifacts", problem, remedy, _aside(store, stage, fingerprint, folder))
    for stage, fingerprint, failure in store.failures():
        found = store.condition(stage, fingerprint)
        if found.state == "failed":  # not being tried again just now
            told = " ".join(f"{stage} {fingerprint} of {failure['key']} failed: {found.why}".split())
            request = shlex.quote(str(failure["key"]))
            resumes = stage in STAGES and STAGES[stage].resumable and store.partial(stage, fingerprint).exists()
            how = "continues where it was" if resumes else "tries again"
            yield Finding("info", "artifacts", told, f"`sumi run {request}` {how}")
    how = "files read" if deep else "sizes looked at; --deep reads every file"
    yield Finding("ok", "artifacts", f"{whole} whole outputs in {store.root} ({how})")


def _partial(store: Store, stage: str, fingerprint: str, folder: Path) -> Finding:
    name, fix = f"{stage} {fingerprint}", _remover(store, stage, fingerprint, folder)
    if store.is_busy(stage, fingerprint):
        return Finding("info", "artifacts", f"{name} is being computed now")
    if stage not in STAGES and not is_measurement(
        stage
    ):  # a report is named by what it compares: the next one has another name
        remedy = "`sumi doctor --fix` removes it"
        return Finding("warn", "artifacts", f"{folder} is what an interrupted {stage} left", remedy, fix)
    if stage in STAGES and STAGES[stage].resumable:
        return Finding("info", "artifacts", f"{name} was interrupted", "`sumi run` continues where it was")
    remedy = "`sumi run` starts it again; `sumi doctor --fix` removes what it left"
    return Finding("info", "artifacts", f"{name} was interrupted", remedy, fix)


def _damage(store: Store, stage: str, fingerprint: str, deep: bool) -> list[str]:
    try:
        artifact = store.find(stage, fingerprint)
    except StoreError as error:
        return [str(error)]
    if artifact is None:
        return []  # removed meanwhile
    manifest = artifact.manifest
    if not all(isinstance(file, dict) and file.keys() >= {"bytes", "sha256"} for file in manifest["files"].values()):
        return [f"{artifact.folder / MANIFEST} is damaged: its list of files lacks sizes or digests"]
    if manifest.get("fingerprint") != fingerprint:
        return [f"{artifact.folder} holds the output {manifest.get('fingerprint')}, not its own"]
    if deep:
        return store.verify(artifact)
    return [problem for name, recorded in manifest["files"].items() if (problem := _size(artifact, name, recorded))]


def _size(artifact: Artifact, name: str, recorded: dict[str, Any]) -> str | None:
    path = artifact.folder / name
    if not path.is_file():
        return f"{path} is missing"
    size = path.stat().st_size
    return None if size == recorded["bytes"] else f"{path} has {size} bytes instead of {recorded['bytes']}"


def _remover(store: Store, stage: str, fingerprint: str, folder: Path) -> Callable[[], str]:
    def remove() -> str:
        with store.lock_if_free(stage, fingerprint) as free:
            if not free or not folder.exists() or (not folder.suffix and (folder / MANIFEST).exists()):
                return f"{folder} was seen to already"
            shutil.rmtree(folder)
        return f"removed {folder}"

    return remove


def _aside(store: Store, stage: str, fingerprint: str, folder: Path) -> Callable[[], str]:
    def set_aside() -> str:
        with store.lock_if_free(stage, fingerprint) as free:
            if not free or not folder.exists():
                return f"{folder} was seen to already"
            number = 1
            while (target := folder.with_name(f"{folder.name}.damaged-{number}")).exists():
                number += 1
            folder.rename(target)
        return f"moved {folder} to {target.name}"

    return set_aside


# --- MLflow's runs --------------------------------------------------------------------------------------------------


def check_runs(project: Project, is_alive: Callable[[str], bool]) -> Iterator[Finding]:
    """Cell runs that say they are running, or failed to be recorded. ``is_alive`` tells of a Dagster run's process."""
    client, store = project.tracking.reader, project.store
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = search_runs(client, experiments, "tags.`sumi.kind` = 'cell'")
    stale = 0
    for run in runs:
        if run.info.status == "FINISHED":
            continue
        tags, run_id = run.data.tags, run.info.run_id
        fingerprints = {stage: tags.get(f"sumi.fingerprint.{stage}", "") for stage in STAGES}
        busy = any(store.is_busy(stage, own) for stage, own in fingerprints.items())
        if busy or is_alive(tags.get("dagster.run_id", "")):
            continue
        name = f"MLflow run {run_id} of {tags.get('sumi.cell')}"
        if _is_whole(store, fingerprints["evaluation"]):
            stale += 1
            what = f"{name} lacks figures of a finished cell ({run.info.status})"
            remedy = "`sumi run` or `sumi doctor --fix` adds them from the store"
            yield Finding("warn", "runs", what, remedy, _recorder(project, run_id, fingerprints))
        elif run.info.status == "RUNNING":
            stale += 1
            what = f"{name} says RUNNING, but nothing computes it"
            remedy = "`sumi run` continues it; `sumi doctor --fix` marks it KILLED until then"
            yield Finding("warn", "runs", what, remedy, _killer(project, run_id))
    if not stale:
        yield Finding("ok", "runs", f"{len(runs)} MLflow runs, none left behind")


def _is_whole(store: Store, fingerprint: str) -> bool:
    with contextlib.suppress(StoreError):  # damaged: check_store reports it
        return bool(fingerprint) and store.find("evaluation", fingerprint) is not None
    return False


def _killer(project: Project, run_id: str) -> Callable[[], str]:
    def kill() -> str:
        client = project.tracking.client
        if client.get_run(run_id).info.status != "RUNNING":
            return f"MLflow run {run_id} has ended meanwhile"
        project.tracking.close(run_id, cancelled="its process is gone; `sumi run` continues it")
        return f"marked MLflow run {run_id} KILLED"

    return kill


def _recorder(project: Project, run_id: str, fingerprints: dict[str, str]) -> Callable[[], str]:
    def record() -> str:
        for stage, own in fingerprints.items():
            artifact = project.store.find(stage, own)
            if artifact is not None:
                project.tracking.record_stage(run_id, artifact)
        project.tracking.close(run_id)
        return f"recorded MLflow run {run_id} from the store"

    return record
