"""Write a table in CSV: ``v:m=07+12;c=30+05=`` and the rows ``c,30,05,35`` and ``m,07,12,19`` below their header."""

from __future__ import annotations

import csv
import random
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.data.tasks.task import LETTERS, Instance, Task

_HEADER = ["key", "x", "y", "sum"]


class CsvTable(Task):
    """Records in a random order, and the table of them: a header, then a row for each record, sorted by its key, a
    letter that occurs once; x and y are whole numbers, and sum is theirs. A cell may stand in double quotes, and a
    number may lack its leading zeros; blanks and line ends at the end of the table fill an answer up to the length that
    all have.

    Valid: CSV with this header and that many rows, of a letter and three whole numbers each, the letters rising and
    each sum right. Solved: of the records that are asked for."""

    @dataclass
    class Options(Part.Options):
        """most: of x and of y."""

        rows: Annotated[int, Field(ge=1, le=26, description="records, and rows below the header")] = 3
        most: Annotated[int, Field(ge=1, le=10**6, description="the greatest x, and y; the least is 0")] = 49

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        self.rows: int = self.options.rows
        self.most: int = self.options.most
        self.digits = len(str(2 * self.most))
        self.question_length = 2 + self.rows * (2 * self.digits + 4)
        self.answer_length = len(",".join(_HEADER)) + self.rows * (3 * self.digits + 5)

    def instance(self, generator: random.Random) -> Instance:
        keys = generator.sample(LETTERS, self.rows)
        records = [(key, generator.randint(0, self.most), generator.randint(0, self.most)) for key in keys]
        digits = self.digits
        asked = ";".join(f"{key}={x:0{digits}d}+{y:0{digits}d}" for key, x, y in records)
        lines = [",".join([key, *(f"{own:0{digits}d}" for own in (x, y, x + y))]) for key, x, y in sorted(records)]
        return Instance(f"v:{asked}=", "\n".join([",".join(_HEADER), *lines]))

    def valid(self, answer: str) -> bool:
        return self._read(answer) is not None

    def solves(self, question: str, answer: str) -> bool:
        asked = [(record[0], *map(int, record[2:].split("+"))) for record in question[2:-1].split(";")]
        return self._read(answer) == sorted(asked)

    def parallel_accuracy(self) -> float:
        return 1.0

    def _read(self, answer: str) -> list[tuple[str | int, ...]] | None:
        """Key, x and y of each row; None for what is not such a table."""
        try:
            cells = list(csv.reader(answer.rstrip(" \n").split("\n"), strict=True))
        except csv.Error:
            return None
        if cells[:1] != [_HEADER] or len(cells) != self.rows + 1:
            return None
        found: list[tuple[str | int, ...]] = []
        number = re.compile(rf"[0-9]{{1,{self.digits}}}")
        for row in cells[1:]:
            if len(row) != len(_HEADER) or len(row[0]) != 1 or row[0] not in LETTERS:
                return None
            if not all(number.fullmatch(cell) for cell in row[1:]) or int(row[1]) + int(row[2]) != int(row[3]):
                return None
            found.append((row[0], int(row[1]), int(row[2])))
        keys = [row[0] for row in found]
        return found if keys == sorted(set(keys)) else None
