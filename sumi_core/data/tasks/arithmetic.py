"""Running sums: ``+:7382=7081``, each the sum of the digits so far modulo 10."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.data.tasks.task import Instance, Task

_DIGITS = "0123456789"


class Arithmetic(Task):
    """A chain of additions modulo 10: the k-th digit of the answer is the sum of the first k digits of the question.

    Given the answer so far, the next digit is one addition; without it, it is a sum of k digits, which a network of a
    few layers does not learn at once. The question leaves one answer, so that what parallel drawing loses here is
    computation and not independence."""

    @dataclass
    class Options(Part.Options):
        """digits: of a question."""

        digits: Annotated[int, Field(ge=1, le=1000, description="digits that are added up, one after the other")] = 12

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        self.count: int = self.options.digits
        self.question_length, self.answer_length = self.count + 3, self.count

    def instance(self, generator: random.Random) -> Instance:
        given = "".join(generator.choices(_DIGITS, k=self.count))
        return Instance(f"+:{given}=", _sums(given))

    def valid(self, answer: str) -> bool:
        return len(answer) == self.count and set(answer) <= set(_DIGITS)

    def solves(self, question: str, answer: str) -> bool:
        return answer == _sums(question[2:-1])

    def parallel_accuracy(self) -> float:
        return 1.0


def _sums(digits: str) -> str:
    return "".join(str(total % 10) for total in itertools.accumulate(map(int, digits)))
