"""Repeat what is given: ``c:hello=hello``."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.data.tasks.task import Instance, Task, all_letters, letters


class Copy(Task):
    """The given letters once more. The question leaves one answer, so that a perfect denoiser needs one network call
    (ParallelBench, Kang et al. 2025, arXiv 2510.04767: copy)."""

    @dataclass
    class Options(Part.Options):
        """letters: of a question."""

        letters: Annotated[int, Field(ge=1, le=1000, description="letters that are given")] = 12

    mark = "c"

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        self.count: int = self.options.letters
        self.question_length, self.answer_length = self.count + 3, self.count

    def instance(self, generator: random.Random) -> Instance:
        question = f"{self.mark}:{letters(generator, self.count)}="
        return Instance(question, self.answer(question[2:-1]))

    def answer(self, given: str) -> str:
        """The right answer."""
        return given

    def valid(self, answer: str) -> bool:
        return all_letters(answer, self.count)

    def solves(self, question: str, answer: str) -> bool:
        return answer == self.answer(question[2:-1])

    def parallel_accuracy(self) -> float:
        return 1.0
