"""Run a plan through Dagster from the command line: one Dagster run a token set, a cell, a report.

Runs execute in this process, or, with several jobs at once, one process a cell; training always has its own process.
What is already whole is found by the assets themselves, so two of these at once never compute a thing twice.

    python -m pipelines.execution CELL [key=value …]      one cell, as the parallel runner starts it
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from dagster import DagsterInstance

from assets.partitions import TOKEN_SET_OF_CELL
from pipelines.instance import open_instance, process_tag
from pipelines.jobs import JOBS
from pipelines.terminal import fitted
from sumi_core.base.process import die_with_parent
from sumi_core.experiments.sweeps import Cell
from sumi_core.lineage.plan import CellPlan
from sumi_core.lineage.project import Project
from sumi_core.stages import DATA_STAGES

INTERRUPTED = 130  # the exit status of a process that Ctrl-C ended

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


def execute(instance: DagsterInstance, plans: Iterable[CellPlan], jobs: int = 1) -> Outcome:
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
    if jobs > 1 and len(ready) > 1:
        _run_cells_at_once(ready, jobs, outcome)
    else:
        for cell in ready:
            outcome.note(cell, outcome.hindrance(cell) or run_job(instance, "cell", cell.key, cell.overrides))
    return outcome


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
    result = defs.resolve_job_def(job).execute_in_process(
        partition_key=partition, instance=instance, run_config=config, tags=process_tag(), raise_on_error=False
    )
    if result.success:
        return None
    for event in result.all_events:
        error = getattr(event.event_specific_data, "error", None) if event.is_step_failure else None
        if error is not None:
            while error.cause is not None:  # Dagster wraps what the asset raised
                error = error.cause
            if error.cls_name == "DagsterExecutionInterruptedError":
                raise KeyboardInterrupt  # Ctrl-C or SIGTERM: nothing else is to be started
            told = str(error.message).strip().splitlines()[0]
            return _CLASS_PATH.sub("", told)
    return "the run failed; see it in the Dagster UI"


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
    die_with_parent()
    try:
        error = run_job(open_instance(Project.find()), "cell", key, overrides)
    except KeyboardInterrupt:
        return INTERRUPTED
    if error:
        print(error, file=sys.stderr)
    return 1 if error else 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], sys.argv[2:]))
