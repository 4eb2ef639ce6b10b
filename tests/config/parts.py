"""Registered parts with every kind of option, made for tests of the config."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from sumi_core.base.registry import Part


class FakeSource(Part):
    """A source whose options show every type an option may have."""

    tables = ("token_clusters",)  # it also stands in for a process that knows its tokens

    @dataclass
    class Options(Part.Options):
        """``path`` must be written."""

        path: str
        rows: int | None = None
        share: float = 0.5
        kinds: list[str] = field(default_factory=lambda: ["a"])
        weights: list[float] = field(default_factory=list)
        level: Annotated[int, Field(ge=1, lt=10)] = 3

        def check(self) -> None:
            """Options that exclude each other."""
            if self.path == "empty" and self.rows:
                raise ValueError("an empty path has no rows; leave rows out")

    def identity(self) -> dict[str, Any]:
        """What the documents are made from."""
        return {"path": self.options.path}

    def documents(self) -> Iterator[Any]:
        """Nothing."""
        return iter(())


class Plain(Part):
    """A part without options."""

    def __init__(self, options: Any, **context: Any) -> None:
        super().__init__(options)
        self.context = context
