"""Plain data into typed dataclasses, with complaints that name the file, the key and what to do.

A dataclass field may carry rules in its metadata: a range (``number``), a closed set of values (``choice``), or a
registry whose part it names (``part``). A part is written ``uniform`` or ``{name: clustered, late: 2}`` and
becomes a dict ``{name, **options}`` with every option of the part's own ``Options`` written out.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sumi_core.base.errors import SumiError
from sumi_core.base.registry import Registry, UnknownName, nearest

MAX_SEED = 2**32 - 1  # what every random generator in use accepts


class ConfigError(SumiError, ValueError):
    """A config that cannot be run. One sentence: file, key, what is wrong, what to do."""

    def __init__(self, where: str, key: str, problem: str) -> None:
        super().__init__(f"{where}: {key}: {problem}" if key else f"{where}: {problem}")
        self.where, self.key, self.problem = where, key, problem


# --- declaring fields -----------------------------------------------------------------------------------------------

_LIMITS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "low": ("at least", operator.ge),
    "high": ("at most", operator.le),
    "above": ("above", operator.gt),
    "below": ("below", operator.lt),
}


def number(default: Any, **limits: float) -> Any:
    """A numeric field with any of four limits: ``low <= value <= high`` and ``above < value < below``."""
    assert limits.keys() <= _LIMITS.keys(), limits
    return field(default=default, metadata=limits)


def choice(default: str, *choices: str) -> Any:
    """A text field that takes one of a few values."""
    return field(default=default, metadata={"choices": choices})


def part(registry: Registry, default: str | None, *, optional: bool = False) -> Any:
    """A field that names a registered part: resolved, a dict ``{name, **options}``, or None where ``optional``."""
    return field(
        default_factory=lambda: {"name": default} if default else None,
        metadata={"registry": registry, "optional": optional},
    )


def parts(registry: Registry, *names: str) -> Any:
    """A field that lists registered parts, each at most once: resolved, a list of dicts ``{name, **options}``."""
    return field(
        default_factory=lambda: [{"name": name} for name in names], metadata={"registry": registry, "many": True}
    )


def location(default: Any = dataclasses.MISSING, **more: Any) -> Any:
    """An option that says where a part's content lies, or how it is reached, but not what it is: the part's
    ``identity()`` says that, and fingerprints leave the option out."""
    return field(default=default, metadata={"location": True}, **more)


def parts_in(
    schema: type[Any], data: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Registry, dict[str, Any]]]:
    """Every part of a resolved config, those among the options of others too: its key, its registry, and
    ``{name, **options}`` itself."""
    hints = type_hints(schema)
    for declared in dataclasses.fields(schema):
        if declared.name not in data:
            continue
        value, key = data[declared.name], f"{prefix}{declared.name}"
        keyed = (
            [(f"{key}[{place}]", item) for place, item in enumerate(value)]
            if isinstance(value, list)
            else [(key, value)]
        )
        for key, found in keyed:
            if registry := declared.metadata.get("registry"):
                if found is not None:
                    yield key, registry, found
                    yield from parts_in(registry.options(found["name"]), found, f"{key}.")
            elif inner := _section(hints[declared.name]):
                yield from parts_in(inner, found, f"{key}.")


def _section(hint: Any) -> type[Any] | None:
    """The dataclass that a field holds, or a list of: ``list[Share]`` → ``Share``; else None."""
    (hint,) = typing.get_args(hint) if typing.get_origin(hint) is list else (hint,)
    return typing.cast(type[Any], hint) if dataclasses.is_dataclass(hint) else None


_HINTS: dict[Any, dict[str, Any]] = {}


def type_hints(schema: Any) -> dict[str, Any]:
    """The declared types of a dataclass's fields, remembered: every cell of every sweep asks for them."""
    if schema not in _HINTS:
        _HINTS[schema] = typing.get_type_hints(schema)
    return _HINTS[schema]


# --- reading plain data ---------------------------------------------------------------------------------------------


