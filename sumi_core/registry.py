"""Named parts: how a corruption process, schedule, source or metric is found by its name in a config.

A registry maps a short name to ``"module:Class"``. The module is imported only when the name is used, so a registry
costs nothing to import and adding a part is one new file and one line in its registry.

A registered class carries a dataclass ``Options``: the keys its users may write beside ``name``. It is built as
``Class(options, **context)``, where the context (the token space, the schedule, …) is fixed by the registry's owner.
A part that is made from more than its options (files, a package's version) says so by a method ``identity()``, which
enters the fingerprints of the stages that read it; such a part is built without context.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


def nearest(name: str, known: Iterable[str], show: Iterable[str] | None = None) -> str:
    """A hint for a misspelt name: ``did you mean 'uniform'?``, or else the list of what is known (or ``show``)."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(sorted(set(known if show is None else show))) or 'none'}"


class UnknownName(KeyError):
    """A name that is not in its registry. The message names the nearest one."""

    def __str__(self) -> str:
        return str(self.args[0])


class Registry(Generic[T]):
    """Names of one kind of part.

    >>> SCHEDULES = Registry("noise schedule", {"linear": "sumi_core.corruption.schedules:Linear"})
    >>> SCHEDULES.build("linear", {})                                       # doctest: +SKIP
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        """Every registered name, sorted."""
        return sorted(self._entries)

    def get(self, name: str) -> type[T]:
        """The class behind a name. Raises UnknownName with the nearest registered name."""
        if name not in self._entries:
            raise UnknownName(f"no {self.kind} is called '{name}'; {nearest(name, self._entries)}")
        module, _, attribute = self._entries[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def options(self, name: str) -> type[Any]:
        """The ``Options`` dataclass of a name: what may be written beside ``name`` in a config."""
        options: type[Any] = self.get(name).Options  # type: ignore[attr-defined]
        assert dataclasses.is_dataclass(options), f"{self.kind} '{name}': Options must be a dataclass"
        return options

    def build(self, name: str, options: Mapping[str, Any], **context: Any) -> T:
        """Construct the part: ``Class(Options(**options), **context)``."""
        part: Any = self.get(name)
        return cast(T, part(self.options(name)(**options), **context))

    def from_config(self, component: Mapping[str, Any], **context: Any) -> T:
        """Construct the part that a resolved component ``{name, **options}`` describes."""
        return self.build(component["name"], {k: v for k, v in component.items() if k != "name"}, **context)
