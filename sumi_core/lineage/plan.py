"""What a sweep needs: which cells are done, which would be computed, and which field of the config is why.

Everything is read from the store: a stage is done when its current fingerprint has a whole output there. An output of
the same cell under another fingerprint makes the cell stale, and the difference of the two recorded configs says why.
Nothing that is wrong with one cell (a corpus that is gone, a damaged output) keeps the others from being looked at.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sumi_core.base.errors import SumiError
from sumi_core.base.hashing import fingerprint
from sumi_core.base.outside import in_one_place
from sumi_core.experiments.references import StageRef
from sumi_core.experiments.sweeps import Cell, with_ancestors
from sumi_core.stages import STAGES
from sumi_core.stages.identity import Identities, ref_fingerprint, references_of, stage_inputs
from sumi_core.stages.store import Artifact, Condition, Store

# The most telling first: it is what a cell with stages in several states is said to be in.
State = Literal["blocked", "damaged", "running", "failed", "interrupted", "stale", "missing", "done"]

_Look = Callable[[str, str], Condition]  # stage, fingerprint

_NEW = "never computed"
_SHOWN_CHANGES, _SHOWN_FILES, _SHOWN_VALUE = 4, 3, 40


@dataclass(frozen=True)
class StagePlan:
    """One stage of one cell: its state, and in words why it is so. ``fingerprint`` is empty where the stage is blocked:
    it is unknown while an input cannot be read. ``artifact`` is the output of a stage that is done."""

    stage: str
    fingerprint: str
    state: State
    why: str
    artifact: Artifact | None = None


@dataclass(frozen=True)
class CellPlan:
    """A cell's stages in order. Its own state is the most telling one among theirs."""

    cell: Cell
    stages: tuple[StagePlan, ...]

    @property
    def pending(self) -> tuple[StagePlan, ...]:
        """Stages that would be computed."""
        return tuple(stage for stage in self.stages if stage.state != "done")

    @property
    def state(self) -> State:
        """The cell's state: done, or the most telling one of what is pending."""
        order: tuple[State, ...] = get_args(State)
        return min((stage.state for stage in self.stages), key=order.index)

    @property
    def why(self) -> str:
        """Why the cell is in its state."""
        return next((f"{s.stage}: {s.why}" for s in self.pending if s.state == self.state), "every stage is whole")

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """The outputs that are whole, by stage."""
        return {stage.stage: stage.artifact for stage in self.stages if stage.artifact is not None}


@in_one_place()
def plan(cells: Iterable[Cell], store: Store) -> list[CellPlan]:
    """The state of each cell. Reads the sources' identities and the store; computes nothing."""
    earlier = _latest_by_key(store)
    look = functools.lru_cache(maxsize=None)(store.condition)  # once at each output, however many cells share it
    plans = [_plan_cell(cell, look, earlier) for cell in cells]
    # An output that cells share was computed for one of them: what has changed since is known of that one only.
    every = [stage for planned in plans for stage in planned.stages]
    told = {(s.stage, s.fingerprint): s for s in every if s.state in ("stale", "missing") and s.why != _NEW}
    return [
        CellPlan(p.cell, tuple(told.get((s.stage, s.fingerprint), s) if s.why == _NEW else s for s in p.stages))
        for p in plans
    ]


def plan_with_ancestors(cells: Iterable[Cell], store: Store) -> list[CellPlan]:
    """The state of each cell, and before it that of the cells whose outputs it lacks: those that are not among
    ``cells`` are left out where nothing is wanted of them."""
    cells = list(cells)
    plans, asked = plan(with_ancestors(cells), store), {(cell.key, cell.overrides) for cell in cells}
    kept: list[CellPlan] = []
    wanted: set[tuple[str, str]] = set()
    for planned in reversed(plans):
        is_wanted = any((stage.stage, stage.fingerprint) in wanted for stage in planned.pending)
        if is_wanted or (planned.cell.key, planned.cell.overrides) in asked:
            kept.insert(0, planned)
            pending = {stage.stage for stage in planned.pending if stage.state != "blocked"}
            for stage in pending:
                refs = references_of(planned.cell.experiment, stage)
                wanted |= {(ref.stage, ref_fingerprint(ref)) for ref in refs}
    return kept


def _plan_cell(cell: Cell, look: _Look, earlier: Mapping[tuple[str, str], Artifact]) -> CellPlan:
    stages: list[StagePlan] = []
    identities = Identities(cell.experiment)
    for name in identities.stages:
        try:
            identity = identities.of(name, {stage.stage: stage.fingerprint for stage in stages})
        except (SumiError, OSError) as error:  # what it is made from is gone, or cannot be read
            told = str(error) if isinstance(error, SumiError) else f"{error.filename}: {error.strerror}"
            known = any(stage.state == "blocked" for stage in stages)
            stages.append(StagePlan(name, "", "blocked", "waits for the above" if known else told))
            continue
        stages.append(_plan_stage(cell, name, identity, look, earlier, stages))
    return CellPlan(cell, tuple(stages))


