"""Named parts: how a corruption process, schedule, source or metric is found by its name in a config.

A registry maps a short name to ``"module:Class"``. The module is imported only when the name is used, so a registry
costs nothing to import and adding a part is one new file and one line in its registry.

Every part is a ``Part``. It is built as ``Class(options, **context)``, where the context (the token space, the
schedule, …) is fixed by whoever builds parts of its kind.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sumi_core.base.errors import SumiError


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


class PartError(SumiError):
    """A part from outside that cannot be used. One sentence that names it, where it is from, and what to do."""


class Part:
    """Something a config names. A subclass states what can be said without building it as class attributes."""

    @dataclass
    class Options:
        """The keys that may stand beside the part's name in a config, with types, defaults and limits."""

    #: What the part does, for readers of a model card.
    description: ClassVar[str] = ""
    #: Token tables that the part is built from (``sumi_core.data.vocabulary``): a number per token that a stage writes.
    tables: ClassVar[tuple[str, ...]] = ()

    def __init__(self, options: Any = None) -> None:
        self.options: Any = self.Options() if options is None else options

    def identity(self) -> dict[str, Any]:
        """What decides the part beside its options, as plain data: digests and versions, never paths or times. It
        enters the fingerprints of the stages that read the part, which is then built without context."""
        return {}

    @classmethod
    def has_identity(cls) -> bool:
        """Whether the part is made from more than its options."""
        return cls.identity is not Part.identity

    @classmethod
    def incompatibility(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, str] | None:
        """Key and sentence of the first thing in an experiment that this part cannot work with, or None.

        own: the resolved component ``{name, **options}``. others: every section of the resolved experiment by name, as
        plain data. Called once, when the experiment is resolved, before anything is computed."""
        return None


class Registry:
    """Names of one kind of part. ``base`` names the class that all of them extend.

    >>> SCHEDULES = Registry("noise schedule", "sumi_core.corruption.schedules:NoiseSchedule",
    ...                      {"linear": "sumi_core.corruption.schedules:Linear"})
    >>> SCHEDULES.build("linear", {}).alpha(0.25)
    0.75
    """

    def __init__(self, kind: str, base: str, entries: Mapping[str, str]) -> None:
        self.kind, self.base = kind, base
        self._entries = dict(entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        """Every registered name, sorted."""
        return sorted(self._entries)

    def get(self, name: str) -> type[Any]:
        """The class behind a name. Raises UnknownName with the nearest registered name."""
        if name not in self._entries:
            raise UnknownName(f"no {self.kind} is called '{name}'; {nearest(name, self._entries)}")
        found: type[Any] = load(self._entries[name])
        return found

    def options(self, name: str) -> type[Any]:
        """The ``Options`` dataclass of a name: what may be written beside ``name`` in a config."""
        options: type[Any] = self.get(name).Options
        return options

    def build(self, name: str, options: Mapping[str, Any], **context: Any) -> Any:
        """Construct the part: ``Class(Options(**options), **context)``."""
        return self.get(name)(self.options(name)(**options), **context)

    def from_config(self, component: Mapping[str, Any], **context: Any) -> Any:
        """Construct the part that a resolved component ``{name, **options}`` describes."""
        return self.build(component["name"], {k: v for k, v in component.items() if k != "name"}, **context)


def load(target: str) -> Any:
    """The object that ``"module:attribute"`` names; its module is imported now."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
