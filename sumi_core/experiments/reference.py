"""Every key of an experiment file from its declaration: as a JSON schema, in words for one key, and as a page.

A key is dotted, ``training.steps``. A part is ``process.clustered``, its registry's key and its name, and its options
follow: ``process.clustered.late``.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sumi_core.base.options import ConfigError, adapter, section, type_hints, type_name
from sumi_core.base.registry import Registry, nearest
from sumi_core.base.text import markdown_table
from sumi_core.corruption import CORRUPTION_PRESETS
from sumi_core.experiments.file_keys import SweepOptions
from sumi_core.experiments.schema import Experiment

_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_TEXT = {"type": "string"}
_INTERPOLATION = {"type": "string", "pattern": r"\$\{"}

#: Keys of a file that no dataclass declares.
_OTHER: dict[str, dict[str, Any]] = {
    "base": {**_TEXT, "description": "a file below experiments/, without .yaml, whose keys are the defaults"},
    "axes": {
        "type": "object",
        "additionalProperties": {"type": ["array", "object"]},
        "description": "what the cells of a sweep differ in: a config key with the values it takes, or a free name "
        "with labels and the keys that each one sets; cells are the product of the axes",
    },
    "phases": {
        "type": "object",
        "additionalProperties": {"type": ["object", "null"]},
        "description": "a chain of cells, such as pretraining and mid-training, by name with the keys that each one "
        "sets; each but the first starts from the weights of the one before",
    },
    "corruption": {
        "enum": list(CORRUPTION_PRESETS),
        "description": "a process and a clock that make one idea together, by the name of the preset",
    },
}


@dataclass(frozen=True)
class Key:
    """One key. default: as JSON, empty where the key must be written. choices: the values it takes, or the parts.
    registry: of the part that it names."""

    name: str
    type: str
    default: str
    limits: str
    choices: tuple[str, ...]
    meaning: str
    registry: Registry | None = None


# --- declarations ---------------------------------------------------------------------------------------------------


def _properties(schema: type[Any]) -> dict[str, dict[str, Any]]:
    """What pydantic's JSON schema has of a dataclass's own fields."""
    whole = adapter(schema).json_schema()
    name = whole["anyOf"][0]["$ref"].removeprefix("#/$defs/")
    found: dict[str, dict[str, Any]] = whole["$defs"][name].get("properties", {})
    return found


def keys_of(schema: type[Any], prefix: str = "") -> list[Key]:
    """The keys of a dataclass, those of its sections right after them."""
    found, properties = [], _properties(schema)
    for declared in dataclasses.fields(schema):
        hint, shown = type_hints(schema)[declared.name], properties[declared.name]
        name, inner = f"{prefix}{declared.name}", section(hint)
        if inner is hint and inner is not None:
            found.append(Key(name, "a section", "", "", (), summary(inner)))
            found += keys_of(inner, f"{name}.")
            continue
        registry: Registry | None = declared.metadata.get("registry")
        kind, choices = type_name(hint), tuple(shown.get("enum", ()))
        if registry is not None:
            kind, choices = f"the name of a {registry.kind}, or {{name: …}} with its options", tuple(_usable(registry))
            kind = f"a list, each {kind}" if declared.metadata.get("many") else kind
            kind += "; or null" if declared.metadata.get("optional") else ""
        meaning = str(shown.get("description", ""))
        found.append(Key(name, kind, _default(declared), _limits(shown), choices, meaning, registry))
    return found


def summary(declared: type[Any]) -> str:
    """The first paragraph of a class's docstring, in one line."""
    return " ".join((inspect.getdoc(declared) or "").partition("\n\n")[0].split())


def _default(declared: dataclasses.Field[Any]) -> str:
    value: Any = declared.default
    if declared.default_factory is not dataclasses.MISSING:
        value = declared.default_factory()
        if "registry" in declared.metadata:
            parts = value if isinstance(value, list) else [value or {"name": None}]
            names = [part["name"] for part in parts]
            value = names if isinstance(value, list) else names[0]
    return "" if value is dataclasses.MISSING or dataclasses.is_dataclass(value) else json.dumps(value)


