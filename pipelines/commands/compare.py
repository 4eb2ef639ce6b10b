"""``sumi compare``."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from sumi_core.config import ConfigError
from sumi_core.lineage.comparison import comparison_table
from sumi_core.lineage.store import write_atomically
from sumi_core.project import Project
from sumi_core.sweeps import select_cells, split_arguments


def compare_command(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="NAME… [key=value …]", help="Experiments, cells or globs; then changes to them."),
    ],
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write the table to this file as well.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows to this file as well.")] = None,
) -> None:
    """Print the comparison table of cells, from MLflow: bits per byte (≤ an upper bound, = exact) ± standard error."""
    names, overrides = split_arguments(arguments)
    project = Project.find()
    rows = comparison_table(project, select_cells(project.sweeps(overrides), names))
    print_comparison(rows)
    if csv_file is not None:
        _write(csv_file, "--csv", as_csv(rows))
    if json_file is not None:
        _write(json_file, "--json", json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


def print_comparison(rows: Sequence[Mapping[str, Any]]) -> None:
    """The table for people: framed on a terminal, plain aligned text elsewhere."""
    from sumi_core.evaluation.rendering import print_table

    print_table([shown_row(row) for row in rows], sys.stdout)
    print("\nbits per byte of validation text: ≤ upper bound, = exact, ± one standard error; […] yardsticks")


def shown_row(row: Mapping[str, Any]) -> dict[str, str]:
    """A row of the comparison as text."""
    from sumi_core.evaluation.rendering import excerpt, short_count, short_duration, with_error

    if row["kind"] == "yardstick":
        return {"cell": f"[{row['name']}]", "bits per byte": f"  {row['bits_per_byte']:.3f}"}
    figure = f"{row['state']}: {excerpt(row['why'], 60)}"
    if row["bits_per_byte"] is not None:
        figure = with_error(row["bits_per_byte"], row["stderr"], "=" if row["exact"] else "≤")
    change = "–"
    if row["difference"] is not None:
        change = ("+" if row["difference"] >= 0 else "") + with_error(row["difference"], row["difference_stderr"])
    elif row["reference"] == row["name"]:
        change = "reference"
    return {
        "cell": row["name"],
        "bits per byte": figure,
        "to reference": change,
        "method": "/".join(filter(None, (row["objective"], row["process"], row["schedule"]))),
        "parameters": short_count(row["parameters"]),
        "tokens seen": short_count(row["train_tokens"]),
        "FLOPs": short_count(row["flops"]),
        "wall time": short_duration(row["seconds"]),
    }


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV, the axes of a sweep in columns of their own."""
    flat = []
    for row in rows:
        axes = {f"axis.{axis}": label for axis, label in row.get("labels", {}).items()}
        flat.append({**{key: value for key, value in row.items() if key != "labels"}, **axes})
    columns = list(dict.fromkeys(key for row in flat for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _write(path: Path, option: str, text: str) -> None:
    try:
        write_atomically(path, text)
    except OSError as error:
        raise ConfigError("command line", option, f"cannot write {path}: {error.strerror}") from None
