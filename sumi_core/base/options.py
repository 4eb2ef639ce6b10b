"""Plain data into typed dataclasses by pydantic, with complaints that name the file, the key and what to do.

A field declares its type, its limits and its meaning in its annotation, and a closed set of values as a ``Literal``:

    steps: Annotated[int, Field(ge=1, le=10**9, description="optimizer steps")] = 1000

A field that names a registered part (``part``) is written ``uniform`` or ``{name: clustered, late: 2}``, and becomes a
dict ``{name, **options}`` with every option of the part's own ``Options`` written out.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any, NamedTuple

from pydantic import ConfigDict, TypeAdapter, ValidationError

from sumi_core.base.errors import SumiError
from sumi_core.base.hashing import LEAVES
from sumi_core.base.outside import PartError
from sumi_core.base.registry import Registry, UnknownName, nearest

MAX_SEED = 2**32 - 1  # what every random generator in use accepts
_STRICTNESS = ConfigDict(extra="forbid", allow_inf_nan=False)


class ConfigError(SumiError, ValueError):
    """A config that cannot be run. One sentence: file, key, what is wrong, what to do."""

    def __init__(self, where: str, key: str, problem: str) -> None:
        super().__init__(f"{where}: {key}: {problem}" if key else f"{where}: {problem}")
        self.where, self.key, self.problem = where, key, problem


# --- declaring fields -----------------------------------------------------------------------------------------------


def part(registry: Registry, default: str | None, *, optional: bool = False, later: bool = False) -> Any:
    """A field that names a registered part: resolved, a dict ``{name, **options}``, or None where ``optional``. later:
    as for the function of that name, where the default is None."""
    return field(
        default_factory=lambda: {"name": default} if default else None,
        metadata={"registry": registry, "optional": optional, "later": (None,) if later else None},
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


def later(default: Any, **more: Any) -> Any:
    """An option that a part got after it was in use: fingerprints leave it out where it has its default, so that what
    was computed without it stays what it is."""
    return field(default=default, metadata={"later": (default,)}, **more)


def parts_in(
    schema: type[Any], data: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Registry, dict[str, Any]]]:
    """Every part of a resolved config, those among the options of others too: its key, its registry, and
    ``{name, **options}`` itself."""
    for key, registry, found in _part_fields(schema, data, prefix):
        if found is not None:
            yield key, registry, found


def absent_parts(schema: type[Any], data: Mapping[str, Any]) -> set[str]:
    """The keys of a resolved config where a part could be and none is."""
    return {key for key, _, found in _part_fields(schema, data, "") if found is None}


def _part_fields(
    schema: type[Any], data: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, Registry, dict[str, Any] | None]]:
    for name, registry, inner, _ in _holders(schema):
        if name not in data:
            continue
        for key, found in _items(data[name], f"{prefix}{name}"):
            if inner:
                yield from _part_fields(inner, found, f"{key}.")
            elif registry:
                yield key, registry, found
                if found is not None and len(found) > 1:  # it has options, which may be parts
                    options = registry.options(found["name"])
                    if _holders(options):
                        yield from _part_fields(options, found, f"{key}.")


class _Holder(NamedTuple):
    """A field that can hold parts: by the registry of the part itself, or by the section that has some."""

    name: str
    registry: Registry | None
    section: type[Any] | None
    metadata: Mapping[str, Any]


def _holders(schema: type[Any]) -> list[_Holder]:
    """The fields of a dataclass that can hold parts."""
    if schema in _HOLDERS:
        return _HOLDERS[schema]
    found: list[_Holder] = []
    for declared in dataclasses.fields(schema):
        inner = section(type_hints(schema)[declared.name])
        if registry := declared.metadata.get("registry"):
            found.append(_Holder(declared.name, registry, None, declared.metadata))
        elif inner and _holders(inner):
            found.append(_Holder(declared.name, None, inner, declared.metadata))
    _HOLDERS[schema] = found
    return found


def _items(value: Any, key: str) -> list[tuple[str, Any]]:
    """A value under its key, or those of a list under ``key[0]``, ``key[1]`` …"""
    return [(f"{key}[{n}]", item) for n, item in enumerate(value)] if isinstance(value, list) else [(key, value)]


@functools.lru_cache(maxsize=1024)
def section(hint: Any) -> type[Any] | None:
    """The dataclass that a field holds, or a list of: ``list[Share]`` → ``Share``; else None."""
    (hint,) = typing.get_args(hint) if typing.get_origin(hint) is list else (hint,)
    return typing.cast(type[Any], hint) if dataclasses.is_dataclass(hint) else None


def marked(schema: Any, mark: str) -> tuple[tuple[str, Any], ...]:
    """The fields of a dataclass whose metadata holds ``mark``: name, and what it holds there."""
    if (schema, mark) not in _MARKED:
        fields = dataclasses.fields(schema)
        found = [(declared.name, declared.metadata[mark]) for declared in fields if declared.metadata.get(mark)]
        _MARKED[schema, mark] = tuple(found)
    return _MARKED[schema, mark]


_HINTS: dict[Any, dict[str, Any]] = {}
_MARKED: dict[tuple[Any, str], tuple[tuple[str, Any], ...]] = {}
_HOLDERS: dict[Any, list[_Holder]] = {}
_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def type_hints(schema: Any) -> dict[str, Any]:
    """The declared types of a dataclass's fields without limits, remembered: every cell of every sweep needs them."""
    if schema not in _HINTS:
        _HINTS[schema] = typing.get_type_hints(schema)
    return _HINTS[schema]