def check_keys(data: Any, where: str, schema: Any, prefix: str = "", extra: tuple[str, ...] = ()) -> None:
    """Refuse keys that no section of ``schema`` knows. Looks at keys only, so a file may be a fragment."""
    if data is None or not dataclasses.is_dataclass(schema):
        return
    if not isinstance(data, Mapping):
        raise ConfigError(where, prefix.rstrip("."), f"expected a mapping of keys, got {data!r}")
    hints = type_hints(schema)
    for key, value in data.items():
        if key in extra:
            continue
        if key not in hints:
            raise ConfigError(where, f"{prefix}{key}", f"unknown key; {nearest(str(key), [*hints, *extra])}")
        check_keys(value, where, hints[key], f"{prefix}{key}.")


def typed(schema: type[Any], data: Mapping[str, Any], where: str, prefix: str = "") -> Any:
    """Build a dataclass from plain data; keys that are left out keep their defaults."""
    check_keys(data, where, schema, prefix)
    hints = type_hints(schema)
    values: dict[str, Any] = {}
    for declared in dataclasses.fields(schema):
        key, hint = f"{prefix}{declared.name}", hints[declared.name]
        if declared.name not in data:
            if declared.default is dataclasses.MISSING and declared.default_factory is dataclasses.MISSING:
                raise ConfigError(where, key, f"is missing; write {_type_name(hint)}")
            if (section := _section(hint)) is not None and section is hint:  # its parts get their options written out
                values[declared.name] = typed(section, {}, where, f"{key}.")
            continue
        value = data[declared.name]
        if "registry" in declared.metadata:
            values[declared.name] = _typed_part(declared, value, where, key)
        elif section := _section(hint):
            values[declared.name] = (
                typed(section, value or {}, where, f"{key}.")
                if section is hint
                else _typed_list(section, value, where, key)
            )
        else:
            values[declared.name] = typed_value(hint, value, where, key)
            _check_rules(declared, values[declared.name], where, key)
    result = schema(**values)
    for declared in dataclasses.fields(schema):  # parts that are left out get their options written out too
        if "registry" in declared.metadata and declared.name not in values:
            default = getattr(result, declared.name)
            setattr(result, declared.name, _typed_part(declared, default, where, f"{prefix}{declared.name}"))
    return result


def _typed_list(section: type[Any], value: Any, where: str, key: str) -> list[Any]:
    if not isinstance(value, list):
        shown = ", ".join(f"{name}: …" for name in type_hints(section))
        raise ConfigError(where, key, f"expected a list of {{{shown}}}, got {_brief(value)}")
    return [typed(section, item, where, f"{key}[{place}].") for place, item in enumerate(value)]


def component(registry: Registry, value: Any, where: str, key: str) -> dict[str, Any]:
    """Check one part and write out its options: ``"bpe"`` → ``{"name": "bpe", "vocab_size": 1024}``."""
    value = as_component(value)
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ConfigError(
            where, key, f"expected the name of a {registry.kind} ({', '.join(registry.names())}), got {value!r}"
        )
    try:
        options = registry.options(value["name"])
    except UnknownName as error:
        raise ConfigError(where, key, str(error)) from None
    result = typed(options, {k: v for k, v in value.items() if k != "name"}, where, f"{key}.")
    check = getattr(result, "check", None)  # a part may refuse combinations of its own options
    if check is not None:
        try:
            check()
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(where, key, str(error)) from None
    return {"name": value["name"], **dataclasses.asdict(result)}


def as_component(value: Any) -> Any:
    """``"uniform"`` → ``{"name": "uniform"}``; anything else as it is."""
    return {"name": value} if isinstance(value, str) else value


def _typed_part(declared: dataclasses.Field[Any], value: Any, where: str, key: str) -> Any:
    registry = declared.metadata["registry"]
    if declared.metadata.get("many"):
        return _typed_parts(registry, value, where, key)
    if value is None and declared.metadata["optional"]:
        return None
    return component(registry, value, where, key)


