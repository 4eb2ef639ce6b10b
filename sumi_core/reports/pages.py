"""Comparisons as people read them: one table, with the same columns for terminal, log, page and study."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sumi_core.base.statistics import mean_estimate
from sumi_core.base.text import (
    WIDTH,
    excerpt,
    filled,
    render_text_table,
    short_bytes,
    short_count,
    short_duration,
    short_interval,
    with_error,
)
from sumi_core.evaluation import METRICS
from sumi_core.evaluation.definitions import FRONTIER_NOTES, footnotes
from sumi_core.evaluation.samples import sample_rows
from sumi_core.experiments.changed_names import split_name
from sumi_core.reports.blocks import (
    Block,
    Bullets,
    Heading,
    Paragraph,
    Picture,
    Preformatted,
    Table,
    html_page,
    markdown_page,
)
from sumi_core.reports.definitions import LEGEND, NOTES
from sumi_core.reports.differences import Difference
from sumi_core.reports.findings import certainty, changed, findings, notes, signed
from sumi_core.reports.from_store import Question, SweepComparison, figures_of, first_sample
from sumi_core.reports.frontier import frontier_rows, frontiers_of, matched_rows, scored_by
from sumi_core.reports.readings import initial_rows, reading_rows
from sumi_core.reports.row import Row
from sumi_core.reports.speed import speed_lines, speed_notes, speed_rows
from sumi_core.reports.table import Comparison

_SHOWN_SAMPLE = 1000  # characters of a sample on the page


# --- tables ---------------------------------------------------------------------------------------------------------


_COSTS = (
    "method",
    "parameters",
    "tokens seen",
    "supervised",
    "training FLOPs",
    "total FLOPs",
    "training time",
    "tokens/s",
    "peak memory",
)


def table_rows(comparison: Comparison) -> list[dict[str, str]]:
    """The comparison as text cells, by column title: a row for each method and yardstick."""
    to_reference = f"to {comparison.reference}" if comparison.reference else "difference"
    rows = [row for row in comparison.rows if row.group is None]
    return [_yardstick(row) if row.kind == "yardstick" else _method(row, to_reference, comparison) for row in rows]


def _yardstick(row: Row) -> dict[str, str]:
    return {"cell": f"[{row.name}]", "bits per byte": f"  {row.bits_per_byte:.3f}"}


def _method(row: Row, to_reference: str, comparison: Comparison) -> dict[str, str]:
    measured = row.bits_per_byte is not None
    seeds = {"seeds": _seeds(row)} if comparison.has_groups else {}
    inherited = any(other.total_flops not in (None, other.flops) for other in comparison.method_rows)
    ranked = any(other.rank is not None for other in comparison.method_rows)
    p = "–" if row.p_adjusted is None else _p(row.p_adjusted)
    verdict = {"p (Holm)": p, "rank": str(row.rank or "–")} if ranked else {}
    total = {"total FLOPs": short_count(row.total_flops)} if inherited else {}
    return {
        "cell": row.name,
        "bits per byte": with_error(row.bits_per_byte, row.stderr, row.sign) if measured else row.state,
        **seeds,
        to_reference: "reference" if row.name == comparison.reference else _change(row),
        "95 % interval": short_interval(row.difference_low_95, row.difference_high_95),
        **verdict,
        "method": "/".join(filter(None, (row.objective, row.process, row.schedule))),
        "parameters": short_count(row.parameters),
        "tokens seen": short_count(row.tokens_seen),
        "supervised": _supervised(row),
        "training FLOPs": short_count(row.flops),
        **total,
        "training time": short_duration(row.seconds),
        "tokens/s": short_count(row.tokens_per_second),
        "peak memory": short_bytes(row.peak_memory_bytes),
    }


def _supervised(row: Row) -> str:
    if row.supervised_share is None:
        return "–"
    tokens = None if row.tokens_seen is None else row.supervised_share * row.tokens_seen
    return f"{short_count(tokens)} ({row.supervised_share:.0%})"


def _seeds(row: Row) -> str:
    planned = row.seeds_planned or 1
    return f"{row.seeds or 0} of {planned}" if (row.seeds or 0) < planned else str(planned)


def _change(row: Row) -> str:
    if row.difference is None:
        return "–"
    return signed(row.difference, row.difference_stderr) + ("" if row.paired else " (unpaired)")


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def error_rows(comparison: Comparison) -> list[dict[str, str]]:
    """Where the errors of each method come from, and how noisy its bound and its gradient are. Columns that
    are empty in every row are left out."""
    rows = [
        {
            "cell": row.name,
            "± over documents": with_error(row.stderr_documents, digits=4),
            "± over seeds": with_error(row.stderr_seeds, digits=4),
            "Monte-Carlo error": with_error(row.mc_stderr, digits=4),
            "noise of one draw": with_error(row.draw_deviation),
            "difference: ± over documents": with_error(row.difference_stderr_documents, digits=4),
            "difference: ± over seeds": with_error(row.difference_stderr_seeds, digits=4),
            "bootstrap 95 %": short_interval(row.difference_bootstrap_low_95, row.difference_bootstrap_high_95),
            "gradient norm": with_error(row.gradient_norm),
            "gradient variance": _significant(row.gradient_variance, row.gradient_variance_stderr),
        }
        for row in comparison.method_rows
        if row.bits_per_byte is not None
    ]
    known = [name for name in (rows[0] if rows else ()) if any(row[name] != "–" for row in rows)]
    return [{name: row[name] for name in known} for row in rows] if len(known) > 1 else []


def _significant(value: float | None, stderr: float | None) -> str:
    """Two digits of a figure of any size."""
    error = f" ± {stderr:.1g}" if stderr else ""
    return "–" if value is None else f"{value:.2g}{error}"


def seed_rows(comparison: Comparison) -> list[dict[str, str]]:
    """The cells of the groups, a row each."""
    return [
        {
            "cell": row.name,
            "seed": str(row.seed),
            "bits per byte": row.state
            if row.bits_per_byte is None
            else with_error(row.bits_per_byte, row.stderr, row.sign),
            "training FLOPs": short_count(row.flops),
            "training time": short_duration(row.seconds),
            "peak memory": short_bytes(row.peak_memory_bytes),
        }
        for row in comparison.cell_rows
        if row.group is not None
    ]


def pair_rows(comparison: Comparison) -> list[dict[str, str]]:
    """Every difference, a row each; with a verdict where there are methods with several seeds."""
    ranked = any(d.of_methods for d in comparison.differences)
    return [_pair_row(d, ranked) for d in comparison.differences]


def _pair_row(d: Difference, ranked: bool) -> dict[str, str]:
    verdict = {
        "p (Holm)": _p(d.p_adjusted) if d.of_methods else "–",
        "verdict": "differ" if d.significant else "not told apart" if d.of_methods else "trained models",
    }
    apart = d if d.value >= 0 else d.turned()
    return {
        "better": d.first if d.value <= 0 else d.second,
        "worse": d.second if d.value <= 0 else d.first,
        "bits per byte apart": with_error(apart.value, apart.stderr),
        "95 % interval": short_interval(apart.low_95, apart.high_95),
        "paired": "no" if not d.paired else "texts and seeds" if d.paired_seeds and d.seeds > 1 else "texts",
        "seeds": str(d.seeds),
        **(verdict if ranked else {}),
    }


def contrast_rows(comparison: Comparison) -> list[dict[str, str]]:
    """The differences that were named beforehand, a row each."""
    return [
        {
            "first": d.first,
            "second": d.second,
            "first − second": signed(d.value, d.stderr),
            "95 % interval": short_interval(d.low_95, d.high_95),
            "seeds": str(d.seeds),
            "p (Holm)": _p(d.p_adjusted) if d.of_methods else "–",
            "verdict": "differ" if d.significant else "not told apart" if d.of_methods else "trained models",
        }
        for d in comparison.contrasts
    ]


def question_rows(comparison: Comparison, question: Question) -> list[dict[str, str]]:
    """The question, a row for each setting."""
    reference = comparison.reference or "–"
    if comparison.reference and not comparison.asked_reference:
        reference += " (the best: none was named)"
    done = sum(row.bits_per_byte is not None for row in comparison.cell_rows)
    settings = {
        **{f"axis {axis}": ", ".join(labels) for axis, labels in question.axes.items()},
        "cells": f"{len(comparison.cell_rows)}, {done} of them evaluated",
        "differences are taken to": reference,
        "differences named beforehand": ", ".join(f"{first} − {second}" for first, second in question.contrasts),
        "budget": question.budget,
    }
    return [{"set": name, "to": value} for name, value in settings.items() if value]


def command(comparison: Comparison, question: Question) -> str:
    """The command that computes the comparison."""
    return shlex.join(["sumi", "run", split_name(question.name)[0], *comparison.overrides])


# --- terminal -------------------------------------------------------------------------------------------------------


def comparison_text(comparison: Comparison, width: int = WIDTH) -> str:
    """The comparison for a terminal or a log in plain text, in lines of ``width`` characters."""
    parts = [
        filled(changed(comparison), width),
        render_text_table(contrast_rows(comparison), width),
        render_text_table(table_rows(comparison), width),
        render_text_table(seed_rows(comparison), width),
        render_text_table(reading_rows(comparison.method_rows), width),
        render_text_table(initial_rows(comparison.method_rows), width),
        "\n".join(filled(line, width, further="  ") for line in notes(comparison)),
        *(filled(sentence, width) for sentence in findings(comparison)),
        filled(LEGEND + _seed_legend(comparison), width),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def report_text(comparison: SweepComparison, width: int = WIDTH) -> str:
    """The report of a sweep for a terminal or a log: the question, the comparison, a sample of each method."""
    title = f"{comparison.name}: {comparison.description}".removesuffix(": ")
    parts = [filled(title, width), comparison_text(comparison, width).rstrip("\n")]
    for key, steps, text in _first_samples(comparison):
        sample = filled(excerpt(text, 300), width, first="  ", further="  ")
        parts.append(f"{key}, first sample at {steps} steps:\n{sample}")
    return "\n\n".join(parts) + "\n"


# --- pages ----------------------------------------------------------------------------------------------------------


def report_markdown(comparison: SweepComparison, plots: Sequence[Path]) -> str:
    """The comparison as a Markdown page; ``plots`` are files in its folder ``plots/``, which it links to."""
    links = ", ".join(f"[{path.stem}](plots/{path.name})" for path in plots)
    return markdown_page(_page(comparison, [Paragraph(f"Plots: {links}" if links else "")]))


def report_html(comparison: SweepComparison, plots: Sequence[Path]) -> str:
    """The same page as HTML that needs no other file."""
    return html_page(comparison.name, _page(comparison, [Picture(path, path.name) for path in plots]))


def _page(comparison: SweepComparison, plots: Sequence[Block]) -> list[Block]:
    question = comparison.question
    blocks: list[Block] = [
        Heading(comparison.name, 1),
        Paragraph(comparison.description),
        *result_blocks(comparison, plots),
        Heading("What was asked"),
        Table(question_rows(comparison, question)),
        Heading("How to reproduce it"),
        *reproduction_blocks(comparison, question, comparison.commits),
    ]
    if comparison.has_groups:
        blocks += [Heading("Each seed"), Table(seed_rows(comparison))]
    if len(comparison.differences) > 1:
        blocks += [Heading("Every pair"), Table(pair_rows(comparison))]
    if described := _described(comparison):
        blocks += [
            Heading("Samples"),
            Paragraph("At the most steps of each cell; beside them validation text of the same size."),
            Table(sample_rows(described)),
        ]
    if lines := speed_lines(comparison):
        blocks += [Heading("Speed against quality"), Table(speed_rows(lines)), Bullets(speed_notes(lines))]
    if frontiers := frontiers_of(comparison):
        blocks += [
            Heading("Generative frontiers"),
            Paragraph(scored_by(comparison)),
            Table(matched_rows(comparison)),
            Table(frontier_rows(frontiers)),
        ]
    for key, steps, text in _first_samples(comparison):
        shown = text if len(text) <= _SHOWN_SAMPLE else text[:_SHOWN_SAMPLE] + "…"
        blocks += [Heading(f"{key}, first sample at {steps} steps", 3), Preformatted(shown)]
    metrics = [m for c in comparison.cells.values() for m in c.cell.experiment.evaluation.metrics]
    definitions = dict.fromkeys(METRICS.from_config(m).definition for m in metrics)
    notes = [*footnotes(list(definitions)), *(FRONTIER_NOTES if frontiers else ()), *NOTES]
    return [*blocks, Heading("What the figures mean"), Bullets(notes)]


def _split(rows: Sequence[Mapping[str, str]], costs: bool) -> list[dict[str, str]]:
    """The columns of costs, or all others, each with the cells' names: a page holds no table of twice its width."""
    kept = [{name: text for name, text in row.items() if name == "cell" or (name in _COSTS) is costs} for row in rows]
    return [row for row in kept if len(row) > 1]