def _plan_stage(
    cell: Cell,
    name: str,
    identity: dict[str, Any],
    look: _Look,
    earlier: Mapping[tuple[str, str], Artifact],
    before: Sequence[StagePlan],
) -> StagePlan:
    own = fingerprint(identity)
    found = look(name, own)
    if found.state == "whole":
        return StagePlan(name, own, "done", "cached", found.artifact)
    if found.state == "interrupted":
        resumes = "continues where it was" if STAGES[name].resumable else "starts again"
        return StagePlan(name, own, "interrupted", f"{found.why}; it {resumes}")
    if found.state != "absent":
        return StagePlan(name, own, found.state, found.why)
    old = earlier.get((name, cell.key))
    # What is computed with changes is another cell than its file's, which it is compared with where it is new.
    state: State = "stale" if old is not None else "missing"
    old = old or earlier.get((name, cell.plain))
    if old is None:
        return StagePlan(name, own, state, _NEW)
    recorded, wanted = old.manifest.get("inputs", {}), stage_inputs(cell.experiment, name)
    inputs = [s.stage for s in before if s.stage in wanted and s.fingerprint != recorded.get(s.stage)]
    words = changed_fields(old.manifest.get("identity", {}), identity)
    words += [_changed_reference(ref, identity, old) for ref in references_of(cell.experiment, name)]
    words = [word for word in words if word] or [f"its input {stage} changes" for stage in inputs]
    return StagePlan(name, own, state, "; ".join(words) or "its recipe changed")


def _changed_reference(ref: StageRef, identity: Mapping[str, Any], old: Artifact) -> str:
    """How the output of another cell that a stage refers to is another one than it was made from; empty if it is not.
    A stage that did not refer to any has that change in its config."""
    recorded = old.manifest.get("references", {}).get(ref.key)
    if recorded is None or recorded["fingerprint"] == identity["inputs"][ref.key]:
        return ""
    if recorded["cell"] != ref.cell:
        return f"{ref.key} {recorded['cell']} → {ref.cell}"
    before: Any = old.manifest.get("experiment")
    for key in [*ref.key.split("."), "experiment"]:
        before = before.get(key) if isinstance(before, Mapping) else None
    ignored = ("runtime", "model.preset", "evaluation")
    changes = [
        f"{key} {_shown(was)} → {_shown(now)}"
        for key, was, now in _differences(before or {}, ref.experiment.to_dict())
        if before and not key.startswith(ignored)
    ]
    return f"{ref.stage} of {ref.cell} ({ref.key}) changes" + (f": {', '.join(_some(changes))}" if changes else "")


def _latest_by_key(store: Store) -> dict[tuple[str, str], Artifact]:
    """The newest whole output of each (stage, cell key)."""
    latest: dict[tuple[str, str], Artifact] = {}
    for artifact in store.artifacts():
        slot = (artifact.stage, str(artifact.manifest.get("key")))
        if slot not in latest or _started(latest[slot]) < _started(artifact):
            latest[slot] = artifact
    return latest


def _started(artifact: Artifact) -> float:
    return float(artifact.manifest.get("started", 0.0))


# --- differences in words -------------------------------------------------------------------------------------------


def changed_fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The differences of two stage identities in words: ``training.steps 500 → 600``, ``3 files changed, 1 removed
    (a.txt, …)``. Inputs are compared by the caller; many differences are counted, and long values cut."""
    words = [
        f"{key} {_shown(before)} → {_shown(after)}"
        for key, before, after in _differences(old.get("config", {}), new.get("config", {}))
    ]
    for key, before, after in _differences(old.get("source", {}), new.get("source", {})):
        files = _changed_files(before, after)
        words.append(files or f"{key} {_shown(before)} → {_shown(after)}")
    before, after = old.get("code", {}), new.get("code", {})
    words += [
        f"code of {key} '{after[key]['name']}' changed"
        for key in sorted(after)
        if key in before and after[key]["name"] == before[key]["name"] and after[key] != before[key]
    ]
    if old.get("version") != new.get("version"):
        words.append(f"code version {old.get('version')} → {new.get('version')}")
    return _some(words)


def _some(words: list[str]) -> list[str]:
    if len(words) <= _SHOWN_CHANGES:
        return words
    return [*words[:_SHOWN_CHANGES], f"and {len(words) - _SHOWN_CHANGES} more changes"]


def _differences(old: Any, new: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = []
        for key in sorted({*old, *new}):
            found += _differences(old.get(key), new.get(key), f"{prefix}.{key}".lstrip("."))
        return found
    return [] if old == new else [(prefix, old, new)]


def _changed_files(old: Any, new: Any) -> str | None:
    """How two lists of digests differ (``sumi_core.data.sources.digests``), None where they are not such lists."""
    before, after = _by_name(old), _by_name(new)
    if before is None or after is None:
        return None
    changes = {
        "changed": [name for name in before if name in after and before[name] != after[name]],
        "removed": [name for name in before if name not in after],
        "added": [name for name in after if name not in before],
    }
    counts = [f"{len(names)} {what}" for what, names in changes.items() if names]
    if not counts:  # the same files in another order
        return None
    every = [name for names in changes.values() for name in names]
    counts[0] = counts[0].replace(" ", " file " if counts[0].startswith("1 ") else " files ")
    shown = ", ".join([*map(_cut, every[:_SHOWN_FILES]), *(["…"] if len(every) > _SHOWN_FILES else [])])
    return f"{', '.join(counts)} ({shown})"


def _by_name(files: Any) -> dict[str, Any] | None:
    if not isinstance(files, list) or not all(isinstance(file, Mapping) and "name" in file for file in files):
        return None
    return {str(file["name"]): file for file in files}


def _shown(value: Any) -> str:
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_VALUE else f"{text[: _SHOWN_VALUE - 1]}…"
