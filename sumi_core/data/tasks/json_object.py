"""Write an object in JSON: ``j:ok=0;age=07;name=ada  =`` and ``{"name":"ada","age":7,"ok":false}``."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.data.tasks.task import Instance, Task, all_letters, letters

_LONGEST_AGE = 2


class JsonObject(Task):
    """Fields in a random order, and the object of them under a fixed schema: ``name``, small letters; ``age``, a whole
    number from 0 to 99; ``ok``, true or false. JSON may have blanks anywhere and its keys in any order; the documents
    have neither but blanks at their end, which fill an answer up to the length that all have.

    Valid: JSON of the schema without further or repeated keys. Solved: with the values that are asked for."""

    @dataclass
    class Options(Part.Options):
        """letters: of the longest name."""

        letters: Annotated[int, Field(ge=1, le=100, description="letters of the longest name")] = 5

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        self.longest: int = self.options.letters
        self.question_length = len(_question({"name": "a" * self.longest, "age": 10, "ok": False}, self.longest))
        self.answer_length = len(_compact({"name": "a" * self.longest, "age": 10, "ok": False}))

    def instance(self, generator: random.Random) -> Instance:
        given = {
            "name": letters(generator, generator.randint(1, self.longest)),
            "age": generator.randrange(10**_LONGEST_AGE),
            "ok": generator.random() < 0.5,
        }
        asked = {key: given[key] for key in generator.sample(list(given), len(given))}
        return Instance(_question(asked, self.longest), _compact(given).ljust(self.answer_length))

    def valid(self, answer: str) -> bool:
        return self._read(answer) is not None

    def solves(self, question: str, answer: str) -> bool:
        asked = dict(field.split("=") for field in question[2:-1].split(";"))
        name, age, ok = asked["name"].rstrip(), int(asked["age"]), asked["ok"] == "1"
        return self._read(answer) == {"name": name, "age": age, "ok": ok}

    def parallel_accuracy(self) -> float:
        return 1.0

    def _read(self, answer: str) -> dict[str, Any] | None:
        """The object that a text holds; None for what is not JSON of the schema."""
        try:
            pairs = json.loads(answer, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError):
            return None
        if not isinstance(pairs, _Pairs) or sorted(key for key, _ in pairs) != ["age", "name", "ok"]:
            return None
        found = dict(pairs)
        name, age, ok = found["name"], found["age"], found["ok"]
        whole = isinstance(age, int) and not isinstance(age, bool) and 0 <= age < 10**_LONGEST_AGE
        named = isinstance(name, str) and 0 < len(name) <= self.longest and all_letters(name, len(name))
        return found if whole and named and isinstance(ok, bool) else None


class _Pairs(list[tuple[str, Any]]):
    """The keys and values of an object as they are written, repeated keys too."""


def _question(given: dict[str, Any], longest: int) -> str:
    """The fields in the order of ``given``, each of a fixed width."""
    shown = {
        "name": str(given["name"]).ljust(longest),
        "age": f"{given['age']:0{_LONGEST_AGE}d}",
        "ok": str(int(given["ok"])),
    }
    return "j:" + ";".join(f"{key}={shown[key]}" for key in given) + "="


def _compact(given: dict[str, Any]) -> str:
    return json.dumps(given, separators=(",", ":"), allow_nan=False)
