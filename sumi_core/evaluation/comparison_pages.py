"""The comparison of a sweep as people read it: Markdown, and plain text for a terminal or a log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sumi_core.evaluation import METRICS
from sumi_core.evaluation.comparison import SIGNIFICANCE, Difference
from sumi_core.evaluation.comparison_table import Comparison, figures_of, first_sample, sign_of, tied_with_best
from sumi_core.evaluation.rendering import (
    excerpt,
    fenced,
    markdown_table,
    render_text_table,
    short_count,
    short_duration,
    with_error,
)
from sumi_core.evaluation.result import footnotes, sample_rows

_SHOWN_SAMPLE = 1000  # characters of a sample on the page


def table_rows(comparison: Comparison, *, brief: bool = False) -> list[dict[str, str]]:
    """The comparison as text cells. ``brief`` fits a terminal: no method, and names without that of the sweep."""
    reference = comparison.reference or ""
    to_reference = f"to {_brief(comparison, reference) if brief else reference}" if reference else "difference"
    rows = []
    for row in comparison.rows:
        if row["kind"] == "yardstick":
            rows.append({"cell": f"[{row['name']}]", "bits per byte": f"  {row['bits_per_byte']:.3f}"})
            continue
        figure, change = row["state"], "–"
        if row["bits_per_byte"] is not None:
            figure = with_error(row["bits_per_byte"], row["stderr"], sign_of(row))
        if row["difference"] is not None:
            change = with_error(row["difference"], row["difference_stderr"], digits=4)
            change = ("+" if row["difference"] >= 0 else "") + change + ("" if row["paired"] else " (unpaired)")
        shown = {
            "cell": _brief(comparison, row["name"]) if brief else row["name"],
            "bits per byte": figure,
            to_reference: change,
            "rank": str(row["rank"] or "–"),
            "method": "/".join(filter(None, (row["objective"], row["process"], row["schedule"]))),
            "tokens": short_count(row["train_tokens"]),
            "params": short_count(row["parameters"]),
            "FLOPs": short_count(row["flops"]),
            "time": short_duration(row["seconds"]),
            "tokens/s": short_count(row["tokens_per_second"]),
        }
        if brief:
            del shown["method"]
        rows.append(shown)
    return rows


def _brief(comparison: Comparison, key: str) -> str:
    return key.removeprefix(f"{comparison.name}.")


def _absent(comparison: Comparison) -> list[str]:
    """Why cells have no figures, a sentence each."""
    lacking = [row for row in comparison.rows if row["kind"] == "cell" and row["bits_per_byte"] is None]
    return [f"{row['name']} is {row['state']}: {excerpt(row['why'], 300)}" for row in lacking]


def _standings(comparison: Comparison) -> str:
    """The ranking in a sentence."""
    cells = [row for row in comparison.rows if row["kind"] == "cell" and row["bits_per_byte"] is not None]
    if len(cells) < 2:
        return f"{len(cells)} cell(s) evaluated: nothing to rank."
    level = f"at {SIGNIFICANCE:.0%} over all {len(comparison.differences)} pair(s), Holm-corrected"
    tied = tied_with_best(comparison)
    lead = f"{cells[0]['name']} has the fewest bits per byte"
    if tied:
        return f"{lead}, but cannot be told apart from {', '.join(tied)} ({level})."
    return f"{lead}, and every difference to it is significant ({level})."


def report_text(comparison: Comparison) -> str:
    """The comparison for a terminal or a log, in plain text."""
    parts = [
        f"{comparison.name}: {comparison.description}".removesuffix(": "),
        render_text_table(table_rows(comparison, brief=True)),
        "\n".join(_absent(comparison)),
        _standings(comparison),
    ]
    parts.append(
        "bits per byte of the same validation text: ≤ upper bound, = exact, ± one standard error over documents; "
        "[…] yardsticks fitted on the same train split."
    )
    for key, cell in comparison.cells.items():
        steps, text = first_sample(cell)
        parts.append(f"{key}, first sample at {steps} steps:\n  {excerpt(text, 300)}")
    return "\n\n".join(filter(None, parts)) + "\n"


def report_markdown(comparison: Comparison, plots: Sequence[Path]) -> str:
    """The comparison as a page; ``plots`` are files in its folder ``plots/``."""
    parts = [
        f"# {comparison.name}",
        comparison.description,
        markdown_table(table_rows(comparison)),
        "\n".join(f"* {line}" for line in _absent(comparison)),
        _standings(comparison),
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
    metrics = dict.fromkeys(m for c in comparison.cells.values() for m in c.cell.experiment.evaluation.metrics)
    notes = [*footnotes([METRICS.build(m, {}).definition for m in metrics]), *_NOTES]
    parts += ["## What the figures mean", "\n".join(f"* {note}" for note in notes)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _described(comparison: Comparison) -> dict[str, dict[str, float]]:
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
        "bits per byte apart": with_error(abs(d.value), d.stderr, digits=4),
        "paired": "yes" if d.paired else "no",
        "adjusted p": "< 0.0001" if d.p_adjusted < 1e-4 else f"{d.p_adjusted:.2g}",
        "verdict": "differ" if d.significant else "cannot be told apart",
    }


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
