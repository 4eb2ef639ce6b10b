"""From a model or a number back to what made it: data, config, code, seed. Everything is read from the records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sumi_core.base.errors import SumiError
from sumi_core.base.hashing import file_sha256, flatten
from sumi_core.base.text import filled
from sumi_core.experiments.references import stage_refs
from sumi_core.experiments.resolve import resolve_for
from sumi_core.lineage.project import Project
from sumi_core.lineage.targets import (
    EXPORT_RECORD,
    LineageError,
    Target,
    artifact_at,
    find_target,
    mlflow_url,
    referenced,
)
from sumi_core.stages import DATA_STAGES, STAGES
from sumi_core.stages.evaluation import MEASURED
from sumi_core.stages.identity import ref_fingerprint

_SHOWN_FIGURES = 10  # of each stage in the text form; the JSON form has all


@dataclass(frozen=True)
class StageTrace:
    """One stage behind a target. ``folder`` is None where its output is not at hand; ``manifest`` then holds what an
    exported folder's own record tells of it, if anything."""

    stage: str
    fingerprint: str
    folder: Path | None
    manifest: dict[str, Any]
    problems: tuple[str, ...] = ()  # files that are missing or differ from their recorded SHA-256
    verified: bool = False

    @property
    def state(self) -> str:
        """whole, damaged or missing."""
        return "damaged" if self.problems else "missing" if self.folder is None else "whole"

    def to_dict(self) -> dict[str, Any]:
        """Everything recorded, as plain data."""
        recorded = {name: value for name, value in self.manifest.items() if name not in ("stage", "fingerprint")}
        return {
            "fingerprint": self.fingerprint,
            "state": self.state,
            "verified": self.verified,
            "problems": list(self.problems),
            "folder": str(self.folder) if self.folder else None,
            **recorded,
        }


@dataclass(frozen=True)
class Trace:
    """A target with the record of each stage behind it, upstream first."""

    target: Target
    stages: tuple[StageTrace, ...]
    mlflow_run_id: str | None
    mlflow_url: str | None  # None when MLflow does not have the run
    mlflow_absence: str = ""  # why not
    parents: Mapping[str, Trace] = field(default_factory=dict)  # the outputs of other cells, by the key that refers

    @property
    def is_damaged(self) -> bool:
        """Whether a record of it, or of a cell that it starts from, is damaged."""
        own = any(stage.state == "damaged" for stage in self.stages)
        return own or any(parent.is_damaged for parent in self.parents.values())

    @property
    def experiment(self) -> dict[str, Any]:
        """The resolved experiment as recorded by the most downstream stage, runtime included."""
        for stage in reversed(self.stages):
            if "experiment" in stage.manifest:
                return dict(stage.manifest["experiment"])
        return dict(self.target.record.get("experiment", {}))

    @property
    def corpus(self) -> dict[str, Any]:
        """The source's options, what its documents were made from, and their licence."""
        manifest: Mapping[str, Any] = next((s.manifest for s in self.stages if s.stage == "corpus"), {})
        return {
            "source": (self.experiment.get("corpus") or {}).get("source"),
            "identity": manifest.get("identity", {}).get("source", {}).get("corpus.source"),
            "licence": manifest.get("summary", {}).get("licence"),
        }

    def to_dict(self) -> dict[str, Any]:
        """The whole trace as plain data, for machines."""
        return {
            "given": self.target.given,
            "kind": self.target.kind,
            "key": self.target.key,
            "seed": self.experiment.get("seed"),
            "corpus": self.corpus,
            "mlflow_run_id": self.mlflow_run_id,
            "mlflow_url": self.mlflow_url,
            "experiment": self.experiment,
            "stages": {stage.stage: stage.to_dict() for stage in self.stages},
            "references": {key: parent.to_dict() for key, parent in self.parents.items()},
        }


def trace(project: Project, given: str, overrides: Iterable[str] = (), *, verify: bool = True) -> Trace:
    """Resolve a target and read the records behind it; ``verify`` compares every file with its recorded SHA-256.

    Raises LineageError when nothing is called so, ConfigError for wrong overrides, and StoreError for a damaged
    manifest."""
    return trace_target(project, find_target(project, given, overrides), verify=verify)


