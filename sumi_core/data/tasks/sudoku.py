"""Complete a sudoku: ``#:1..4..2.2...4.1.=1234…``, rows one after the other, a dot for each hole."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.data.tasks.task import Instance, Task


class Sudoku(Task):
    """A grid of box² × box² cells with holes, and its completion. Any completion is right that keeps the rules and what
    is given; puzzles may have several. There are 288 grids of 4 × 4, so that instances of both splits share them: what
    no model has seen is the puzzle."""

    @dataclass
    class Options(Part.Options):
        """box: cells along an edge of a box. holes: cells that are left open."""

        box: Annotated[int, Field(ge=2, le=3, description="cells along an edge of a box: 2 is 4 × 4, 3 is 9 × 9")] = 2
        holes: Annotated[int, Field(ge=1, le=81, description="cells that are left open")] = 8

        def check(self) -> None:
            """There are only so many cells."""
            if self.holes > self.box**4:
                raise ValueError(f"holes is {self.holes}, but the grid has {self.box**4} cells; leave fewer open")

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        self.box: int = self.options.box
        self.side = self.box**2
        self.digits = "".join(str(digit) for digit in range(1, self.side + 1))
        self.question_length, self.answer_length = self.side**2 + 3, self.side**2
        cells, box, side = range(self.side**2), self.box, self.side
        units = [[c for c in cells if c // side == n] for n in range(side)]
        units += [[c for c in cells if c % side == n] for n in range(side)]
        units += [[c for c in cells if c // side // box * box + c % side // box == n] for n in range(side)]
        self.units: list[list[int]] = units
        self.peers = [sorted({o for unit in units if cell in unit for o in unit} - {cell}) for cell in cells]

    def instance(self, generator: random.Random) -> Instance:
        answer = self._grid(generator)
        holes = set(generator.sample(range(len(answer)), self.options.holes))
        given = "".join("." if cell in holes else digit for cell, digit in enumerate(answer))
        return Instance(f"#:{given}=", answer)

    def valid(self, answer: str) -> bool:
        wanted = set(self.digits)
        whole = len(answer) == self.side**2
        return whole and all({answer[cell] for cell in unit} == wanted for unit in self.units)

    def solves(self, question: str, answer: str) -> bool:
        return all(given in (".", digit) for given, digit in zip(question[2:-1], answer, strict=True))

    def _grid(self, generator: random.Random) -> str:
        """A full grid: the most constrained cell gets a random digit that is left to it, and another where that fails.
        Every grid can come out, not each with the same probability."""
        grid = [""] * self.side**2
        assert self._filled(grid, generator)
        return "".join(grid)

    def _filled(self, grid: list[str], generator: random.Random) -> bool:
        cell, digits = self._most_constrained(grid)
        if cell < 0:
            return True
        for digit in generator.sample(digits, len(digits)):
            grid[cell] = digit
            if self._filled(grid, generator):
                return True
        grid[cell] = ""
        return False

    def _most_constrained(self, grid: Sequence[str]) -> tuple[int, list[str]]:
        """The open cell with the fewest digits left to it, and these; −1 for a full grid."""
        found, least = -1, [*self.digits, ""]
        for cell, digit in enumerate(grid):
            if not digit:
                taken = {grid[peer] for peer in self.peers[cell]}
                left = [own for own in self.digits if own not in taken]
                if len(left) < len(least):
                    found, least = cell, left
        return found, least
