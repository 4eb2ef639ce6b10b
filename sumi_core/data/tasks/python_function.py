"""Write a function in Python that fits its examples: a ``def``, a docstring ``f(2)=7;f(5)=13``, and what it returns."""

from __future__ import annotations

import ast
import operator
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.data.tasks.task import Instance, Task

_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}
_CHARACTERS = frozenset("0123456789x+-*() ")
_QUOTES = '"""'


class PythonFunction(Task):
    """The head of a function of one whole number with examples in its docstring, and the expression that it returns,
    of x, digits, ``+``, ``-``, ``*`` and brackets. Any expression will do that gives every example; blanks at its end
    fill an answer up to the length that all have. A question and its answer are a Python module.

    The text of a model is never run: its syntax tree is read by an evaluator that knows these operators alone.

    Valid: such an expression. Solved: with the values of the examples."""

    @dataclass
    class Options(Part.Options):
        """operators: of the expression that examples are made from."""

        operators: Annotated[int, Field(ge=1, le=8, description="operators of the hidden expression")] = 2
        examples: Annotated[int, Field(ge=1, le=10, description="arguments with their values, all different")] = 3

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        self.operators: int = self.options.operators
        self.examples: int = self.options.examples
        self.width = self.operators + 2  # of a value: at most 9 ** (operators + 1), and a sign
        self.question_length = len(_question([(0, 0)] * self.examples, self.width))
        self.answer_length = 4 * self.operators - 1  # digits, operators, and brackets around all but the whole

    def instance(self, generator: random.Random) -> Instance:
        text = "1"
        while "x" not in text:
            text = _expression(generator, self.operators)
        arguments = sorted(generator.sample(range(10), self.examples))
        examples = [(argument, value_of(text, argument)) for argument in arguments]
        return Instance(
            _question([(argument, value) for argument, value in examples if value is not None], self.width),
            text.ljust(self.answer_length),
        )

    def valid(self, answer: str) -> bool:
        return len(answer) == self.answer_length and value_of(answer, 0) is not None

    def solves(self, question: str, answer: str) -> bool:
        shown = question.split(_QUOTES)[1].split(";")
        pairs = [example.removeprefix("f(").split(")=") for example in shown]
        return all(value_of(answer, int(argument)) == int(value) for argument, value in pairs)


def value_of(text: str, x: int) -> int | None:
    """The value of an expression at x; None for what is not an expression of x, whole numbers, ``+``, ``-``, ``*`` and
    brackets.

    >>> value_of("2*(x-1)", 5), value_of("x**9", 5), value_of("x.real", 5)
    (8, None, None)
    """
    if not set(text) <= _CHARACTERS:
        return None
    try:
        return _value(ast.parse(text.strip(" "), mode="eval").body, x)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr, x: int) -> int:
    """The value of a syntax tree. Raises ValueError for a node that no such expression has."""
    match node:
        case ast.Name(id="x"):
            return x
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, x)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand, x)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
            return _OPERATORS[type(sign)](_value(left, x), _value(right, x))
    raise ValueError(f"{type(node).__name__} cannot be part of an expression")


def _expression(generator: random.Random, operators: int, *, inner: bool = False) -> str:
    """A random expression with so many operators, in brackets where it stands within another one."""
    if not operators:
        return "x" if generator.random() < 0.5 else str(generator.randint(1, 9))
    left = generator.randrange(operators)
    parts = [_expression(generator, count, inner=True) for count in (left, operators - 1 - left)]
    text = f"{parts[0]}{generator.choice('+-*')}{parts[1]}"
    return f"({text})" if inner else text


def _question(examples: list[tuple[int, int]], width: int) -> str:
    shown = ";".join(f"f({argument})={str(value).ljust(width)}" for argument, value in examples)
    return f"def f(x):\n {_QUOTES}{shown}{_QUOTES}\n return "