def trace_cells(project: Project, given: str, overrides: Iterable[str] = ()) -> dict[str, Trace | str]:
    """The traces of the cells of a name that stands for several, unverified, or why a cell has none; empty for the name
    of anything else."""
    overrides = tuple(overrides)
    sweeps = project.sweeps(overrides, [given])
    cells = [
        cell.key for sweep in sweeps.values() for cell in sweep.cells if given in (sweep.name, sweep.path, cell.group)
    ]
    found: dict[str, Trace | str] = {}
    for key in cells if len(cells) > 1 else ():
        try:
            found[key] = trace(project, key, overrides, verify=False)
        except LineageError as error:
            found[key] = str(error)
    return found


def cells_lines(traced: Mapping[str, Trace | str], width: int = 100) -> Iterator[str]:
    """A paragraph for each cell: what it is, and where its record is; the last line says how to see more."""
    for key, own in traced.items():
        if isinstance(own, str):
            yield f"{key}  not computed"
            continue
        last, commit = own.stages[-1], own.stages[-1].manifest.get("provenance", {}).get("git", {}).get("commit")
        told = {**dict(_overview(own)), "code": f"commit {commit}" if commit else "no git checkout"}
        yield f"{key}  {last.stage} {last.fingerprint}"
        for label in ("seed", "recipe", "code", "MLflow"):
            if label in told:
                yield _wrapped(f"  {label:<8}", told[label], width)
    yield f"`sumi lineage {next(iter(traced))}` shows the whole record of one"


def trace_target(project: Project, target: Target, *, verify: bool = True) -> Trace:
    """Read the records behind a resolved target."""
    store, stages = project.store, []
    for name, own in target.fingerprints.items():
        artifact, problems = store.find(name, own), []
        if target.folder is not None and name == target.last:
            artifact = artifact_at(target.folder) or artifact  # the folder that was named, not the store's twin of it
            problems += _verify_copy(target) if verify else []
        if artifact is None:
            stages.append(StageTrace(name, own, None, _from_export_record(target, name), tuple(problems), verify))
            continue
        problems += store.verify(artifact) if verify else []
        stages.append(StageTrace(name, own, artifact.folder, artifact.manifest, tuple(problems), verify))
    recorded = (stage.manifest.get("provenance", {}).get("mlflow_run_id") for stage in reversed(stages))
    run_id = target.mlflow_run_id or next((run for run in recorded if run), None)
    traced = Trace(target, tuple(stages), run_id, *mlflow_url(project, run_id))
    return replace(traced, parents=_parents(project, traced, verify))


def _parents(project: Project, traced: Trace, verify: bool) -> dict[str, Trace]:
    """The traces of what the stages take from other cells. Raises StoreError where the recipe cannot be read."""
    if not traced.experiment:
        return {}
    recorded = resolve_for("exported_model", traced.experiment, traced.target.given)
    refs = {ref.key: ref for ref in stage_refs(recorded)}
    found: dict[str, Trace] = {}
    for stage in traced.stages:
        recorded = stage.manifest.get("references", {})
        for key, ref in refs.items():
            if not STAGES[stage.stage].refers(key):
                continue
            try:
                own = recorded[key]["fingerprint"] if key in recorded else ref_fingerprint(ref)
            except (SumiError, OSError):  # nothing records it, and what it was made from is gone
                continue
            found[key] = trace_target(project, referenced(project.store, ref, own), verify=verify)
    return found


def _verify_copy(target: Target) -> list[str]:
    """Whether an exported folder's weights are those that its own record names."""
    wanted = target.record.get("weights_sha256")
    if wanted is None or target.folder is None:
        return []
    path = target.folder / "model.safetensors"
    if not path.is_file():
        return [f"{path} is missing"]
    return [] if file_sha256(path) == wanted else [f"{path} differs from the SHA-256 in {EXPORT_RECORD}"]


