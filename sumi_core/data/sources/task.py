"""Instances of a structured task: one document is a question and its answer."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from sumi_core.base.options import MAX_SEED, part
from sumi_core.base.registry import Part
from sumi_core.data import TASKS
from sumi_core.data.sources.source import Document, Source
from sumi_core.data.tasks.task import Instance, Task


class TaskInstances(Source):
    """Instances numbered from 0, each decided by the seed and its number. No two documents have the same question: the
    first instance of a question is kept. Since a split takes whole documents, no question of the validation split is
    met in training, whichever its answer."""

    licence = "public domain"

    @dataclass
    class Options(Part.Options):
        """instances: that are made; documents are fewer where questions repeat."""

        task: Annotated[Any, Field(description="what is asked, and who decides about the answer")] = part(TASKS, "copy")
        instances: Annotated[
            int, Field(ge=2, le=10**8, description="instances that are made; repeated questions are left out")
        ] = 20_000
        seed: Annotated[int, Field(ge=0, le=MAX_SEED, description="of the instances")] = 0

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.task: Task = TASKS.from_config(self.options.task)

    def instance(self, number: int) -> Instance:
        """The instance of a number."""
        address = f"{self.options.seed}:{number}".encode()
        return self.task.instance(random.Random(hashlib.blake2b(address, digest_size=16).digest()))

    def read(self) -> Iterator[Document]:
        """In the order of their numbers, without those whose question was asked before."""
        seen: set[bytes] = set()
        for number in range(self.options.instances):
            made = self.instance(number)
            asked = hashlib.blake2b(made.question.encode(), digest_size=16).digest()
            if asked in seen:
                self.skip("question asked before", str(number))
                continue
            seen.add(asked)
            yield Document(str(number), made.question + made.answer)

    def identity(self) -> dict[str, Any]:
        """How instances are addressed; the task has its own version."""
        return {"addresses": "blake2b(seed:number)"}
