"""Compute something again from its record, in a store of its own, and compare every figure with the recorded one.

The recipe is the *manifest's*: each stage is recomputed with the experiment its manifest recorded, runtime section
(threads, device) included, whatever the experiment files say today.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from sumi_core.base.files import json_text, write_atomically
from sumi_core.base.hashing import flatten
from sumi_core.base.locks import locked
from sumi_core.base.progress import Log, Progress, unwatched
from sumi_core.base.provenance import provenance
from sumi_core.experiments.resolve import resolve_for
from sumi_core.experiments.schema import Experiment
from sumi_core.lineage.plan import changed_fields
from sumi_core.lineage.targets import LineageError
from sumi_core.lineage.trace import StageTrace, Trace
from sumi_core.stages import STAGES
from sumi_core.stages.base import Launcher
from sumi_core.stages.computation import Computation
from sumi_core.stages.identity import references_of, refresh_source_identities, stage_inputs
from sumi_core.stages.store import MANIFEST, Store

# Figures of how fast and with how much memory: they are never the same twice and say nothing of the result.
_CLOCK = re.compile(r"(^|[._])(seconds|mfu|peak_memory_bytes|resumed|speedup)$|_(per_second|seconds)$")
# Files whose every byte is decided by the recipe; others hold times or say where they were made.
_EXACT_FILES = ("*.safetensors", "*.npy", "tokenizer.json", "train.parquet", "validation.parquet", "likelihood.parquet")
_RESULT = "reproduction.json"


@dataclass(frozen=True)
class Figure:
    """One recorded figure beside the recomputed one. ``compared`` is false for clock readings."""

    stage: str
    name: str
    old: Any
    new: Any
    compared: bool = True

    @property
    def difference(self) -> float | None:
        """new − old, where both are numbers."""
        numbers = [v for v in (self.old, self.new) if isinstance(v, int | float) and not isinstance(v, bool)]
        return float(numbers[1] - numbers[0]) if len(numbers) == 2 else None

    @property
    def equal(self) -> bool:
        """Whether they are the same value; NaN is the same as NaN, and as the null that stands for it in a record."""
        return bool(self.old == self.new) or json_text(self.old) == json_text(self.new)


@dataclass(frozen=True)
class Reproduction:
    """What became of a recomputation."""

    key: str  # of the cell, and what was changed
    folder: str
    figures: list[Figure]
    files: list[Figure]  # SHA-256 of weights, tokens and texts
    recipe: list[str]  # why a stage's fingerprint is another one now: a changed source, newer code
    environment: list[str]  # what differs between then and now: git, python, packages, machine
    unrecorded: list[str] = field(default_factory=list)  # stages recomputed without anything to compare them with

    @property
    def different(self) -> list[Figure]:
        """Compared figures and files that are not equal."""
        return [figure for figure in [*self.figures, *self.files] if figure.compared and not figure.equal]

    @property
    def equal(self) -> bool:
        """Whether something was compared, and all of it is equal."""
        return any(f.compared for f in [*self.figures, *self.files]) and not self.different

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for machines."""

        def plain(figure: Figure) -> dict[str, Any]:
            return {**asdict(figure), "difference": figure.difference, "equal": figure.equal}

        return {
            "key": self.key,
            "folder": self.folder,
            "equal": self.equal,
            "compared": sum(f.compared for f in [*self.figures, *self.files]),
            "different": [f"{f.stage}/{f.name}" for f in self.different],
            "figures": [plain(f) for f in self.figures],
            "files": [plain(f) for f in self.files],
            "recipe": self.recipe,
            "environment": self.environment,
            "unrecorded": self.unrecorded,
        }


def reproduce(
    traced: Trace,
    folder: Path,
    launcher: Launcher,
    *,
    clean: bool = False,
    log: Log = print,
    progress: Progress = unwatched,
) -> Reproduction:
    """Compute every stage of ``traced`` again in a store below ``folder`` and compare, after the outputs of other cells
    that it is made from.

    A reproduction that was interrupted goes on where it was; one that ended is done anew. ``clean`` starts from nothing
    in any case and removes the folder at the end. Raises LineageError when no recipe is recorded, and whatever the
    stages raise.
    """
    _recorded_experiments(traced)  # whether there is a recipe
    lock = folder.with_name(f"{folder.name}.lock")
    with locked(lock, lambda holder: log(f"{folder} is being reproduced by {holder}; waiting for it")):
        if clean or (folder / _RESULT).exists():
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        refresh_source_identities()
        store = Store(folder / "store")
        computation = Computation(store, launcher=launcher, log=log, progress=progress)
        result = _recompute(traced, computation, folder, log)
        write_atomically(folder / _RESULT, json_text(result.to_dict()) + "\n")
        if clean:
            shutil.rmtree(folder)
    return result


def _recompute(traced: Trace, computation: Computation, folder: Path, log: Log) -> Reproduction:
    """What ``traced`` is made from in other cells, and then its own stages."""
    before = [_recompute(parent, computation, folder, log) for parent in traced.parents.values()]
    recomputed = {}
    for name, experiment in _recorded_experiments(traced).items():
        log(f"computing {name} of {traced.target.key} again" if before else f"computing {name} again")
        for ref in references_of(experiment, name):
            computation.ensure_reference(ref)
        artifact, _ = computation.ensure(experiment, traced.target.key, name)
        recomputed[name] = json.loads((artifact.folder / MANIFEST).read_text(encoding="utf-8"))
    return _joined(before, compare(traced, recomputed, folder))