def _from_export_record(target: Target, stage: str) -> dict[str, Any]:
    """The part of a stage's manifest that an exported folder carries along."""
    record = target.record
    made = {"experiment": record.get("experiment", {}), "provenance": {}}
    made["provenance"] = {"git": record.get("code", {}), "packages": record.get("packages", {})}
    if stage == "pretrained_denoiser" and "training" in record:
        return {**made, "summary": record["training"]}
    if stage == "exported_model" and "weights_sha256" in record:
        files = {"model.safetensors": {"sha256": record["weights_sha256"]}}
        return {**made, "summary": record.get("stock", {}), "inputs": record.get("inputs", {}), "files": files}
    return {}


# --- as text --------------------------------------------------------------------------------------------------------


def trace_lines(traced: Trace, width: int = 100) -> Iterator[str]:
    """The trace as a tree for people, from what was named back to the data, wrapped at ``width`` characters.

    What holds for every stage (code, machine, packages, runs) is printed once, at the top; what holds for some only is
    printed at each of them."""
    target = traced.target
    common = _common([_circumstances(stage) for stage in reversed(traced.stages)])
    shared = target.last in DATA_STAGES  # of a token set: the cell it was made for had nothing to do with it
    named = f"{target.last} {target.fingerprints[target.last]}" if shared else ""
    yield f"{named or target.key}  ({target.kind} {target.given})"
    for label, value in _overview(traced):
        yield _wrapped(f"  {label:<12}", value, width)
    for label, parts in common.items():
        yield _wrapped(f"  {label:<12}", " ".join(parts), width)
    for depth, stage in enumerate(reversed(traced.stages)):
        branch = "" if depth == 0 else "   " * (depth - 1) + "└─ "
        yield ""
        yield _wrapped(branch, f"{stage.stage}  {stage.fingerprint}  {_condition(stage)}", width)
        for label, value in _details(stage):
            yield _wrapped(f"{'   ' * depth}  {label:<12}", value, width)
        for label, parts in _circumstances(stage).items():
            own = [part for part in parts if part not in common.get(label, [])]
            if own:
                yield _wrapped(f"{'   ' * depth}  {label:<12}", " ".join(own), width)
    for key, parent in traced.parents.items():
        yield ""
        yield f"{key}:"
        for text in trace_lines(parent, width - 3):
            yield from (f"   {line}".rstrip() for line in text.split("\n"))


def _wrapped(start: str, text: str, width: int) -> str:
    """``start`` and then the text, its further lines indented as deep."""
    return filled(text, max(width, len(start) + 20), first=start, further=" " * max(2, len(start)))


def _common(circumstances: Sequence[Mapping[str, list[str]]]) -> dict[str, list[str]]:
    """What all stages that say something of a label agree on, in the order of the first."""
    shared: dict[str, list[str]] = {}
    for label in dict.fromkeys(label for own in circumstances for label in own):
        told = [own[label] for own in circumstances if label in own]
        if agreed := [part for part in told[0] if all(part in other for other in told)]:
            shared[label] = agreed
    return shared


def _overview(traced: Trace) -> Iterator[tuple[str, str]]:
    experiment, corpus = traced.experiment, traced.corpus
    parts = ["tokenizer"] if "tokenizer" in traced.target.fingerprints else []
    if traced.target.last not in DATA_STAGES:
        yield "seed", str(experiment.get("seed", "not recorded"))
        parts = ["process", "schedule", "objective", *parts]
    if parts:
        yield "recipe", " · ".join(f"{name} {_brief(experiment.get(name))}" for name in parts)
    yield "corpus", f"{_brief(corpus['source'])}, licence: {corpus['licence'] or 'not recorded'}"
    for name, value in flatten(corpus["identity"] or {}):
        yield "", f"{name} {_brief(value)}"
    if traced.mlflow_run_id:
        yield "MLflow", f"`sumi dev`, then {traced.mlflow_url}" if traced.mlflow_url else traced.mlflow_absence


