"""Comparisons as people read them: one table, with the same columns for terminal, log, page and study."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from sumi_core.base.text import (
    WIDTH,
    excerpt,
    filled,
    render_text_table,
)
from sumi_core.evaluation import METRICS
from sumi_core.evaluation.definitions import footnotes
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
from sumi_core.reports.comparison_rows import COSTS, contrast_rows, error_rows, pair_rows, seed_rows, table_rows
from sumi_core.reports.definitions import LEGEND, NOTES
from sumi_core.reports.findings import certainty, changed, findings, notes
from sumi_core.reports.from_store import Question, SweepComparison
from sumi_core.reports.readings import initial_rows, reading_rows
from sumi_core.reports.samples import described_samples, first_samples
from sumi_core.reports.sections import measured_sections, section_blocks
from sumi_core.reports.table import Comparison

_SHOWN_SAMPLE = 1000  # characters of a sample on the page


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
    for key, steps, text in first_samples(comparison):
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
    if described := described_samples(comparison):
        blocks += [
            Heading("Samples"),
            Paragraph("At the most steps of each cell; beside them validation text of the same size."),
            Table(sample_rows(described)),
        ]
    blocks += section_blocks([*measured_sections(comparison)])
    for key, steps, text in first_samples(comparison):
        shown = text if len(text) <= _SHOWN_SAMPLE else text[:_SHOWN_SAMPLE] + "…"
        blocks += [Heading(f"{key}, first sample at {steps} steps", 3), Preformatted(shown)]
    metrics = [m for c in comparison.cells.values() for m in c.cell.experiment.evaluation.metrics]
    definitions = dict.fromkeys(METRICS.from_config(m).definition for m in metrics)
    notes = [*footnotes(list(definitions)), *NOTES]
    return [*blocks, Heading("What the figures mean"), Bullets(notes)]


def _split(rows: Sequence[Mapping[str, str]], costs: bool) -> list[dict[str, str]]:
    """The columns of costs, or all others, each with the cells' names: a page holds no table of twice its width."""
    kept = [{name: text for name, text in row.items() if name == "cell" or (name in COSTS) is costs} for row in rows]
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


def _seed_legend(comparison: Comparison) -> str:
    return (
        " Rows with several seeds are means; their ± adds the variation between seeds." if comparison.has_groups else ""
    )
