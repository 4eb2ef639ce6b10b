"""Dagster runs of `sumi run` that are interrupted count as cancelled: Ctrl-C is a wish, and no failure of the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dagster import DagsterEvent, InitExecutorContext, executor
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.in_process import InProcessExecutor


class _Cancelling(InProcessExecutor):
    """Steps in this process. Dagster takes an interruption for a failure unless the run is being cancelled by then."""

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[DagsterEvent]:
        try:
            yield from super().execute(plan_context, execution_plan)
        except (KeyboardInterrupt, DagsterExecutionInterruptedError):
            plan_context.instance.report_run_canceling(plan_context.dagster_run, "`sumi run` was interrupted.")
            raise


@executor(name="in_process")
def cancelling_executor(_: InitExecutorContext) -> InProcessExecutor:
    """The in-process executor, for runs that a command line executes itself."""
    return _Cancelling(RetryMode.ENABLED)