def _joined(before: list[Reproduction], own: Reproduction) -> Reproduction:
    """A reproduction with those of the cells that it starts from, their stages prefixed with their cells' names."""

    def labelled(found: Reproduction, figures: list[Figure]) -> list[Figure]:
        return [replace(f, stage=f.stage if " of " in f.stage else f"{f.stage} of {found.key}") for f in figures]

    return replace(
        own,
        figures=[*(f for found in before for f in labelled(found, found.figures)), *own.figures],
        files=[*(f for found in before for f in labelled(found, found.files)), *own.files],
        recipe=[*(f"{found.key}: {words}" for found in before for words in found.recipe), *own.recipe],
        environment=list(dict.fromkeys(words for found in (*before, own) for words in found.environment)),
        unrecorded=[*(f"{name} of {found.key}" for found in before for name in found.unrecorded), *own.unrecorded],
    )


def compare(traced: Trace, recomputed: Mapping[str, Mapping[str, Any]], folder: Path) -> Reproduction:
    """Every figure and exact file of the recorded manifests beside those of the recomputed ones."""
    compared: list[Figure] = []
    files: list[Figure] = []
    recipe: list[str] = []
    unrecorded: list[str] = []
    for stage in traced.stages:
        new = recomputed[stage.stage]
        old_files = _recorded_files(stage)
        if not stage.manifest:
            unrecorded.append(stage.stage)
            continue
        names = (
            {*old_files, *new["files"]} if stage.folder else old_files
        )  # a copy's own record lists the weights alone
        files += [
            Figure(stage.stage, name, old_files.get(name), new["files"].get(name, {}).get("sha256"))
            for name in sorted(names)
            if any(fnmatch(Path(name).name, pattern) for pattern in _EXACT_FILES)
        ]
        old = stage.manifest["summary"]
        summary = new["summary"] if stage.folder else {name: new["summary"].get(name) for name in old}
        compared += _compare_summaries(stage.stage, old, summary)
        if "identity" in stage.manifest:
            changes = changed_fields(stage.manifest["identity"], new["identity"])
            recipe += [f"{stage.stage}: {words}" for words in changes]
    return Reproduction(
        traced.target.request, str(folder), compared, files, recipe, environment_differences(traced), unrecorded
    )


def _compare_summaries(stage: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Figure]:
    before, after = dict(flatten(old)), dict(flatten(new))
    for name in dict.fromkeys([*before, *after]):
        yield Figure(stage, name, before.get(name), after.get(name), compared=not is_clock(name))


def is_clock(name: str) -> bool:
    """Whether a figure tells speed or memory, which no two runs share.

    >>> is_clock("tokens_per_second"), is_clock("bits_per_byte")
    (True, False)
    """
    return bool(_CLOCK.search(name))


def _recorded_files(stage: StageTrace) -> dict[str, str]:
    return {name: str(file["sha256"]) for name, file in stage.manifest.get("files", {}).items()}


def _recorded_experiments(traced: Trace) -> dict[str, Experiment]:
    """The experiment of each stage that has to be computed, upstream first: its own record's, else the target's."""
    if not traced.experiment:
        raise LineageError(f"'{traced.target.given}' has no record of its experiment; name a cell or a run that has")
    if traced.target.last not in STAGES:
        raise LineageError(
            f"'{traced.target.given}' is one measurement, which is computed again with its evaluation; name the cell "
            f"{traced.target.key}"
        )
    recorded = {stage.stage: stage for stage in traced.stages}
    last = traced.target.last
    needed = _with_inputs(resolve_for(last, traced.experiment, traced.target.given), last)
    return {name: _experiment(traced, name, recorded.get(name)) for name in STAGES if name in needed}


def _with_inputs(experiment: Experiment, stage: str) -> set[str]:
    return {stage}.union(*(_with_inputs(experiment, upstream) for upstream in stage_inputs(experiment, stage)))


def _experiment(traced: Trace, name: str, stage: StageTrace | None) -> Experiment:
    own = stage.manifest.get("experiment") if stage else None
    where = str(stage.folder / MANIFEST) if stage and stage.folder else f"the record of {traced.target.given}"
    return resolve_for(name, own or traced.experiment, where)


def environment_differences(traced: Trace) -> list[str]:
    """What is another now than when each stage was made, one line each, naming the stages it concerns."""
    now = provenance()
    concerned: dict[str, list[str]] = {}
    for stage in traced.stages:
        for words in _provenance_differences(stage.manifest.get("provenance", {}), now):
            concerned.setdefault(words, []).append(stage.stage)
    recorded = sum("provenance" in stage.manifest for stage in traced.stages)
    return [
        words if len(stages) == recorded else f"{words} ({', '.join(stages)})" for words, stages in concerned.items()
    ]


def _provenance_differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if not then:
        return
    before, after = then.get("git", {}), now.get("git", {})
    if before.get("commit") != after.get("commit"):
        yield f"git commit {before.get('commit')} → {after.get('commit')}"
    same = then.get("uncommitted") == now.get("uncommitted") is not None
    for git, when in ((before, "then"), (after, "now")):
        if git.get("dirty") and not same:
            yield f"git: uncommitted changes {when}"
    for name in ("python", "platform", "machine", "host", "cpus"):
        if name in then and then[name] != now.get(name):
            yield f"{name} {then.get(name)} → {now.get(name)}"
    old, new = then.get("packages", {}), now.get("packages", {})
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield f"{name} {old.get(name, 'absent')} → {new.get(name, 'absent')}"