def adapter(schema: Any) -> TypeAdapter[Any]:
    """Pydantic's reader of a dataclass, remembered."""
    if schema not in _ADAPTERS:  # `| None`: pydantic takes the configuration of a bare dataclass from its class alone
        _ADAPTERS[schema] = TypeAdapter(schema | None, config=_STRICTNESS)
    return _ADAPTERS[schema]


def plain_data(value: Any) -> Any:
    """A copy as plain data, as ``dataclasses.asdict`` makes it, in a fraction of its time: plans make a thousand."""
    kind = type(value)
    if kind in LEAVES:
        return value
    if kind is dict:
        return {key: item if type(item) in LEAVES else plain_data(item) for key, item in value.items()}
    if kind is list:
        return [item if type(item) in LEAVES else plain_data(item) for item in value]
    return plain_data(vars(value)) if dataclasses.is_dataclass(kind) else value


# --- reading plain data ---------------------------------------------------------------------------------------------


def check_keys(data: Any, where: str, schema: Any, prefix: str = "", extra: tuple[str, ...] = ()) -> None:
    """Refuse keys that no section of ``schema`` has. Looks at keys only, so a file may be a fragment."""
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
    """Build a dataclass from plain data; keys that are left out keep their defaults. Texts are read as the numbers they
    hold, but true is not a number, a number is not text, and nan and inf are neither. Raises ConfigError."""
    check_keys(data, where, schema, prefix)
    plain = _without_empty_sections(schema, data, where, prefix)
    try:
        result = adapter(schema).validate_python(plain)
    except ValidationError as error:
        raise _complaint(schema, plain, error.errors(include_url=False)[0], where, prefix) from None
    _write_out_parts(result, where, prefix)
    return result


def component(registry: Registry, value: Any, where: str, key: str) -> dict[str, Any]:
    """Check one part and write out its options: ``"bpe"`` → ``{"name": "bpe", "vocab_size": 1024}``."""
    value = as_component(value)
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ConfigError(
            where, key, f"expected the name of a {registry.kind} ({', '.join(registry.names())}), got {value!r}"
        )
    try:
        options = registry.options(value["name"])
    except (UnknownName, PartError) as error:
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
    return {"name": value["name"], **plain_data(result)}


def as_component(value: Any) -> Any:
    """``"uniform"`` → ``{"name": "uniform"}``; anything else as it is."""
    return {"name": value} if isinstance(value, str) else value


def _write_out_parts(record: Any, where: str, prefix: str) -> None:
    """Replace what names a part by the part with every option, in a record and its sections."""
    for name, registry, _, metadata in _holders(type(record)):
        value, key = getattr(record, name), f"{prefix}{name}"
        if registry:
            if metadata.get("many"):
                value = _typed_parts(registry, value, where, key)
            elif value is not None or not metadata["optional"]:
                value = component(registry, value, where, key)
            setattr(record, name, value)
        else:
            for place, inner in _items(value, key):
                if dataclasses.is_dataclass(inner):
                    _write_out_parts(inner, where, f"{place}.")


