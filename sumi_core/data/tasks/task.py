"""What a task is: it makes questions with an answer each, and decides exactly whether a text answers one."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from sumi_core.base.registry import Part

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Instance:
    """A question and one right answer, in ASCII. The document of an instance is the one after the other."""

    question: str
    answer: str


@dataclass(frozen=True)
class Verdict:
    """What a checker found. valid: the text has the form of an answer, whatever the question. solved: it is valid and
    answers the question."""

    valid: bool
    solved: bool


class Task(Part, ABC):
    """Questions of ``question_length`` bytes with answers of ``answer_length`` bytes. Under given options all instances
    are as long, so that a sequence of tokens is one instance and nothing is cut. The answer stands at the end, where an
    autoregressive model can write it.

    Raise ``version`` whenever the code would make other instances."""

    question_length: int
    answer_length: int

    def identity(self) -> dict[str, Any]:
        """The version of its code."""
        return {"version": self.version}

    @property
    def length(self) -> int:
        """Bytes of a document."""
        return self.question_length + self.answer_length

    @abstractmethod
    def instance(self, generator: random.Random) -> Instance:
        """A random instance, decided by the generator alone."""

    @abstractmethod
    def valid(self, answer: str) -> bool:
        """Whether a text has the form of an answer."""

    @abstractmethod
    def solves(self, question: str, answer: str) -> bool:
        """Whether a valid answer is right, compared with what is asked and not with one stored answer."""

    def check(self, question: str, answer: str) -> Verdict:
        """Both at once."""
        valid = self.valid(answer)
        return Verdict(valid, valid and self.solves(question, answer))

    def parallel_accuracy(self) -> float | None:
        """The chance that an answer is right whose tokens are drawn independently, all in one step, from their exact
        distributions given the question: what a perfect denoiser reaches with one network call. 1 where the question
        leaves one answer; None where there is no closed form."""
        return None


def letters(generator: random.Random, count: int, *, distinct: bool = False) -> str:
    """Random small letters."""
    return "".join(generator.sample(LETTERS, count) if distinct else generator.choices(LETTERS, k=count))


def all_letters(text: str, count: int) -> bool:
    """Whether a text is ``count`` small letters."""
    return len(text) == count and set(text) <= set(LETTERS)
