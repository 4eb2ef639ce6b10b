"""Layers of plain data: presets written out, one layer laid over another, keys that no section knows refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sumi_core.base.hashing import LEAVES
from sumi_core.base.options import ConfigError, as_component, marked, plain_data, type_hints
from sumi_core.base.options import check_keys as check_schema_keys
from sumi_core.base.registry import Registry, nearest
from sumi_core.corruption import CORRUPTION_PRESETS
from sumi_core.experiments.schema import Experiment


def merge(low: Any, high: Any, schema: Any = Experiment) -> Any:
    """Lay ``high`` over ``low``: mappings merge, an empty section changes nothing, anything else replaces. A component
    whose name changes is replaced whole, since the old part's options mean nothing to the new one."""
    if high is None and dataclasses.is_dataclass(schema):
        return plain_data(low)
    if not (isinstance(low, Mapping) and isinstance(high, Mapping)):
        low = {}
    if not isinstance(high, Mapping):
        return plain_data(high)
    merged = dict(low)
    registries: dict[str, Registry] = {}
    hints: dict[str, Any] = {}
    if isinstance(schema, type) and dataclasses.is_dataclass(schema):
        registries, hints = dict(marked(schema, "registry")), type_hints(schema)
    for key, value in high.items():
        below, inner = merged.get(key), hints.get(key)
        if registry := registries.get(key):
            value, below = as_component(value), as_component(below)
            if isinstance(below, Mapping) and isinstance(value, Mapping):
                renamed = value.get("name") not in (None, below.get("name"))
                below = None if renamed else below
                name = value.get("name", (below or {}).get("name"))
                inner = registry.options(name) if isinstance(name, str) and name in registry else None
        leaf = value is not None and type(value) in LEAVES
        merged[key] = value if leaf else merge(below, value, inner)
    return merged


def expand_presets(data: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """A layer of keys with ``corruption: structured`` replaced by the process and clock that the preset stands for.
    What the layer itself writes of them is laid on top. Raises ConfigError for a name that is not a preset's."""
    if "corruption" not in data:
        return data
    name = data["corruption"]
    if not isinstance(name, str) or name not in CORRUPTION_PRESETS:
        raise ConfigError(
            where, "corruption", f"no preset is called {name!r}; {nearest(str(name), CORRUPTION_PRESETS)}"
        )
    preset = CORRUPTION_PRESETS[name]
    for key, meant in preset.items():
        written = as_component(data.get(key, meant))
        if not isinstance(written, Mapping) or written.get("name", meant["name"]) != meant["name"]:
            problem = f"'{name}' means {key}: {meant['name']}, and {key} is written beside it; drop one of them"
            raise ConfigError(where, "corruption", problem)
    return merge(preset, {key: value for key, value in data.items() if key != "corruption"})


def check_keys(data: Any, where: str, prefix: str = "", extra: tuple[str, ...] = ()) -> None:
    """Refuse keys that no section knows, in one file as it is written, so that the complaint names that file."""
    for key in data if isinstance(data, Mapping) else ():
        if key not in (*type_hints(Experiment), *extra, "corruption"):
            section, _, rest = str(key).partition(".")
            if rest and section in type_hints(Experiment):
                raise ConfigError(where, f"{prefix}{key}", f"unknown key; write it as {section}: {{{rest}: …}}")
            for section, hint in type_hints(Experiment).items():
                if dataclasses.is_dataclass(hint) and key in type_hints(hint):
                    problem = f"unknown key; did you mean '{section}.{key}'?"
                    raise ConfigError(where, f"{prefix}{key}", problem)
    check_schema_keys(data, where, Experiment, prefix, (*extra, "corruption"))
