"""Sweeps that run themselves: a schedule for each that has a ``cron``, and two sensors.

A schedule begins a sweep, and the sensor ``sweeps_under_way`` goes on with it, wave after wave, up to its report. The
sensor ``edited_experiments`` sees to cells whose recipe changes while it is on, and to no others. All of them read the
experiment files as they are now; runs can only be requested for partitions that Dagster has loaded, so where those
differ it is made to load them again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from dagster import (
    DefaultScheduleStatus,
    DefaultSensorStatus,
    RunRequest,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
)
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME

from assets.partitions import CELLS_BY_KEY, REMEMBERED, SWEEPS_BY_NAME, TOKEN_SET_OF_CELL
from pipelines.automation import Partitions, is_under_way, next_wave
from sumi_core.base.errors import SumiError
from sumi_core.base.text import reason_of
from sumi_core.experiments.sweeps import Sweep, Sweeps
from sumi_core.experiments.token_sets import token_set_names
from sumi_core.lineage.links import dagster_ui
from sumi_core.lineage.project import Project
from sumi_core.stages import STAGES
from sumi_core.stages.identity import experiment_fingerprints, refresh_source_identities

_SCHEDULE, _EDIT = "schedule", "edit"  # the requester


def sweep_schedules(sweeps: Iterable[Sweep] = SWEEPS_BY_NAME.values()) -> list[ScheduleDefinition]:
    """One schedule for each sweep with a cron, off until it is turned on in Dagster."""
    return [_schedule(sweep) for sweep in sweeps if sweep.options.cron is not None and sweep.key == sweep.name]


def _schedule(sweep: Sweep) -> ScheduleDefinition:
    def begin(context: ScheduleEvaluationContext) -> Iterator[RunRequest | SkipReason]:
        project = Project.find()
        sweeps = project.sweeps()
        refresh_source_identities()
        if sweep.name not in sweeps:
            yield SkipReason(str(sweeps.broken.get(sweep.file, f"{sweep.file}: no such file")))
            return
        wave = next_wave(context.instance, project.store, sweeps[sweep.name], _loaded(sweeps), _SCHEDULE)
        yield from wave.requests
        if not wave.requests:
            yield SkipReason(wave.why)

    assert sweep.options.cron is not None
    return ScheduleDefinition(
        name=_schedule_name(sweep.name),
        cron_schedule=sweep.options.cron,
        job_name=IMPLICIT_ASSET_JOB_NAME,  # the one job whose runs may be of token sets, cells and sweeps alike
        execution_fn=begin,
        default_status=DefaultScheduleStatus.STOPPED,
        description=f"{sweep.description} Asks for the cells of {sweep.name} that are not done.",
    )


def _go_on(context: SensorEvaluationContext) -> SensorResult:
    remembered = Project.find().changed_cells.read()
    note = ""
    if any(own not in REMEMBERED for own in remembered):  # `sumi run` has computed something with changes meanwhile
        origin = context.code_location_origin
        note = reload_location(origin.location_name if origin else None)
    under_way = [name for name in SWEEPS_BY_NAME if is_under_way(context.instance, name, _SCHEDULE)]
    if not under_way:
        return SensorResult(skip_reason=note or "no schedule has begun a sweep that is not at its end")
    project = Project.find()
    sweeps = project.sweeps()
    refresh_source_identities()
    waves = [
        next_wave(context.instance, project.store, sweeps[name], _loaded(sweeps), _SCHEDULE, follows=True)
        for name in under_way
        if name in sweeps
    ]
    requests = [request for wave in waves for request in wave.requests]
    if requests:
        return SensorResult(requests)
    return SensorResult(skip_reason="; ".join(wave.why for wave in waves) or "its experiment file cannot be read")


def _notice(context: SensorEvaluationContext) -> SensorResult:
    """The cursor holds the recipes that were seen last, the versions of the stages, and what was requested and is under
    way. What is new is requested, and forgotten when its report is."""
    project = Project.find()
    refresh_source_identities()
    sweeps, versions = project.sweeps(), {name: stage.version for name, stage in STAGES.items()}
    seen, found = json.loads(context.cursor or "{}"), _recipes(sweeps)
    if seen.get("versions") != versions:  # of Sumi itself: recomputing everything is not decided here
        cursor = json.dumps({"versions": versions, "recipes": found, "asked": {}})
        return SensorResult(cursor=cursor, skip_reason=f"watches {sum(map(len, found.values()))} cells from now on")
    asked: dict[str, list[str]] = seen["asked"]
    for sweep, recipes in found.items():
        before = seen["recipes"].get(sweep)
        if before is not None:  # a new file is begun by hand or by its schedule: it may not be finished
            changed = [key for key, recipe in recipes.items() if before.get(key) != recipe]
            if changed:
                asked[sweep] = list(dict.fromkeys([*asked.get(sweep, []), *changed]))
    loaded, requests, said = _loaded(sweeps), [], []
    for name, keys in [*asked.items()]:
        if name not in sweeps:  # gone, or it cannot be read now
            continue
        wave = next_wave(context.instance, project.store, sweeps[name], loaded, _EDIT, only=keys, follows=True)
        said.append(wave.why)
        if not wave.last:
            requests += wave.requests
        elif not wave.unknown:
            requests += wave.requests
            del asked[name]
        if wave.unknown:
            origin = context.code_location_origin
            said.append(reload_location(origin.location_name if origin else None))
    # Files that cannot be read now keep what was seen of them.
    cursor = json.dumps({"versions": versions, "recipes": {**seen["recipes"], **found}, "asked": asked})
    if requests:
        return SensorResult(requests, cursor=cursor)
    return SensorResult(cursor=cursor, skip_reason="; ".join(said) or "no recipe has changed")


def _recipes(sweeps: Sweeps) -> dict[str, dict[str, str]]:
    """Sweep → cell → the fingerprint of its last stage, which covers all before it and the data they are made from."""
    found: dict[str, dict[str, str]] = {}
    for sweep in sweeps.values():
        try:
            found[sweep.name] = {
                cell.key: [*experiment_fingerprints(cell.experiment).values()][-1] for cell in sweep.cells
            }
        except (SumiError, OSError):  # what it is made from is gone: `sumi list` names it
            continue
    return found


def _loaded(sweeps: Sweeps) -> Partitions:
    """The partitions of this process, as far as they mean what they mean in the files now."""
    cells = {cell.key: cell.experiment for sweep in sweeps.values() for cell in sweep.cells}
    names = token_set_names(cells.items())
    same = {key: name for key, name in TOKEN_SET_OF_CELL.items() if names.get(key) == name}
    return Partitions(CELLS_BY_KEY, same, SWEEPS_BY_NAME)


def reload_location(name: str | None) -> str:
    """Ask the web server to load a code location, and so the experiment files, again. Returns what came of it."""
    from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError, ReloadRepositoryLocationStatus
    from gql.transport.requests import RequestsHTTPTransport

    url, by_hand = dagster_ui(), "reload the code location in the Dagster UI (Deployment)"
    if name is None:
        return by_hand
    direct: Any = {"http": None, "https": None, "all": None}  # never through a proxy: it is local
    transport = RequestsHTTPTransport(f"{url}/graphql", use_json=True, timeout=30, proxies=direct)
    try:
        told = DagsterGraphQLClient(url, transport=transport).reload_repository_location(name)
    except DagsterGraphQLClientError as error:
        return f"{by_hand}: {url} does not answer ({reason_of(error.__cause__ or error)})"
    if told.status == ReloadRepositoryLocationStatus.SUCCESS:
        return "asked Dagster to load them"
    return f"{by_hand}: {told.message}"


def _schedule_name(sweep: str) -> str:
    """Dagster's names have fewer characters than ours: what it lacks is spelt out, so that no two become one."""
    return "sweep_" + "".join({"-": "_dash_", "+": "_plus_"}.get(letter, letter) for letter in sweep)


sweeps_under_way = SensorDefinition(
    name="sweeps_under_way",
    evaluation_fn=_go_on,
    job_name=IMPLICIT_ASSET_JOB_NAME,
    minimum_interval_seconds=30,
    default_status=DefaultSensorStatus.RUNNING,  # it begins nothing by itself
    description="Goes on with sweeps that a schedule began: cells, failed ones that have attempts left, the report.",
)
edited_experiments = SensorDefinition(
    name="edited_experiments",
    evaluation_fn=_notice,
    job_name=IMPLICIT_ASSET_JOB_NAME,
    minimum_interval_seconds=60,  # it reads every experiment file and what the corpora are made from
    default_status=DefaultSensorStatus.STOPPED,
    description="Computes cells anew when their file, its base or their corpus changes, and the report after them.",
)
