"""What a sweep needs: which cells are done, which would be computed, and which field of the config is why.

Everything is read from the store: a stage is done when its current fingerprint has a whole output there. An output of
the same cell under another fingerprint makes the cell stale, and the difference of the two recorded configs says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sumi_core.lineage.fingerprint import fingerprint
from sumi_core.lineage.store import Artifact, Store
from sumi_core.stages import STAGES, stage_identity
from sumi_core.sweeps import Cell

State = Literal["done", "running", "failed", "interrupted", "stale", "missing"]


@dataclass(frozen=True)
class StagePlan:
    """One stage of one cell: its state, and in words why it is so."""

    stage: str
    fingerprint: str
    state: State
    why: str


@dataclass(frozen=True)
class CellPlan:
    """A cell's stages in order. Its own state is that of the first stage that is not done."""

    cell: Cell
    stages: tuple[StagePlan, ...]

    @property
    def pending(self) -> tuple[StagePlan, ...]:
        """Stages that would be computed."""
        return tuple(stage for stage in self.stages if stage.state != "done")

    @property
    def state(self) -> State:
        """The cell's state: done, or the most telling one of what is pending."""
        states = {stage.state for stage in self.pending}
        order: tuple[State, ...] = ("running", "failed", "interrupted", "stale", "missing")
        return next((state for state in order if state in states), "done")

    @property
    def why(self) -> str:
        """Why the cell is in its state."""
        return next((f"{s.stage}: {s.why}" for s in self.pending if s.state == self.state), "every stage is whole")


def plan(cells: Iterable[Cell], store: Store) -> list[CellPlan]:
    """The state of each cell. Reads the sources' identities and the store; computes nothing."""
    earlier = _latest_by_key(store)
    return [_plan_cell(cell, store, earlier) for cell in cells]


def _plan_cell(cell: Cell, store: Store, earlier: Mapping[tuple[str, str], Artifact]) -> CellPlan:
    stages: list[StagePlan] = []
    for name in STAGES:
        identity = stage_identity(cell.experiment, name)
        own = fingerprint(identity)
        state, why = _stage_state(cell, name, own, identity, store, earlier, stages)
        stages.append(StagePlan(name, own, state, why))
    return CellPlan(cell, tuple(stages))


def _stage_state(
    cell: Cell,
    name: str,
    own: str,
    identity: dict[str, Any],
    store: Store,
    earlier: Mapping[tuple[str, str], Artifact],
    before: list[StagePlan],
) -> tuple[State, str]:
    if store.find(name, own) is not None:
        return "done", "cached"
    if store.is_busy(name, own):
        return "running", "being computed now"
    if failure := store.failure(name, own):
        return "failed", f"{failure['error']} (attempt {failure['attempts']})"
    if store.folder(name, own).with_suffix(".partial").exists():
        resumes = "continues where it was" if STAGES[name].resumable else "starts again"
        return "interrupted", f"an earlier run was interrupted; it {resumes}"
    old = earlier.get((name, cell.key))
    if old is None:
        return "missing", "never computed"
    changed = changed_fields(old.manifest["identity"], identity)
    inputs = [
        s.stage
        for s in before
        if s.stage in STAGES[name].inputs and s.fingerprint != old.manifest["inputs"].get(s.stage)
    ]
    words = changed or [f"its input {stage} changes" for stage in inputs]
    return "stale", "; ".join(words) or "its recipe changed"


def _latest_by_key(store: Store) -> dict[tuple[str, str], Artifact]:
    """The newest whole output of each (stage, cell key)."""
    latest: dict[tuple[str, str], Artifact] = {}
    for artifact in store.artifacts():
        slot = (artifact.stage, str(artifact.manifest.get("key")))
        if slot not in latest or latest[slot].manifest["started"] < artifact.manifest["started"]:
            latest[slot] = artifact
    return latest


def changed_fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The differences of two stage identities in words: ``training.steps 500 → 600``; inputs are told apart."""
    words = [
        f"{key} {before!r} → {after!r}"
        for key, before, after in _differences(old.get("config", {}), new.get("config", {}))
    ]
    words += [
        f"source {key} {before!r} → {after!r}"
        for key, before, after in _differences(old.get("source", {}), new.get("source", {}))
    ]
    if old.get("version") != new.get("version"):
        words.append(f"code version {old.get('version')} → {new.get('version')}")
    return words


def _differences(old: Any, new: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = []
        for key in sorted({*old, *new}):
            found += _differences(old.get(key), new.get(key), f"{prefix}.{key}".lstrip("."))
        return found
    return [] if old == new else [(prefix, old, new)]