def _typed_parts(registry: Registry, value: Any, where: str, key: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise ConfigError(
            where, key, f"expected a list of {registry.kind}s ({', '.join(registry.names())}), got {value!r}"
        )
    found = [component(registry, item, where, f"{key}[{number}]") for number, item in enumerate(value)]
    names = [item["name"] for item in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(where, key, f"names {registry.kind} '{name}' twice; keep one")
    return found


def typed_value(hint: Any, value: Any, where: str, key: str) -> Any:
    """Convert a plain value to its declared type with OmegaConf's rules, which read ``"5"`` as an integer where one is
    declared. Beyond them, true is no number, a number is no text, and nan and inf are no numbers."""
    expected = _type_name(hint)
    inner, optional = _without_none(hint)
    if value is None and not optional:
        raise ConfigError(where, key, f"expected {expected}, got null; write a value or leave the key out")
    if advice := _mistaken(inner, value):
        raise ConfigError(where, key, f"expected {expected}, got {_brief(value)}; {advice}")
    converted = value if type(value) is inner or value is None else _convert(inner, value, where, key)
    if not _is_finite(converted):
        raise ConfigError(where, key, f"expected {expected}, got {value!r}; nan and inf are no settings")
    return converted


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    holder = dataclasses.make_dataclass("Holder", [("value", hint)])
    try:
        node = OmegaConf.merge(OmegaConf.structured(holder), {"value": value})
        converted = OmegaConf.to_container(node, throw_on_missing=True)["value"]
        if hint in _NAMES and type(converted) is not hint:  # such as an interpolation that is escaped
            raise TypeError
        return converted
    except (OmegaConfBaseException, ValueError, TypeError, OverflowError):
        raise ConfigError(where, key, f"expected {_type_name(hint)}, got {_brief(value)}") from None


def _without_none(hint: Any) -> tuple[Any, bool]:
    """``int | None`` → ``(int, True)``; ``int`` → ``(int, False)``."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint, False
    inner = [argument for argument in typing.get_args(hint) if argument is not type(None)]
    return (inner[0] if len(inner) == 1 else hint), True


def _mistaken(hint: Any, value: Any) -> str | None:
    """What to do about a value that only looks like what is declared, though OmegaConf would take it; else None."""
    if typing.get_origin(hint) is list and isinstance(value, list):
        (item,) = typing.get_args(hint)
        return next((advice for element in value if (advice := _mistaken(item, element))), None)
    if hint in (int, float) and isinstance(value, bool):
        return "write a number"
    if hint is bool and isinstance(value, int) and not isinstance(value, bool):
        return "write true or false"
    if hint is str and isinstance(value, bool | int | float):
        return "put it in quotes"
    return None


def _is_finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_finite(item) for item in value.values())
    if isinstance(value, list):
        return all(_is_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


_LONGEST = 100  # characters of a value in a complaint
_NAMES = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
_PLURALS = {int: "integers", float: "numbers", str: "texts"}


def _type_name(hint: Any) -> str:
    inner, optional = _without_none(hint)
    name = _NAMES.get(inner, str(inner).replace("typing.", ""))
    if typing.get_origin(inner) is list:
        (item,) = typing.get_args(inner)
        name = f"a list of {_PLURALS.get(item, 'values')}"
    return f"{name} or null" if optional else name


def _check_rules(declared: dataclasses.Field[Any], value: Any, where: str, key: str) -> None:
    rule = declared.metadata
    if (choices := rule.get("choices")) and value not in choices:
        raise ConfigError(where, key, f"no such choice '{value}'; {nearest(str(value), choices)}")
    for limit, (words, holds) in _LIMITS.items():
        if value is not None and limit in rule and not holds(value, rule[limit]):
            raise ConfigError(where, key, f"must be {words} {_shown(rule[limit])}, got {_shown(value)}")


def _brief(value: Any) -> str:
    """A value as it is written, cut where it is long."""
    shown = repr(value)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"


def _shown(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
