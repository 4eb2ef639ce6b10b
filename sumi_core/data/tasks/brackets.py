"""Go on with a balanced text of brackets: ``b:([{=}])``."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.data.tasks.task import Instance, Task

_CLOSING = {"(": ")", "[": "]", "{": "}"}


class Brackets(Task):
    """The first half of a balanced text of three kinds of brackets, and a second half. Any will do that closes what is
    open, in order, and leaves nothing open."""

    @dataclass
    class Options(Part.Options):
        """half: brackets of the question, and of the answer."""

        half: Annotated[int, Field(ge=1, le=1000, description="brackets of the question, and of the answer")] = 10

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        self.half: int = self.options.half
        self.question_length, self.answer_length = self.half + 3, self.half

    def instance(self, generator: random.Random) -> Instance:
        text = _balanced(generator, 2 * self.half)
        return Instance(f"b:{text[: self.half]}=", text[self.half :])

    def valid(self, answer: str) -> bool:
        return len(answer) == self.half and set(answer) <= {*_CLOSING, *_CLOSING.values()}

    def solves(self, question: str, answer: str) -> bool:
        return _is_balanced(question[2:-1] + answer)


def _balanced(generator: random.Random, length: int) -> str:
    """A balanced text: at each place a bracket is opened or closed by the toss of a coin, where both can be."""
    text, open_ = "", list[str]()
    for left in range(length, 0, -1):
        if not open_ or (len(open_) < left and generator.random() < 0.5):
            open_.append(generator.choice(list(_CLOSING)))
            text += open_[-1]
        else:
            text += _CLOSING[open_.pop()]
    return text


def _is_balanced(text: str) -> bool:
    open_: list[str] = []
    for character in text:
        if character in _CLOSING:
            open_.append(character)
        elif not open_ or _CLOSING[open_.pop()] != character:
            return False
    return not open_