def _limits(shown: Mapping[str, Any]) -> str:
    kinds = [shown, *shown.get("anyOf", ())]
    found = [(sign, kind[name]) for kind in kinds for name, sign in _LIMITS.items() if name in kind]
    return ", ".join(f"{sign} {limit:,}" if isinstance(limit, int) else f"{sign} {limit:g}" for sign, limit in found)


def parts_by_key() -> Iterator[tuple[str, type[Any]]]:
    """Every part that can be named, with its class: ``process.clustered``."""
    for key, registry in sorted(Registry.by_key.items()):
        yield from ((f"{key}.{name}", registry.get(name)) for name in _usable(registry))


def _usable(registry: Registry) -> list[str]:
    """The names whose parts can be used: what is wrong with one from outside is reported when it is named."""
    return [name for name in registry.names() if name in registry]


# --- in words -------------------------------------------------------------------------------------------------------


def explain(asked: str) -> str:
    """What there is to know of a key, a section or a part. Raises ConfigError with the nearest key."""
    file = {key.name: key for key in [*keys_of(Experiment), *keys_of(SweepOptions)]}
    if asked in file:
        below = [key for key in file.values() if key.name.startswith(f"{asked}.")]
        return "\n".join([*_in_words(file[asked]), *_brief_lines(below)])
    if asked in _OTHER:
        return f"{asked}\n  {_OTHER[asked]['description']}"
    start, _, name = asked.rpartition(".")
    if start in file and (registry := file[start].registry) and name in registry.names():
        return "\n".join(_part_in_words(asked, registry.get(name)))
    parts = dict(parts_by_key())
    if asked in parts:
        return "\n".join(_part_in_words(asked, parts[asked]))
    options = {key.name: key for part, found in parts.items() for key in keys_of(found.Options, f"{part}.")}
    if asked in options:
        return "\n".join(_in_words(options[asked]))
    if start in file and (registry := file[start].registry):  # an option by the key of its section
        found = [
            key for part, key in options.items() if part.startswith(f"{registry.key}.") and part.endswith(f".{name}")
        ]
        if found:
            return "\n".join(line for key in found for line in _in_words(key))
    known = nearest(asked, [*file, *_OTHER, *parts, *options], show=[key for key in file if "." not in key])
    raise ConfigError("command line", asked, f"no such key; {known}")


def _in_words(key: Key) -> list[str]:
    lines = [f"{key.name}: {key.type}"]
    lines += [f"  {key.meaning}"] if key.meaning else []
    lines += [f"  default: {key.default}"] if key.default else []
    lines += ["  must be written"] if not key.default and key.type != "a section" else []
    lines += [f"  limits: {key.limits}"] if key.limits else []
    if key.registry is None:
        return lines + ([f"  choices: {', '.join(key.choices)}"] if key.choices else [])
    width = max(map(len, key.choices), default=0)
    return lines + [f"  {name:<{width}}  {summary(key.registry.get(name))}" for name in key.choices]


def _brief_lines(keys: list[Key]) -> list[str]:
    width = max((len(key.name) for key in keys), default=0)
    return [f"  {key.name:<{width}}  {key.meaning}" for key in keys]


def _part_in_words(name: str, found: type[Any]) -> list[str]:
    text = inspect.getdoc(found) or ""
    lines = [name, *(f"  {line}".rstrip() for line in text.splitlines())]
    return [*lines, *(line for key in keys_of(found.Options, f"{name}.") for line in ["", *_in_words(key)])]


# --- as a page ------------------------------------------------------------------------------------------------------


