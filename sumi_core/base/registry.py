"""Named parts: how a corruption process, schedule, source or metric is found by its name in a config.

A registry maps a short name to ``"module:Class"``. The module is imported only when the name is used, so a registry
costs nothing to import and adding a part is one new file and one line in its registry.

Every part is a ``Part``. It is built as ``Class(options, **context)``, where the context (the token space, the
schedule, …) is fixed by the code that builds parts of its kind.
"""

from __future__ import annotations

import difflib
import functools
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sumi_core.base.outside import OutsidePart, PartError, code_digest, edited_since_import, outside_parts

_SHOWN = 10  # names of a hint


def nearest(name: str, known: Iterable[str], show: Iterable[str] | None = None) -> str:
    """A hint for a misspelt name: ``did you mean 'uniform'?``, or else the list of what is known (or ``show``)."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    shown = sorted(set(known if show is None else show))
    if not shown:
        return "there are none here"
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return f"known: {', '.join(shown[:_SHOWN])}{more}"


class UnknownName(KeyError):
    """A name that is not in its registry. The message names the nearest one."""

    def __str__(self) -> str:
        return str(self.args[0])


class Part:
    """Something a config names. A subclass states what can be said without building it as class attributes."""

    @dataclass
    class Options:
        """The keys that may stand beside the part's name in a config, with types, defaults and limits."""

    #: What the part does, for readers of a model card.
    description: ClassVar[str] = ""
    #: Token tables that the part is built from (``sumi_core.data.vocabulary``): a number per token that a stage writes.
    tables: ClassVar[tuple[str, ...]] = ()
    #: Raised whenever the part's code makes something else of the same options. The first is not said in fingerprints.
    version: ClassVar[str] = "1"

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
    """Names of one kind of part. ``base`` names the class that all of them extend. ``key`` opens the registry to parts
    from outside (``sumi_core.base.outside``), which are called ``key.name`` there.

    >>> SCHEDULES = Registry("noise schedule", "sumi_core.corruption.schedules:NoiseSchedule",
    ...                      {"linear": "sumi_core.corruption.schedules:Linear"})
    >>> SCHEDULES.build("linear", {}).alpha(0.25)
    0.75
    """

    #: The registries that are open to parts from outside.
    by_key: ClassVar[dict[str, Registry]] = {}

    def __init__(self, kind: str, base: str, entries: Mapping[str, str], *, key: str | None = None) -> None:
        self.kind, self.base, self.key = kind, base, key
        self._entries = dict(entries)
        if key is not None:
            self.by_key[key] = self

    def __contains__(self, name: object) -> bool:
        """Whether the name is that of a part that can be used."""
        if not self._outside(name):
            return name in self._entries
        try:
            return bool(self.get(str(name)))
        except PartError:
            return False

    def names(self) -> list[str]:
        """Every name, sorted, those of parts from outside among them."""
        prefix = f"{self.key}."
        more = [name.removeprefix(prefix) for name in outside_parts().parts if self.key and name.startswith(prefix)]
        return sorted({*self._entries, *more})

    def get(self, name: str) -> type[Any]:
        """The class behind a name. Raises UnknownName with the nearest name, and PartError for a part from outside that
        cannot be used."""
        outside = self._outside(name)
        if not outside:
            if name not in self._entries:
                raise UnknownName(self._unknown(name))
            shipped: type[Any] = load(self._entries[name])
            return shipped
        offers = [*(["Sumi"] if name in self._entries else []), *(part.origin for part in outside)]
        if len(offers) > 1:
            raise PartError(f"{self.kind} '{name}' is offered by {' and by '.join(offers)}; rename one of them")
        found: type[Any] = outside[0].load()
        if not (isinstance(found, type) and issubclass(found, load(self.base))):
            base = self.base.replace(":", ".")
            raise PartError(f"'{outside[0].name}' of {outside[0].origin} is not a subclass of {base}; make it one")
        return found

    def name_of(self, part: Part) -> str:
        """The name by which a config names such a part: the first of several."""
        target = f"{type(part).__module__}:{type(part).__qualname__}"
        own = [name for name, known in self._entries.items() if known == target]
        return next(iter(own or [name for name in self.names() if self.get(name) is type(part)]), type(part).__name__)

    def outside_code(self, name: str) -> str | None:
        """A digest of the code of a part from outside; None for one of Sumi's own."""
        return code_digest(self.get(name).__module__) if self._outside(name) else None

    def is_edited(self, name: str) -> bool:
        """Whether a part from outside has other code on disk than this process has imported."""
        return bool(self._outside(name)) and edited_since_import(self.get(name).__module__)

    def _outside(self, name: object) -> list[OutsidePart]:
        return outside_parts().parts.get(f"{self.key}.{name}", []) if self.key else []

    def _unknown(self, name: str) -> str:
        """The sentence for a name that nothing offers, and what is wrong with parts from outside: one may be meant."""
        outside = outside_parts() if self.key else None
        wrong = [] if outside is None else list(outside.broken)
        for part in [part for found in outside.parts.values() for part in found] if outside else []:
            registry, _, own = part.name.partition(".")
            if registry not in self.by_key or not own:
                wrong.append(f"{part.origin} offers '{part.name}', of no registry; {nearest(registry, self.by_key)}")
        return "; ".join([f"no {self.kind} is called '{name}'; {nearest(name, self.names())}", *wrong])

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


@functools.lru_cache(maxsize=1024)
def load(target: str) -> Any:
    """The object that ``"module:attribute"`` names; its module is imported now."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
