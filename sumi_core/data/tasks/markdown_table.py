"""Write a table in Markdown: ``m:b<,x>;ab,07;qd,12=`` with a header, an alignment row and a row for each record."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.data.tasks.task import LETTERS, Instance, Task, letters

_DASHES = {"<": ":-", ">": "-:"}  # how the alignment row writes left and right
_DIGITS = "0123456789"


class MarkdownTable(Task):
    """Columns with a name and an alignment (``<`` left, ``>`` right), then records; the table of them as GitHub's
    Markdown writes it (GFM, section 4.10), each row between pipes. The first column holds words, the next one numbers,
    and so on in turn. Blanks around a cell and further dashes of the alignment row are allowed, and blanks and line
    ends at the end, which fill an answer up.

    Valid: every row has as many cells as there are columns, the second row is one of dashes with a colon at one end,
    and a column holds words alone or numbers alone. Solved: with the names, alignments and cells that are asked for."""

    @dataclass
    class Options(Part.Options):
        """width: letters of a word, and digits of a number."""

        columns: Annotated[int, Field(ge=1, le=26, description="columns of the table")] = 2
        rows: Annotated[int, Field(ge=1, le=100, description="records, and rows below the alignment row")] = 2
        width: Annotated[int, Field(ge=1, le=20, description="letters of a word, and digits of a number")] = 2

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        self.columns: int = self.options.columns
        self.rows: int = self.options.rows
        self.width: int = self.options.width
        self.question_length = 2 + 3 * self.columns + self.rows * self.columns * (self.width + 1)
        self.answer_length = (2 * self.columns + 1) + (3 * self.columns + 1) + 1
        self.answer_length += self.rows * ((self.width + 1) * self.columns + 2)

    def instance(self, generator: random.Random) -> Instance:
        names = generator.sample(LETTERS, self.columns)
        sides = generator.choices("<>", k=self.columns)
        records = [
            [self._cell(generator, column) for column in range(self.columns)] for _ in range(self.rows)
        ]  # fmt: skip
        columns = ",".join(name + side for name, side in zip(names, sides, strict=True))
        asked = ";".join([columns, *(",".join(record) for record in records)])
        lines = [names, [_DASHES[side] for side in sides], *records]
        return Instance(f"m:{asked}=", "\n".join(f"|{'|'.join(line)}|" for line in lines))

    def valid(self, answer: str) -> bool:
        return self._read(answer) is not None

    def solves(self, question: str, answer: str) -> bool:
        columns, *records = [record.split(",") for record in question[2:-1].split(";")]
        names, sides = [own[0] for own in columns], [own[1] for own in columns]
        return self._read(answer) == [names, sides, *records]

    def parallel_accuracy(self) -> float:
        return 1.0

    def _cell(self, generator: random.Random, column: int) -> str:
        if column % 2:
            return "".join(generator.choices(_DIGITS, k=self.width))
        return letters(generator, self.width)

    def _read(self, answer: str) -> list[list[str]] | None:
        """The cells of each row, alignments as the question writes them; None for what is not such a table."""
        lines = answer.rstrip(" \n").split("\n")
        if len(lines) != self.rows + 2:
            return None
        rows = [_cells(line) for line in lines]
        if any(row is None or len(row) != self.columns for row in rows):
            return None
        names, dashes, *records = [row for row in rows if row is not None]
        sides = [_side(cell) for cell in dashes]
        if not all(re.fullmatch("[a-z]", name) for name in names) or "" in sides:
            return None
        columns = zip(*records, strict=True)
        return [names, sides, *records] if all(map(_of_one_kind, columns)) else None


def _cells(line: str) -> list[str] | None:
    """What stands between the pipes of a row, without the blanks around it; None for a line that is not a row."""
    line = line.strip(" ")
    if len(line) < 2 or line[0] != "|" or line[-1] != "|":
        return None
    return [cell.strip(" ") for cell in line[1:-1].split("|")]


def _side(dashes: str) -> str:
    """The alignment that a cell of the second row means; empty for what is none."""
    return "<" if re.fullmatch(":-+", dashes) else ">" if re.fullmatch("-+:", dashes) else ""


def _of_one_kind(cells: Sequence[str]) -> bool:
    """Whether all cells of a column are words, or all are numbers."""
    return any(all(re.fullmatch(kind, cell) for cell in cells) for kind in ("[a-z]+", "[0-9]+"))
