"""``sumi compare``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sumi_core.base.files import json_text, write_atomically
from sumi_core.base.options import ConfigError
from sumi_core.experiments.sweeps import Cell, Sweep, Sweeps, select_cells, split_arguments
from sumi_core.lineage.project import Project
from sumi_core.reports.from_mlflow import compare_tracked


def compare_command(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="NAME… [key=value …]", help="Experiments, cells or globs; then changes to them."),
    ],
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write the rows to this file as well; -: to stdout, and no table.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="The same for rows, differences and the standing, as JSON.")
    ] = None,
    latex_file: Annotated[
        Path | None, typer.Option("--latex", help="The same for the table, as LaTeX with booktabs rules.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option("--plots", help="Write the plots of these cells into this folder, as SVG and PDF.")
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option(
            "--study", help="Write the figures of one experiment into this Markdown file, and its plots next to it."
        ),
    ] = None,
) -> None:
    """Print the comparison of cells, from their figures in MLflow.

    Cells that differ only in their seed are one row. Bits per byte (≤ an upper bound, = exact) ± standard error, paired
    differences to the reference with corrected p-values, and what each model cost."""
    from sumi_core.base.text import text_width
    from sumi_core.reports.pages import comparison_text

    names, overrides = split_arguments(arguments)
    project = Project.find()
    sweeps = project.sweeps(overrides, names)
    cells = select_cells(sweeps, names)
    references = {sweeps.of(cell).reference for cell in cells} & {cell.group for cell in cells}
    reference = references.pop() if len(references) == 1 else None
    studied = _only_sweep(sweeps, cells) if study is not None else None  # refused before anything is written
    comparison = compare_tracked(project, cells, reference)
    if _STDOUT not in (csv_file, json_file, latex_file):
        print(comparison_text(comparison, text_width(sys.stdout)), end="")
    if latex_file is not None:
        import pandas as pd

        from sumi_core.reports.latex import to_latex

        table = pd.DataFrame([row.flat() for row in comparison.rows if row.group is None])
        _write(latex_file, "--latex", to_latex(table))
    if csv_file is not None:
        _write(csv_file, "--csv", comparison.to_csv())
    if json_file is not None:
        _write(json_file, "--json", json_text(comparison.to_dict()) + "\n")
    if study is not None and studied is not None:
        _write_study(project, studied, study)
    if plots is not None:
        _write_plots(project, cells, reference, plots)


def _write_study(project: Project, sweep: Sweep, path: Path) -> None:
    """Write the report of a sweep as the generated part of a document."""
    from sumi_core.reports.artifact import build_sweep_report
    from sumi_core.reports.study import write_study

    report, _ = build_sweep_report(project.store, sweep)
    try:
        write_study(report.folder, path)
    except OSError as error:
        problem = f"cannot write {path}: {error.strerror}; name a file in a folder that exists and can be written"
        raise ConfigError("command line", "--study", problem) from None


def _write_plots(project: Project, cells: Sequence[Cell], reference: str | None, folder: Path) -> None:
    from sumi_core.reports.artifact import compare_selection
    from sumi_core.reports.report import write_plots

    comparison = compare_selection(project.store, cells, reference)
    try:
        written = [path for suffix in (".svg", ".pdf") for path in write_plots(comparison, folder, suffix)]
    except OSError as error:
        problem = f"cannot write {folder}: {error.strerror}; name a folder that can be written"
        raise ConfigError("command line", "--plots", problem) from None
    if not written:
        raise ConfigError("command line", "--plots", "none of these cells is evaluated; `sumi run` computes them")
    print(f"\n{len(written)} plots in {folder}", file=sys.stderr)


def _only_sweep(sweeps: Sweeps, cells: Sequence[Cell]) -> Sweep:
    named = {cell.sweep_key: sweeps.of(cell) for cell in cells}
    if len(named) != 1:
        raise ConfigError("command line", "--study", f"it is of one experiment, not of {len(named)}; name one")
    return next(iter(named.values()))


def _write(path: Path, option: str, text: str) -> None:
    try:
        if path == _STDOUT:
            print(text, end="")
        elif path.is_symlink() or (path.exists() and not path.is_file()):  # a pipe or device is not to be replaced
            path.write_text(text, encoding="utf-8")
        else:
            write_atomically(path, text)
    except BrokenPipeError:  # the reader has seen enough
        raise
    except OSError as error:
        problem = f"cannot write {path}: {error.strerror}; name a file in a folder that exists and can be written"
        raise ConfigError("command line", option, problem) from None


_STDOUT = Path("-")