def _typed_parts(registry: Registry, value: Any, where: str, key: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise ConfigError(
            where, key, f"expected a list of {registry.kind}s ({', '.join(registry.names())}), got {value!r}"
        )
    found = [component(registry, item, where, place) for place, item in _items(value, key)]
    names = [item["name"] for item in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(where, key, f"names {registry.kind} '{name}' twice; keep one")
    return found


def _without_empty_sections(schema: Any, data: Mapping[str, Any], where: str, prefix: str) -> dict[str, Any]:
    """The data without sections that hold nothing. Refuses the two values that pydantic would convert and that can only
    be slips: a truth value where a number belongs, and a number where a truth value does."""
    hints, kept = type_hints(schema), dict(data)
    for name, value in data.items():
        hint, key = hints[name], f"{prefix}{name}"
        if section(hint) is hint:
            if value is None:
                del kept[name]
            else:
                kept[name] = _without_empty_sections(hint, value, where, f"{key}.")
        elif advice := _confusion(hint, value):
            raise ConfigError(where, key, f"expected {type_name(hint)}, got {_brief(value)}; {advice}")
    return kept


def _confusion(hint: Any, value: Any) -> str | None:
    wanted = (hint, *typing.get_args(hint))
    values = value if isinstance(value, list) else [value]
    if bool in wanted:
        return "write true or false" if any(type(item) in (int, float) for item in values) else None
    confused = (int in wanted or float in wanted) and any(isinstance(item, bool) for item in values)
    return "write a number" if confused else None


# --- complaints -----------------------------------------------------------------------------------------------------

_LONGEST = 100  # characters of a value in a complaint
_NAMES = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
_PLURALS = {int: "integers", float: "numbers", str: "texts"}
_LIMITS = {"ge": "at least", "le": "at most", "gt": "above", "lt": "below"}


def _complaint(schema: Any, data: Any, error: Any, where: str, prefix: str) -> ConfigError:
    """The sentence for what pydantic found first. A mistake inside a list of values is one of the whole list."""
    hint, value, key = schema, data, prefix.removesuffix(".")
    for step in error["loc"]:
        if isinstance(step, int) and section(hint):
            hint, value, key = section(hint), value[step], f"{key}[{step}]"
        elif dataclasses.is_dataclass(hint) and step in type_hints(hint):
            hint, value = type_hints(hint)[step], value.get(step)
            key = f"{key}.{step}" if key else str(step)
    expected, kind, context = type_name(hint), error["type"], error.get("ctx", {})
    limit = next((f"{words} {_shown(context[name])}" for name, words in _LIMITS.items() if name in context), None)
    if kind in ("unexpected_keyword_argument", "invalid_key"):
        name = str(error["loc"][-1])
        return ConfigError(where, f"{key}.{name}", f"unknown key; {nearest(name, type_hints(hint))}")
    if kind == "missing":
        problem = f"is missing; write {expected}"
    elif kind == "dataclass_type":
        problem = f"expected a mapping of keys, got {_brief(value)}"
    elif value is None:
        problem = f"expected {expected}, got null; write a value or leave the key out"
    elif kind == "literal_error" and isinstance(value, str):
        problem = f"no such choice '{value}'; {nearest(value, typing.get_args(hint))}"
    elif limit:
        problem = f"must be {limit}, got {_shown(value)}"
    else:
        advice = f"; write {context['min_length']} or more" if kind == "too_short" else _ADVICE.get(kind, "")
        problem = f"expected {expected}, got {_brief(value)}{advice}"
        if expected.startswith("text") and isinstance(value, bool | int | float):
            problem += "; put it in quotes"
    return ConfigError(where, key, problem)


_ADVICE = {"finite_number": "; nan and inf are not accepted"}


def type_name(hint: Any) -> str:
    """``int | None`` → ``an integer or null``; ``list[float]`` → ``a list of numbers``."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join("null" if inner is type(None) else type_name(inner) for inner in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return "text"
    if inner := section(hint):
        shown = f"{{{', '.join(f'{name}: …' for name in type_hints(inner))}}}"
        return shown if inner is hint else f"a list of {shown}"
    if typing.get_origin(hint) is list:
        inner = typing.get_args(hint)[0]
        return f"a list of {'lists' if typing.get_origin(inner) is list else _PLURALS.get(inner, 'values')}"
    return _NAMES.get(hint, str(hint).replace("typing.", ""))


def _brief(value: Any) -> str:
    """A value as it is written, cut where it is long."""
    shown = repr(value)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
