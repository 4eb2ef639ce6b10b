"""What a sweep needs next, as requests to Dagster's daemon, for schedules and sensors. Computes nothing.

A sweep goes in waves: the token sets that its cells lack; the clusters, for cells whose noise uses them; the cells,
those that others start from first; the cells that failed and have attempts left; the report. Cells of other sweeps that
its own start from belong to its waves. A wave is requested when every run of the one before has ended, so the state of
the store is all that has to be known, and asking twice requests nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from dagster import AssetKey, DagsterInstance, DagsterRun, DagsterRunStatus, RunRequest, RunsFilter

from pipelines.health import is_gone
from pipelines.jobs import JOBS, OPTIONAL_STAGES
from sumi_core.experiments.sweeps import Sweep
from sumi_core.lineage.plan import CellPlan, plan_with_ancestors
from sumi_core.stages import DATA_STAGES
from sumi_core.stages.identity import foreign_refs, ref_fingerprint
from sumi_core.stages.store import Store

SWEEP_TAG = "sumi/sweep"  # on every run that is requested here
ASKER_TAG = "sumi/asked_by"  # the requester, which also requests the waves that follow
RECIPE_TAG = "sumi/recipe"  # what was to be computed: partition:fingerprint
REPORT_RECIPE = "report"
_UNKNOWN = "not loaded by Dagster yet"


@dataclass(frozen=True)
class Partitions:
    """The partition keys that Dagster has loaded: those of the experiment files at that time."""

    cells: Collection[str]
    token_sets: Mapping[str, str]  # cell → token set
    sweeps: Collection[str]


@dataclass
class Wave:
    """What to request now, and why not more. ``last``: nothing is left to request after this. ``unknown``: cells that
    Dagster has to load first."""

    requests: list[RunRequest] = field(default_factory=list)
    why: str = ""
    last: bool = False
    unknown: list[str] = field(default_factory=list)


class History:
    """The runs that were requested for a sweep, newest first."""

    def __init__(self, instance: DagsterInstance, sweep: str) -> None:
        self.instance = instance
        self.runs: Sequence[DagsterRun] = instance.get_runs(RunsFilter(tags={SWEEP_TAG: sweep}))

    def in_progress(self) -> list[DagsterRun]:
        """The runs that have not ended and whose processes, as far as known, are alive."""
        return [run for run in self.runs if not run.is_finished and not is_gone(self.instance, run)]

    def count(self, recipe: str) -> int:
        """How often a recipe was requested."""
        return len(self._of(recipe))

    def was_cancelled(self, recipe: str) -> bool:
        """Whether the newest run of a recipe was cancelled."""
        return any(run.status == DagsterRunStatus.CANCELED for run in self._of(recipe)[:1])

    def failures(self, recipe: str) -> int:
        """How often it failed since it last succeeded. A cancelled run does not count."""
        failed = 0
        for run in self._of(recipe):
            if run.status == DagsterRunStatus.SUCCESS:
                break
            failed += run.status != DagsterRunStatus.CANCELED
        return failed

    def _of(self, recipe: str) -> list[DagsterRun]:
        return [run for run in self.runs if run.tags.get(RECIPE_TAG) == recipe]


def is_under_way(instance: DagsterInstance, sweep: str, asker: str) -> bool:
    """Whether a sweep that ``asker`` began has not come to its report yet."""
    newest = instance.get_runs(RunsFilter(tags={SWEEP_TAG: sweep, ASKER_TAG: asker}), limit=1)
    return bool(newest) and newest[0].tags.get(RECIPE_TAG) != REPORT_RECIPE


def next_wave(
    instance: DagsterInstance,
    store: Store,
    sweep: Sweep,
    known: Partitions,
    asker: str,
    only: Collection[str] | None = None,
    follows: bool = False,
) -> Wave:
    """What a sweep needs now, or what those of its cells need that ``only`` names. ``follows``: this goes on with
    earlier waves, so a run that was cancelled meanwhile is left alone."""
    history = History(instance, sweep.name)
    if running := history.in_progress():
        return Wave(why=f"{sweep.name}: {len(running)} of its runs are in progress")
    asked = [cell for cell in sweep.cells if only is None or cell.key in only]
    pending = [planned for planned in plan_with_ancestors(asked, store) if planned.state != "done"]
    left_out: dict[str, list[str]] = {}
    token_sets: dict[str, RunRequest] = {}
    cells: dict[str, RunRequest] = {}
    for planned in pending:
        key, token_set = planned.cell.key, known.token_sets.get(planned.cell.key, "")
        recipes = {"cell": f"{key}:{planned.stages[-1].fingerprint}"}
        if any(stage.stage in DATA_STAGES for stage in planned.pending):
            recipes["token_set"] = f"{token_set}:{_fingerprint(planned, DATA_STAGES[-1])}"
        elif optional := [stage for stage in planned.pending if stage.stage in OPTIONAL_STAGES]:
            recipes["clusters"] = f"{key}:{optional[-1].fingerprint}"
        reason = _hindrance(planned, history, recipes, store, sweep.options.retries, known)
        if follows and history.was_cancelled(recipes["cell"]):
            reason = "cancelled"
        if reason is not None:
            left_out.setdefault(reason, []).append(key)
            continue
        job = next(name for name in JOBS if name in recipes)  # in the order of the waves
        partition = token_set if job == "token_set" else key
        if job == "cell" and (before := _not_computed(planned, store)):
            left_out.setdefault(f"{before}, which they start from, is not computed", []).append(key)
            continue
        attempt = 1 + max(_recorded(planned, store), history.count(recipes[job]))
        asked_for = token_sets if job == "token_set" else cells
        asked_for[partition] = _request(sweep, asker, job, partition, recipes[job], attempt)
    why = "; ".join(f"{reason}: {', '.join(keys)}" for reason, keys in left_out.items()) or "every cell is done"
    unknown = left_out.get(_UNKNOWN, [])
    if token_sets or cells:
        return Wave([*(token_sets or cells).values()], why, unknown=unknown)
    if (only is not None or is_under_way(instance, sweep.name, asker)) and sweep.name in known.sweeps:
        attempt = 1 + history.count(REPORT_RECIPE)
        report = _request(sweep, asker, "report", sweep.name, REPORT_RECIPE, attempt)
        return Wave([report], why, last=True, unknown=unknown)
    return Wave(why=f"{sweep.name}: {why}", last=True, unknown=unknown)


def _request(sweep: Sweep, asker: str, job: str, partition: str, recipe: str, attempt: int) -> RunRequest:
    return RunRequest(
        run_key=f"{sweep.name}:{recipe}:{attempt}",  # a sweep has runs of its own, which show its progress
        partition_key=partition,
        asset_selection=[AssetKey(asset) for asset in JOBS[job]],
        tags={SWEEP_TAG: sweep.name, ASKER_TAG: asker, RECIPE_TAG: recipe},
    )


def _hindrance(
    planned: CellPlan, history: History, recipes: Mapping[str, str], store: Store, retries: int, known: Partitions
) -> str | None:
    """Why a cell that is not done is not requested; None if it is."""
    if planned.state in ("blocked", "damaged"):
        return planned.state
    if max(_recorded(planned, store), *map(history.failures, recipes.values())) > retries:
        return "failed, and no attempt is left"
    cell = planned.cell.key
    return None if cell in known.cells and cell in known.token_sets else _UNKNOWN


def _not_computed(planned: CellPlan, store: Store) -> str | None:
    """The first cell whose output this one needs and that is not there."""
    refs = foreign_refs(planned.cell.experiment)
    return next((ref.cell for ref in refs if store.condition(ref.stage, ref_fingerprint(ref)).state != "whole"), None)


def _recorded(planned: CellPlan, store: Store) -> int:
    """Attempts that failed, by any way of running, of the stage that most often did."""
    failures = (store.failure(stage.stage, stage.fingerprint) for stage in planned.pending)
    return max((failure["attempts"] for failure in failures if failure), default=0)


def _fingerprint(planned: CellPlan, stage: str) -> str:
    return next(found.fingerprint for found in planned.stages if found.stage == stage)