def _circumstances(stage: StageTrace) -> dict[str, list[str]]:
    """Under what code, on what machine, with what packages and in which runs a stage was made, in parts that can be
    compared with another's."""
    made = stage.manifest.get("provenance", {})
    git = made.get("git", {})
    dirty = " with uncommitted changes" if git.get("dirty") else ""
    if made.get("uncommitted"):
        dirty += " (a patch under provenance.uncommitted of its manifest.json)"
    parts = {
        "code": [f"commit {git['commit']}{dirty}" if git.get("commit") else "no git checkout"] if made else [],
        "machine": [made["host"], str(made.get("platform")), f"{made.get('cpus')} CPUs"] if "host" in made else [],
        "packages": [f"python={made['python']}"] if "python" in made else [],
        "runtime": [
            f"{key}={_brief(value)}"
            for key, value in (stage.manifest.get("experiment", {}).get("runtime") or {}).items()
        ],
        "Dagster run": [made["dagster_run_id"]] if made.get("dagster_run_id") else [],
        "MLflow run": [made["mlflow_run_id"]] if made.get("mlflow_run_id") else [],
    }
    parts["packages"] += [f"{name}={version}" for name, version in made.get("packages", {}).items()]
    return {label: told for label, told in parts.items() if told}


def _condition(stage: StageTrace) -> str:
    if stage.problems:
        return "DAMAGED"
    if stage.folder is None:
        return f"not in this store; as {EXPORT_RECORD} tells" if stage.manifest else "not in this store"
    files = stage.manifest["files"]
    size = sum(file["bytes"] for file in files.values())
    checked = "every SHA-256 verified" if stage.verified else "not verified"
    return f"whole, {len(files)} files, {size:,} bytes, {checked}"


def _details(stage: StageTrace) -> Iterator[tuple[str, str]]:
    manifest = stage.manifest
    for problem in stage.problems:
        yield "damage", problem
    if stage.folder is not None:
        yield "folder", str(stage.folder)
    shown = [f"{name} {_number(value)}" for name, value in figures(manifest.get("summary", {}))]
    more = [f"… and {len(shown) - _SHOWN_FIGURES} more"] if len(shown) > _SHOWN_FIGURES else []
    if shown:
        yield "figures", ", ".join([*shown[:_SHOWN_FIGURES], *more])
    if sections := STAGES[stage.stage].reads if stage.stage in STAGES else ("evaluation",):  # of a measurement
        yield "config", ", ".join(sections) + " (every value: --json)"
    if "started" in manifest:
        when = datetime.fromtimestamp(manifest["started"]).astimezone().isoformat(" ", "seconds")
        version = manifest.get("identity", {}).get("version")
        key = _brief(manifest.get("key"), 60)
        yield "made", f"{when} in {manifest['seconds']:.1f} s for {key}, by version {version} of the stage"
    if measured := _measurements(stage):
        yield "measured", ", ".join(f"{name} {own}" for name, own in measured.items())
    if manifest.get("inputs"):
        refs = manifest.get("references", {}).items()
        inputs = [f"{name} {own}" for name, own in manifest["inputs"].items()]
        inputs += [f"{key} {ref['fingerprint']} ({ref['stage']} of {ref['cell']})" for key, ref in refs]
        yield "from", ", ".join(inputs)


def _measurements(stage: StageTrace) -> dict[str, str]:
    """The measurements that an evaluation is the union of, each with its fingerprint."""
    path = stage.folder / MEASURED if stage.folder is not None else None
    if path is None or not path.is_file():
        return {}
    try:
        found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # reported as damage already
        return {}
    return found


def figures(summary: Mapping[str, Any]) -> Iterator[tuple[str, float | int]]:
    """The numbers of a summary by flattened name."""
    for name, value in flatten(summary):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value


def _number(value: float | int) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _brief(value: Any, longest: int = 100) -> str:
    """A component or a value on one line: ``uniform``, ``clustered(clusters=64)``; text is cut at ``longest``."""
    if isinstance(value, Mapping):
        options = ", ".join(f"{key}={_brief(item)}" for key, item in value.items() if key != "name")
        name = str(value.get("name", ""))
        return f"{name}({options})" if options else name
    if isinstance(value, list) and len(value) > 3:
        return f"{len(value)} of them, the first {_brief(value[0])}"
    text = "none" if value is None else str(value)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
