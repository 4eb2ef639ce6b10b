"""The generated part of a study: a document in which people write what they conclude, and this module the figures.

Everything between two marks of the document is written from a report's data, so that text and numbers cannot drift
apart; what people write around the marks is kept.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

from sumi_core.errors import SumiError
from sumi_core.evaluation.comparison import Difference
from sumi_core.evaluation.comparison_pages import question_rows, reproduction_blocks, result_blocks
from sumi_core.evaluation.comparison_rows import Row
from sumi_core.evaluation.comparison_table import Comparison
from sumi_core.evaluation.rendering import Block, Heading, Paragraph, Picture, Table, markdown_page
from sumi_core.evaluation.sweep_comparison import Question

BEGIN = "<!-- sumi: generated from here on; what is written here is lost when it is made again -->"
END = "<!-- sumi: generated up to here -->"


class StudyError(SumiError, ValueError):
    """A document whose generated part cannot be found."""


def study_markdown(report: Path, pictures: str = "") -> str:
    """The generated part of a study from the folder of a sweep's report: set-up, results, plots, significance, command.

    pictures: the folder of the plots, relative to the document; without it, that of the report."""
    data = json.loads((report / "report.json").read_text(encoding="utf-8"))
    question, comparison = Question(**data["question"]), read_comparison(data)
    plots = [Picture(Path(name), os.path.join(pictures or str(report / "plots"), name)) for name in data["plots"]]
    blocks: list[Block] = [
        Heading("Set-up"),
        Paragraph(question.description),
        Table(question_rows(comparison, question)),
        *result_blocks(comparison, plots),
        Heading("How to reproduce it"),
        *reproduction_blocks(comparison, question, data["commits"]),
    ]
    return markdown_page(blocks)


def write_study(report: Path, document: Path) -> None:
    """Write the generated part into a document, new or existing, and copy the plots into a folder beside it that has
    the document's name.

    Raises StudyError for a document without exactly one generated part, and OSError when it cannot be written."""
    pictures = document.with_suffix("")
    part = f"{BEGIN}\n\n{study_markdown(report, pictures.name)}\n{END}"
    if document.exists():
        text = document.read_text(encoding="utf-8")
        if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(END) < text.index(BEGIN):
            raise StudyError(
                f"{document} has no generated part; put the lines '{BEGIN}' and '{END}' where it belongs, or name "
                "another file"
            )
        text = text[: text.index(BEGIN)] + part + text[text.index(END) + len(END) :]
    else:
        text = f"# {json.loads((report / 'report.json').read_text(encoding='utf-8'))['question']['name']}\n\n{part}\n"
    plots = sorted((report / "plots").glob("*.png"))
    if plots:
        pictures.mkdir(exist_ok=True)
    for plot in plots:
        shutil.copyfile(plot, pictures / plot.name)
    document.write_text(text, encoding="utf-8")


def read_comparison(data: dict[str, Any]) -> Comparison:
    """The comparison that a report.json holds."""
    return Comparison(
        [Row(**row) for row in data["rows"]],
        data["reference"],
        [_difference(pair) for pair in data["differences"]],
        tuple(data["overrides"]),
        data["asked_reference"],
        data["reference_missing"],
    )


def _difference(pair: dict[str, Any]) -> Difference:
    """Figures that are not known are null in JSON and NaN here."""
    own = {f.name: pair[f.name] for f in dataclasses.fields(Difference)}
    known: dict[str, Any] = {name: math.nan if value is None else value for name, value in own.items()}
    return Difference(**known)
