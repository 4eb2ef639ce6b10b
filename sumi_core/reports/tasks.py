"""How many instances of a structured task the methods of a comparison solve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sumi_core.base.statistics import Estimate, mean_estimate
from sumi_core.base.tables import read_table
from sumi_core.base.text import with_error
from sumi_core.reports.from_store import SweepComparison, figures_of, folder_of

if TYPE_CHECKING:
    import pandas as pd

TASK_NOTES = (
    "solved: share of validation instances whose answer the task's checker accepts, by the number of network calls, ± "
    "√(instances² + seeds²), since seeds answer the same questions with the same noise. In brackets: the share of "
    "valid answers, which have the form of one, right or not, and the mean number of calls where instances "
    "differ in it. All are means over seeds.",
)
_OTHERS = "other numbers of calls"


def task_rows(comparison: SweepComparison) -> list[dict[str, str]]:
    """A row for each method and form, a column for each number of network calls that all instances needed; what a
    sampler wrote in different numbers of calls shares the last column."""
    found: list[tuple[dict[str, str], dict[int | None, list[str]]]] = []
    for name, keys in comparison.members.items():
        folders = [folder_of(comparison.cells[key]) for key in keys]
        tables = [read_table(file) for folder in folders if (file := folder / "task_accuracy.parquet").is_file()]
        if not tables:
            continue
        first = next(own for key in keys if (own := figures_of(comparison.cells[key]).get("tasks")))
        for form, solved in _by_form(tables).items():
            named = {"cell": name, "task": first["task"], "form": form}
            found.append((named, solved))
    columns = sorted({calls for _, solved in found for calls in solved if calls is not None})
    others = [None] if any(None in solved for _, solved in found) else []
    return [
        named | {_title(calls): "; ".join(solved.get(calls, ["–"])) for calls in (*columns, *others)}
        for named, solved in found
    ]


def _title(calls: int | None) -> str:
    return _OTHERS if calls is None else f"{calls} call{'s' if calls > 1 else ''}"


def _by_form(tables: Sequence[pd.DataFrame]) -> dict[str, dict[int | None, list[str]]]:
    """The cells of the rows, by form and number of calls, of the tables ``task_accuracy.parquet`` of several seeds."""
    import pandas as pd

    found: dict[str, dict[int | None, list[str]]] = {}
    joined = pd.concat(tables, ignore_index=True)
    for (form, _), own in joined.groupby(["form", "steps"], sort=False):
        calls, solved = float(own["calls"].mean()), _solved(own["accuracy"].to_list(), own["accuracy_stderr"].to_list())
        whole = own["calls"].nunique() == 1 and calls.is_integer()
        beside = f"{own['validity'].mean():.2f}" + ("" if whole else f"; {calls:.1f} calls")
        cells = found.setdefault(str(form), {}).setdefault(int(calls) if whole else None, [])
        cells.append(f"{with_error(solved.value, solved.stderr)} ({beside})")
    return found


def _solved(accuracy: Sequence[float], stderr: Sequence[float]) -> Estimate:
    """The mean over seeds. stderr: over instances, of each seed."""
    mean, instances = mean_estimate(accuracy), math.fsum(stderr) / len(stderr)
    return Estimate(mean.value, math.hypot(mean.stderr, instances) if len(accuracy) > 1 else instances)