def reference_page() -> str:
    """All keys and all parts as Markdown."""
    blocks = [
        "# Config reference",
        "Written by `sumi explain --page` from the declarations in the code; `sumi explain KEY` prints one of them, "
        "and `sumi schema` prints all as a JSON schema for editors.",
        "## An experiment file",
    ]
    for schema in (SweepOptions, Experiment):
        blocks.append(_table(keys_of(schema)))
    blocks.append(
        markdown_table([{"key": f"`{name}`", "meaning": str(own["description"])} for name, own in _OTHER.items()])
    )
    for key, registry in sorted(Registry.by_key.items()):
        blocks.append(f"## {registry.kind[0].upper()}{registry.kind[1:]}: `{key}`")
        for name in _usable(registry):
            found = registry.get(name)
            blocks += [f"### `{name}`", summary(found), _table(keys_of(found.Options))]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _table(keys: list[Key]) -> str:
    rows = []
    for key in keys:
        allowed = key.limits or ("" if key.registry else ", ".join(key.choices))
        kind = f"{key.registry.kind}" if key.registry else key.type
        default = f"`{key.default}`" if key.default else ""
        rows.append(
            {"key": f"`{key.name}`", "type": kind, "default": default, "allowed": allowed, "meaning": key.meaning}
        )
    return markdown_table(rows)


# --- as a JSON schema -----------------------------------------------------------------------------------------------


def file_schema() -> dict[str, Any]:
    """A JSON schema (draft 2020-12) of an experiment file. Keys that a base may hold are not required."""
    defs: dict[str, Any] = {}
    own, sweep = _object(Experiment, defs), _object(SweepOptions, defs)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Sumi experiment",
        "description": "An experiment, or a sweep of several; `sumi explain KEY` says more of a key.",
        "type": "object",
        "additionalProperties": False,
        "properties": {**sweep["properties"], **_OTHER, **own["properties"]},
        "$defs": defs,
    }


def _object(schema: type[Any], defs: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    known = _properties(schema)
    for declared in dataclasses.fields(schema):
        hint, shown = type_hints(schema)[declared.name], known[declared.name]
        registry: Registry | None = declared.metadata.get("registry")
        meaning = {"description": shown["description"]} if "description" in shown else {}
        default = _default(declared)
        if registry is not None:
            one = {"$ref": f"#/$defs/{_part_definition(registry, defs)}"}
            value: dict[str, Any] = {"type": "array", "items": one} if declared.metadata.get("many") else one
            value = {"anyOf": [value, {"type": "null"}]} if declared.metadata.get("optional") else value
        elif inner := section(hint):
            reference = {"$ref": f"#/$defs/{_section_definition(inner, defs)}"}
            value = reference if inner is hint else {"type": "array", "items": reference}
        else:
            value = {name: item for name, item in shown.items() if name not in ("title", "default", "description")}
            value = value if value == _TEXT else {"anyOf": [value, _INTERPOLATION]}
        properties[declared.name] = {**value, **meaning, **({"default": json.loads(default)} if default else {})}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _section_definition(schema: type[Any], defs: dict[str, Any]) -> str:
    name = schema.__name__
    if name not in defs:
        defs[name] = {}  # a section may hold itself: a mixture of mixtures
        defs[name] = {**_object(schema, defs), "type": ["object", "null"], "description": summary(schema)}
    return name


def _part_definition(registry: Registry, defs: dict[str, Any]) -> str:
    """A part by name, with options, or by options alone, which change those of the base's part."""
    key = registry.key or registry.kind
    if key not in defs:
        defs[key] = {}
        named = []
        for name in _usable(registry):
            found = registry.get(name)
            own = _object(found.Options, defs)
            own["properties"] = {"name": {"const": name}, **own["properties"]}
            named.append({**own, "required": ["name"], "description": summary(found)})
        unnamed = {"type": "object", "not": {"required": ["name"]}}
        defs[key] = {"oneOf": [{"enum": _usable(registry)}, *named, unnamed]}
    return key
