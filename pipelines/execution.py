"""Run a plan through Dagster from the command line: one Dagster run a token set, a cell, a report.

Runs execute in this process, or, with several jobs at once, one process a cell; training always has its own process.
What is already whole is found by the assets themselves, so two of these at once never compute a thing twice.

    python -m pipelines.execution CELL [key=value …]      one cell, as the parallel runner starts it
"""

from __future__ import annotations

import contextlib
import functools
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dagster import DagsterEventType, DagsterInstance
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.workspace.load_target import ModuleTarget, WorkspaceFileTarget

from assets.partitions import TOKEN_SET_OF_CELL
from pipelines.cancelling import cancelling_executor
from pipelines.instance import open_instance, process_tag
from pipelines.jobs import JOBS, OPTIONAL_STAGES
from pipelines.launchers import TRAINER_MODULES
from pipelines.terminal import fitted
from sumi_core.base.forking import ForkServer
from sumi_core.base.process import die_with_parent
from sumi_core.base.text import reason_of
from sumi_core.experiments.sweeps import Cell
from sumi_core.lineage.plan import CellPlan
from sumi_core.lineage.project import Project
from sumi_core.stages import DATA_STAGES
from sumi_core.stages.identity import stages_of

INTERRUPTED = 130  # the exit status of a process that Ctrl-C ended

_TRAINING = "pretrained_denoiser"  # the stage that has a process of its own
_CLASS_PATH = re.compile(r"^(?:\w+\.)+\w+: ")  # "sumi_core.data.shards.ShardError: " before the sentence itself


_Name = tuple[str, tuple[str, ...]]  # a cell may be there twice, as its file says and with overrides


def _name(cell: Cell) -> _Name:
    return cell.key, cell.overrides


@dataclass
class Outcome:
    """What became of a request: the reason of each key that did not end well."""

    failed: dict[str, str] = field(default_factory=dict)
    _cells: set[_Name] = field(default_factory=set)

    def note(self, cell: Cell, error: str | None) -> None:
        """Keep an error, if there is one."""
        if error:
            self.failed[cell.key] = error
            self._cells.add(_name(cell))

    def hindrance(self, cell: Cell) -> str | None:
        """Why a cell need not be tried: one that it starts from did not end well."""
        failed = [parent.key for parent in cell.parents if _name(parent) in self._cells]
        return f"'{failed[0]}', which it starts from, failed" if failed else None


def execute(instance: DagsterInstance, plans: Sequence[CellPlan], jobs: int = 1) -> Outcome:
    """Compute what the plans need: token sets first, then cells, ``jobs`` at once, each after those of the plans that
    it starts from. A cell's overrides are its own."""
    outcome = Outcome()
    told: dict[tuple[str, ...], str | None] = {}  # what the data stages of a recipe ended with
    ready: list[Cell] = []
    for planned in plans:
        cell, recipe = planned.cell, _data_recipe(planned)
        if recipe and recipe not in told:
            told[recipe] = run_job(instance, "token_set", TOKEN_SET_OF_CELL[cell.key], cell.overrides, asking=cell.key)
        if error := told.get(recipe):
            outcome.note(cell, error)
        else:
            ready.append(cell)
    with _server_of_trainers(plans):
        if jobs > 1 and len(ready) > 1:
            _run_cells_at_once(ready, jobs, outcome)
        else:
            for cell in ready:
                outcome.note(cell, outcome.hindrance(cell) or run_cell(instance, cell))
    return outcome


def _server_of_trainers(plans: Sequence[CellPlan]) -> contextlib.AbstractContextManager[object]:
    """What lets several trainings share their imports, which take longer than a small one."""
    trainings = sum(s.stage == _TRAINING and s.state != "done" for planned in plans for s in planned.stages)
    return ForkServer(TRAINER_MODULES) if trainings > 1 else contextlib.nullcontext()


def run_cell(instance: DagsterInstance, cell: Cell) -> str | None:
    """A cell, after what it alone has before its training. Returns None, or why it failed in one line."""
    optional = set(OPTIONAL_STAGES) & set(stages_of(cell.experiment))
    before = run_job(instance, "clusters", cell.key, cell.overrides) if optional else None
    return before or run_job(instance, "cell", cell.key, cell.overrides)


