"""Replace one letter of what is given, whichever: ``x:z,hello=hezlo``."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.data.tasks.task import LETTERS, Instance, Task, all_letters


class Replace(Task):
    """n given letters, exactly one of which is replaced by another given letter; each place is as probable as another.

    Given the question each place is replaced with probability 1/n, so that places drawn independently replace exactly
    one with probability (1 − 1/n)ⁿ⁻¹, which falls to 1/e. Token by token, each given those before it, a perfect model
    is always right (ParallelBench, Kang et al. 2025, arXiv 2510.04767: replace random)."""

    @dataclass
    class Options(Part.Options):
        """letters: of which one is replaced."""

        letters: Annotated[int, Field(ge=2, le=1000, description="letters that are given, one of them replaced")] = 8

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        self.count: int = self.options.letters
        self.question_length, self.answer_length = self.count + 5, self.count

    def instance(self, generator: random.Random) -> Instance:
        other = generator.choice(LETTERS)
        given = "".join(generator.choices(LETTERS.replace(other, ""), k=self.count))
        place = generator.randrange(self.count)
        return Instance(f"x:{other},{given}=", given[:place] + other + given[place + 1 :])

    def valid(self, answer: str) -> bool:
        return all_letters(answer, self.count)

    def solves(self, question: str, answer: str) -> bool:
        other, given = question[2], question[4:-1]
        return [new for old, new in zip(given, answer, strict=True) if old != new] == [other]

    def parallel_accuracy(self) -> float:
        return float((1 - 1 / self.count) ** (self.count - 1))
