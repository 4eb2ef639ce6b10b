"""Comparisons as people read them: one table for the terminal, the log and the page, with the same columns."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from sumi_core.evaluation import METRICS
from sumi_core.evaluation.comparison import Difference
from sumi_core.evaluation.comparison_table import (
    Comparison,
    Row,
    SweepComparison,
    figures_of,
    first_sample,
    standing,
)
from sumi_core.evaluation.rendering import (
    WIDTH,
    excerpt,
    fenced,
    filled,
    markdown_table,
    render_text_table,
    short_count,
    short_duration,
    visible,
    with_error,
)
from sumi_core.evaluation.result import footnotes, sample_rows

_SHOWN_SAMPLE = 1000  # characters of a sample on the page


def table_rows(comparison: Comparison) -> list[dict[str, str]]:
    """The comparison as text cells, by column title."""
    to_reference = f"to {comparison.reference}" if comparison.reference else "difference"
    return [
        _yardstick(row) if row.kind == "yardstick" else _cell(row, to_reference, comparison.reference)
        for row in comparison.rows
    ]


def _yardstick(row: Row) -> dict[str, str]:
    return {"cell": f"[{row.name}]", "bits per byte": f"  {row.bits_per_byte:.3f}"}


def _cell(row: Row, to_reference: str, reference: str | None) -> dict[str, str]:
    change = "reference" if row.name == reference else "–"
    if row.difference is not None:
        shown = with_error(row.difference, row.difference_stderr)
        change = ("+" if row.difference >= 0 else "") + shown + ("" if row.paired else " (unpaired)")
    measured = row.bits_per_byte is not None
    return {
        "cell": row.name,
        "bits per byte": with_error(row.bits_per_byte, row.stderr, row.sign) if measured else row.state,
        to_reference: change,
        "p (Holm)": "–" if row.p_adjusted is None else _p(row.p_adjusted),
        "rank": str(row.rank or "–"),
        "method": "/".join(filter(None, (row.objective, row.process, row.schedule))),
        "parameters": short_count(row.parameters),
        "tokens seen": short_count(row.tokens_seen),
        "training FLOPs": short_count(row.flops),
        "training time": short_duration(row.seconds),
        "tokens/s": short_count(row.tokens_per_second),
    }


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def _changed(comparison: Comparison) -> str:
    """The names are those of the files; what they do not say is what was changed on the command line."""
    return f"Changed on the command line: {shlex.join(comparison.overrides)}" if comparison.overrides else ""


def _notes(comparison: Comparison) -> list[str]:
    """What is amiss with cells, a sentence each: why they have no figures, or are not as their figures were."""
    return [
        f"{row.name} is {row.state}: {visible(' '.join(row.why.split()))}"
        for row in comparison.cell_rows
        if row.state != "done" or row.why
    ]


def comparison_text(comparison: Comparison, width: int = WIDTH) -> str:
    """The comparison for a terminal or a log in plain text, in lines of ``width`` characters."""
    parts = [
        filled(_changed(comparison), width),
        render_text_table(table_rows(comparison), width),
        "\n".join(filled(line, width, further="  ") for line in _notes(comparison)),
        filled(standing(comparison), width),
        filled(_LEGEND, width),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def report_text(comparison: SweepComparison, width: int = WIDTH) -> str:
    """The report of a sweep for a terminal or a log: what is asked, the comparison, a sample of each cell."""
    title = f"{comparison.name}: {comparison.description}".removesuffix(": ")
    parts = [filled(title, width), comparison_text(comparison, width).rstrip("\n")]
    for key, cell in comparison.cells.items():
        steps, text = first_sample(cell)
        sample = filled(excerpt(text, 300), width, first="  ", further="  ")
        parts.append(f"{key}, first sample at {steps} steps:\n{sample}")
    return "\n\n".join(parts) + "\n"


def report_markdown(comparison: SweepComparison, plots: Sequence[Path]) -> str:
    """The comparison as a page; ``plots`` are files in its folder ``plots/``."""
    parts = [
        f"# {comparison.name}",
        comparison.description,
        _changed(comparison),
        markdown_table(table_rows(comparison)),
        "\n".join(f"* {line}" for line in _notes(comparison)),
        standing(comparison),
        _LEGEND,
    ]
    if plots:
        parts.append("Plots: " + ", ".join(f"[{path.stem}](plots/{path.name})" for path in plots))
    if len(comparison.cells) > 1:
        parts += ["## Differences between cells", markdown_table([_difference_row(d) for d in comparison.differences])]
    if comparison.cells:
        parts += ["## Samples", "At the most steps of each cell; beside them validation text of the same size."]
        parts.append(markdown_table(sample_rows(_described(comparison))))
    for key, cell in comparison.cells.items():
        steps, text = first_sample(cell)
        shown = text if len(text) <= _SHOWN_SAMPLE else text[:_SHOWN_SAMPLE] + "…"
        parts += [f"### {key}, first sample at {steps} steps", fenced(shown)]
    metrics = [m for c in comparison.cells.values() for m in c.cell.experiment.evaluation.metrics]
    notes = [*footnotes(list(dict.fromkeys(METRICS.from_config(m).definition for m in metrics))), *_NOTES]
    parts += ["## What the figures mean", "\n".join(f"* {note}" for note in notes)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _described(comparison: SweepComparison) -> dict[str, dict[str, float]]:
    """Sample metrics of each cell at its most steps, then those of validation text: once, if all cells agree on it."""
    samples = {key: figures_of(cell)["samples"] for key, cell in comparison.cells.items()}
    own = {key: samples[key][f"steps_{figures_of(cell)['sample_steps']}"] for key, cell in comparison.cells.items()}
    validation = {key: figures["validation"] for key, figures in samples.items()}
    if len({tuple(sorted(figures.items())) for figures in validation.values()}) == 1:
        return {**own, "validation": next(iter(validation.values()))}
    return {**own, **{f"validation ({key})": figures for key, figures in validation.items()}}


def _difference_row(d: Difference) -> dict[str, str]:
    return {
        "better": d.first if d.value <= 0 else d.second,
        "worse": d.second if d.value <= 0 else d.first,
        "bits per byte apart": with_error(abs(d.value), d.stderr),
        "paired": "yes" if d.paired else "no",
        "p (Holm)": _p(d.p_adjusted),
        "verdict": "differ" if d.significant else "cannot be told apart",
    }


_LEGEND = (
    "bits per byte of validation text: ≤ upper bound, = exact, ± one standard error over documents; […] yardsticks "
    "fitted on the same train split. Differences are paired, text by text, unless marked."
)
_NOTES = (
    "differences: of two cells on the same texts, sequence by sequence (paired); where the texts differ, the error is "
    "that of two independent figures. p: two-sided, Holm-corrected over all pairs of this report.",
    "rank: 1 + the number of cells that are significantly better, so cells that cannot be told apart may share one.",
    "a bound (≤) may lie above its model's own bits per byte by an unknown amount, an exact figure (=) does not: such "
    "a difference compares what can be guaranteed.",
    "every cell is one trained model: ± and p speak of other validation text, not of other training seeds.",
    "samples shown are the first drawn, not chosen; invisible characters are written as escapes.",
    "FLOPs: forward and backward, 6 for each weight that multiplies a token, plus attention (2204.02311, appendix B).",
)