def run_job(
    instance: DagsterInstance, job: str, partition: str, overrides: Sequence[str], asking: str = ""
) -> str | None:
    """One Dagster run in this process. Returns None, or why it failed in one line. asking: the cell that a token set
    is computed for."""
    from pipelines.console import keep_terminal
    from pipelines.definitions import defs

    keep_terminal()
    print(f"{job.replace('_', ' ')} {partition}", flush=True)
    config: dict[str, Any] = {"loggers": {"console": {}}}
    if overrides:
        cell = {"overrides": list(overrides), "cell": asking}
        config["ops"] = {asset: {"config": cell} for asset in JOBS[job]}
    definition = defs.resolve_job_def(job)
    run = instance.create_run_for_job(
        definition,
        run_config=config,
        tags={**definition.get_tags_for_partition_key(partition, selected_asset_keys=None), **process_tag()},
        remote_job_origin=job_origin(job),
    )
    result = execute_run(InMemoryJob(definition.with_executor_def(cancelling_executor)), run, instance)
    if result.success:
        return None
    for event in result.all_events:  # of a step, or of the run, before its first step or between two
        ended = event.is_step_failure or event.is_failure or event.event_type == DagsterEventType.RUN_CANCELED
        error = getattr(event.event_specific_data, "error", None) if ended else None
        if error is not None:
            while error.cause is not None:  # Dagster wraps what the asset raised
                error = error.cause
            if error.cls_name in ("DagsterExecutionInterruptedError", "KeyboardInterrupt", "ParentDied"):
                raise KeyboardInterrupt  # Ctrl-C or SIGTERM: nothing else is to be started
            return _CLASS_PATH.sub("", reason_of(error.message))
    return "the run failed; see it in the Dagster UI"


@functools.cache
def job_origin(job: str) -> RemoteJobOrigin:
    """Where the web interface finds a job: without it, a run would belong to no job there, and to no timeline."""
    from pipelines.definitions import defs

    workspace = Project.find().root / "workspace.yaml"
    target = (
        WorkspaceFileTarget([str(workspace)])
        if workspace.is_file()
        else ModuleTarget("pipelines.definitions", None, str(Path.cwd()), None)
    )
    locations = list(target.create_origins())
    ours = [own for own in locations if own.location_name == "pipelines.definitions"]
    return RemoteRepositoryOrigin((ours or locations)[0], defs.get_repository_def().name).get_job_origin(job)


def _data_recipe(planned: CellPlan) -> tuple[str, ...]:
    """The fingerprints of a cell's data stages, if one of them is to be computed."""
    data = [stage for stage in planned.stages if stage.stage in DATA_STAGES]
    return tuple(stage.fingerprint for stage in data) if any(stage.state != "done" for stage in data) else ()


def _run_cells_at_once(cells: Sequence[Cell], jobs: int, outcome: Outcome) -> None:
    children: list[subprocess.Popen[str]] = []
    runs: dict[_Name, Future[None]] = {}

    def run(cell: Cell) -> None:
        wait([runs[_name(parent)] for parent in cell.parents if _name(parent) in runs])
        if hindrance := outcome.hindrance(cell):
            outcome.note(cell, hindrance)
            return
        command = [sys.executable, "-m", "pipelines.execution", cell.key, *cell.overrides]
        with tempfile.TemporaryFile("w+") as errors:  # a pipe that is not emptied would stop the child
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace")
            children.append(child)
            assert child.stdout is not None
            for line in child.stdout:
                print(fitted(f"{cell.key:<24} ", line.strip()), flush=True)
            if child.wait() != 0:
                errors.seek(0)
                last = errors.read().strip().splitlines()[-1:]
                outcome.note(cell, last[0] if last else f"its process ended with status {child.returncode}")

    with ThreadPoolExecutor(jobs) as pool:
        try:
            # The pool takes them up in this order, so those that wait for others wait for some that have begun.
            for cell in sorted(cells, key=_depth):
                runs[_name(cell)] = pool.submit(run, cell)
            for future in runs.values():
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in children:
                child.terminate()
            raise


def _depth(cell: Cell) -> int:
    """How many trainings lie before a cell's own."""
    return 1 + max(map(_depth, cell.parents), default=-1)


def _main(key: str, overrides: Sequence[str]) -> int:
    from assets.partitions import CELLS_BY_KEY

    die_with_parent()
    try:
        error = run_cell(open_instance(Project.find()), replace(CELLS_BY_KEY[key], overrides=tuple(overrides)))
    except KeyboardInterrupt:
        return INTERRUPTED
    if error:
        print(error, file=sys.stderr)
    return 1 if error else 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], sys.argv[2:]))
