"""What else was measured of a comparison's cells: a section of tables for each measurement that has any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sumi_core.evaluation.definitions import FRONTIER_NOTES, MAUVE_NOTES
from sumi_core.reports.blocks import Block, Bullets, Heading, Paragraph, Table
from sumi_core.reports.from_store import SweepComparison
from sumi_core.reports.frontier import frontier_rows, frontiers_of, matched_rows, scored_by
from sumi_core.reports.mauve import mauve_rows
from sumi_core.reports.speed import speed_lines, speed_notes, speed_rows
from sumi_core.reports.tasks import TASK_NOTES, task_rows

_Rows = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Section:
    """title: of the section. said: a paragraph before its tables, or nothing. tables: rows by column title. notes: what
    its columns mean."""

    title: str
    said: str
    tables: Sequence[_Rows]
    notes: Sequence[str]


def measured_sections(comparison: SweepComparison) -> Iterator[Section]:
    """The sections of a comparison, in the order of a page."""
    if solved := task_rows(comparison):
        yield Section("Tasks", "", [solved], TASK_NOTES)
    if lines := speed_lines(comparison):
        yield Section("Speed against quality", "", [speed_rows(lines)], speed_notes(lines))
    if frontiers := frontiers_of(comparison):
        tables = [matched_rows(comparison), frontier_rows(frontiers)]
        yield Section("Generative frontiers", scored_by(comparison), tables, FRONTIER_NOTES)
    if compared := mauve_rows(comparison):
        yield Section("MAUVE", "", [compared], MAUVE_NOTES)


def section_blocks(sections: Sequence[Section], level: int = 2) -> list[Block]:
    """The sections as blocks of a page, under titles of a level."""
    blocks: list[Block] = []
    for own in sections:
        tables = map(Table, own.tables)
        blocks += [Heading(own.title, level), Paragraph(own.said), *tables, Bullets(own.notes)]
    return blocks
