"""Every registry there is: found, so that a new one needs no list."""

from __future__ import annotations

import importlib
import pkgutil

import sumi_core
from sumi_core.base.registry import Registry


def all_registries() -> dict[str, Registry]:
    """Registries by the name that holds them, from the packages of the science."""
    found: dict[str, Registry] = {}
    for module in pkgutil.iter_modules(sumi_core.__path__, "sumi_core."):
        if module.ispkg:
            held = vars(importlib.import_module(module.name))
            found |= {name: value for name, value in held.items() if isinstance(value, Registry)}
    return found


REGISTRIES = all_registries()
assert {"PROCESSES", "CLOCKS", "CLUSTERINGS", "INITIALISERS", "STRATEGIES", "METRICS"} <= REGISTRIES.keys()