def result_blocks(comparison: Comparison, plots: Sequence[Block], level: int = 2) -> list[Block]:
    """What was found and how sure it is: tables, sentences, plots."""
    rows = table_rows(comparison)
    return [
        Heading("What was found", level),
        Paragraph(" ".join(findings(comparison))),
        Paragraph(changed(comparison)),
        Table(contrast_rows(comparison)),
        Table(_split(rows, costs=False)),
        Paragraph(LEGEND + _seed_legend(comparison)),
        Bullets(notes(comparison)),
        Table(_split(rows, costs=True)),
        Table(reading_rows(comparison.method_rows)),
        Table(initial_rows(comparison.method_rows)),
        *plots,
        Heading("How sure it is", level),
        Paragraph(" ".join(certainty(comparison))),
        Table(error_rows(comparison)),
    ]


def reproduction_blocks(comparison: Comparison, question: Question, commits: Sequence[str]) -> list[Block]:
    """The command, the code and the configuration behind the figures."""
    code = ", ".join(commits) or "not known: it was no git checkout"
    return [
        Preformatted(command(comparison, question)),
        Bullets(
            [
                f"code: commit {code}" + (" (+: with local changes)" if any("+" in c for c in commits) else ""),
                f"configuration: digest {question.config_digest or '–'} of the resolved configuration of every cell",
            ]
        ),
    ]


