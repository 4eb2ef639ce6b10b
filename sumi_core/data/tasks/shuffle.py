"""Write what is given in any other order: ``s:hadir=ridah``."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.data.tasks.task import Instance, Task, all_letters, letters


class Shuffle(Task):
    """A permutation of n given letters, which all differ; any will do, and each is as probable as another.

    Given the question each place has every letter with probability 1/n, so that places drawn independently make a
    permutation with probability n!/nⁿ, which is 0.094 for n = 4 and 0.0024 for n = 8. Token by token, each given those
    before it, a perfect model is always right (ParallelBench, Kang et al. 2025, arXiv 2510.04767: shuffle)."""

    @dataclass
    class Options(Part.Options):
        """letters: of a question."""

        letters: Annotated[int, Field(ge=2, le=26, description="letters that are given, all different")] = 8

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        self.count: int = self.options.letters
        self.question_length, self.answer_length = self.count + 3, self.count

    def instance(self, generator: random.Random) -> Instance:
        given = letters(generator, self.count, distinct=True)
        return Instance(f"s:{given}=", "".join(generator.sample(given, self.count)))

    def valid(self, answer: str) -> bool:
        return all_letters(answer, self.count)

    def solves(self, question: str, answer: str) -> bool:
        return sorted(answer) == sorted(question[2:-1])

    def parallel_accuracy(self) -> float:
        return math.factorial(self.count) / self.count**self.count
