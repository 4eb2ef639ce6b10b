"""The generated parts of a study: a document whose conclusions are hand-written and whose figures are generated.

Everything between two marks of the document is written from the data of one sweep's report, so that text and numbers
cannot drift apart; what people write around the marks is kept. A document may have a part for each of several sweeps.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

from sumi_core.base.errors import SumiError
from sumi_core.base.files import write_atomically
from sumi_core.reports.blocks import Block, Heading, Paragraph, Picture, Table, markdown_page
from sumi_core.reports.differences import Difference
from sumi_core.reports.from_store import Question
from sumi_core.reports.pages import question_rows, reproduction_blocks, result_blocks
from sumi_core.reports.row import Row
from sumi_core.reports.sections import Section, section_blocks
from sumi_core.reports.table import Comparison


class StudyError(SumiError, ValueError):
    """A document without its generated part."""


def marks(sweep: str) -> tuple[str, str]:
    """The lines before and after the part that is generated from the report of ``sweep``."""
    return (
        f"<!-- sumi: generated from {sweep}; what is written from here on is lost when it is made again -->",
        f"<!-- sumi: end of {sweep} -->",
    )


def study_markdown(report: Path, pictures: str = "") -> str:
    """The generated part of a study from the folder of a sweep's report: set-up, results, plots, significance, command.

    pictures: the folder of the plots, relative to the document; without it, that of the report."""
    data = json.loads((report / "report.json").read_text(encoding="utf-8"))
    question, comparison = Question(**data["question"]), read_comparison(data)
    plots = [Picture(Path(name), os.path.join(pictures or str(report / "plots"), name)) for name in data["plots"]]
    blocks: list[Block] = [
        Heading(question.name),
        Paragraph(question.description),
        Heading("Set-up", 3),
        Table(question_rows(comparison, question)),
        *result_blocks(comparison, plots, 3),
        *section_blocks([Section(**own) for own in data.get("sections", ())], 3),
        Heading("How to reproduce it", 3),
        *reproduction_blocks(comparison, question, data["commits"]),
    ]
    return markdown_page(blocks)


def write_study(report: Path, document: Path) -> None:
    """Write the generated part of a report's sweep into a document, new or existing, and copy the plots into a folder
    beside it, ``<document's name>/<sweep>``.

    Raises StudyError for a document without exactly one part for this sweep, and OSError when it cannot be written."""
    name = json.loads((report / "report.json").read_text(encoding="utf-8"))["question"]["name"]
    begin, end = marks(name)
    pictures = document.with_suffix("") / name
    part = f"{begin}\n\n{study_markdown(report, f'{document.stem}/{name}')}\n{end}"
    if document.exists():
        try:
            text = document.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise StudyError(f"{document} is not UTF-8 text; name another file") from None
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
            raise StudyError(
                f"{document} has no part for {name}; put the lines '{begin}' and '{end}' where it belongs, or name "
                "another file"
            )
        text = text[: text.index(begin)] + part + text[text.index(end) + len(end) :]
    else:
        text = f"# {document.stem}\n\n{part}\n"
    plots = sorted((report / "plots").glob("*.png"))
    if plots:
        for folder in (pictures.parent, pictures):  # where the document's own is missing, nothing is made
            folder.mkdir(exist_ok=True)
    for plot in plots:
        shutil.copyfile(plot, pictures / plot.name)
    write_atomically(document, text)


def read_comparison(data: dict[str, Any]) -> Comparison:
    """The comparison that a report.json holds."""
    return Comparison(
        [Row(**row) for row in data["rows"]],
        data["reference"],
        [_difference(pair) for pair in data["differences"]],
        tuple(data["overrides"]),
        data["asked_reference"],
        data["reference_missing"],
        tuple(_difference(pair) for pair in data["contrasts"]),
    )


def _difference(pair: dict[str, Any]) -> Difference:
    """Figures that are not known are null in JSON and NaN here."""
    own = {f.name: pair[f.name] for f in dataclasses.fields(Difference)}
    known: dict[str, Any] = {name: math.nan if value is None else value for name, value in own.items()}
    return Difference(**known)