def _described(comparison: SweepComparison) -> dict[str, dict[str, float]]:
    """Sample metrics of each method at its most steps, then those of validation text: once, if all agree on it. Of
    several seeds, means, their errors over samples and over seeds joined: seeds share the noise of the samples."""
    figures = {key: figures_of(cell) for key, cell in comparison.cells.items()}
    samples = {key: own["samples"] for key, own in figures.items() if "samples" in own}
    own = {key: samples[key][f"steps_{figures[key]['sample_steps']}"] for key in samples}
    drawn = {name: [own[key] for key in keys if key in own] for name, keys in comparison.members.items()}
    shown = {name: _averaged(seeds) for name, seeds in drawn.items() if seeds}
    validation = {key: own["validation"] for key, own in samples.items()}
    if len({tuple(sorted(own.items())) for own in validation.values()}) == 1:
        return {**shown, "validation": next(iter(validation.values()))}
    return {**shown, **{f"validation ({key})": own for key, own in validation.items()}}


def _first_samples(comparison: SweepComparison) -> Iterator[tuple[str, int, str]]:
    """Cell, steps and text of the first sample of each method that has any."""
    for key in comparison.first_cells:
        if found := first_sample(comparison.cells[key]):
            yield key, *found


def _averaged(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    if len(seeds) == 1:
        return dict(seeds[0])
    names = [name for name in seeds[0] if not name.endswith("_stderr") and all(name in figures for figures in seeds)]
    estimates = {name: mean_estimate([figures[name] for figures in seeds]) for name in names}
    own = {name: math.fsum(figures.get(f"{name}_stderr", 0.0) for figures in seeds) / len(seeds) for name in names}
    return {
        key: value
        for name, e in estimates.items()
        for key, value in ((name, e.value), (f"{name}_stderr", math.hypot(e.stderr, own[name])))
    }


def _seed_legend(comparison: Comparison) -> str:
    return (
        " Rows with several seeds are means; their ± adds the variation between seeds." if comparison.has_groups else ""
    )
