"""An evaluation: the union of what its measurements found, and the page that people read.

metrics.json      every figure by its flat name
metrics.parquet   the same as a long table: group, name, steps, value, stderr
report.md         for people
plots/            of the measurements, and bits per byte beside the yardsticks
and the tables of the measurements, such as likelihood.parquet, loss_by_level.parquet and samples.parquet
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sumi_core.base.files import json_text
from sumi_core.base.hashing import flatten
from sumi_core.evaluation.measurement import ESTIMATES, Findings, NamedEstimate, read_plain_findings


def write_evaluation(
    folder: Path, key: str, labels: Mapping[str, str | None], measured: Mapping[str, Path]
) -> dict[str, Any]:
    """Write every file of an evaluation into ``folder`` and return its summary: plain data without NaN.

    labels: what a reader needs to know of the model (objective, process, …). measured: the output of each measurement
    by its name, in the order of the report. Raises ValueError for two measurements that write one file or figure."""
    found = {name: read_plain_findings(own) for name, own in measured.items()}
    summary = _united(labels, found)
    for own in measured.values():
        _copy(own, folder)
    flat = {
        name: float(value)
        for name, value in flatten(summary)
        if isinstance(value, int | float)  # a truth is 1 or 0
    }
    (folder / "metrics.json").write_text(json_text(flat) + "\n", encoding="utf-8")
    _write_estimates(folder, [own / ESTIMATES for own in measured.values()])
    if "bits_per_byte" in summary:
        _plot_beside_yardsticks(summary, key, folder / "plots" / "bits_per_byte.png")
    (folder / "report.md").write_text(report_markdown(key, list(found.values())), encoding="utf-8")
    return summary


def report_markdown(key: str, found: Sequence[Findings]) -> str:
    """The evaluation as a page: what each measurement has to say, and what its figures mean."""
    definitions = dict.fromkeys(line for own in found for line in own.definitions)
    parts = [
        f"# Evaluation of {key}",
        *(text for own in found for text in own.texts),
        "## What the figures mean",
        "\n".join(f"* {line}" for line in definitions),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _united(labels: Mapping[str, str | None], found: Mapping[str, Findings]) -> dict[str, Any]:
    summary: dict[str, Any] = dict(labels)
    for name, own in found.items():
        if taken := sorted(summary.keys() & own.summary.keys()):
            raise ValueError(f"measurement '{name}' reports {', '.join(taken)}, as another does; rename its figures")
        summary |= own.summary
    return summary


def _copy(own: Path, folder: Path) -> None:
    """The tables and plots of a measurement."""
    tables = [path for path in sorted(own.glob("*.parquet")) if path.name != ESTIMATES]
    for path in [*tables, *sorted(own.glob("plots/*"))]:
        target = folder / path.relative_to(own)
        if target.exists():
            raise ValueError(f"two measurements write {path.relative_to(own)}; rename that of {own.parent.name}")
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


def _write_estimates(folder: Path, tables: Sequence[Path]) -> None:
    import pandas as pd

    frames = [pd.read_parquet(path) for path in tables if path.is_file()]
    columns = list(NamedEstimate._fields)
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
    table.to_parquet(folder / ESTIMATES, index=False)


def _plot_beside_yardsticks(summary: Mapping[str, Any], key: str, path: Path) -> None:
    from sumi_core.evaluation.plots import Bar, plot_comparison

    error = summary.get("bits_per_byte_stderr", math.nan)
    bars = [Bar(key, summary["bits_per_byte"], error, "=" if summary["exact"] else "≤", 0)]
    bars += [Bar(name, value) for name, value in summary.get("yardsticks", {}).items()]
    plot_comparison(bars, path, "Bits per byte beside the yardsticks")
