"""Libraries that are imported at their first use: reading what an experiment says takes no torch.

A module of a part may then write ``import torch`` at its top and still be imported in no time, as long as nothing of
torch is looked at before a function runs. ``from torch import Tensor``, a base class or a decorator looks: types belong
under ``TYPE_CHECKING``, the others into functions or into a module of their own.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import MutableSequence
from types import ModuleType
from typing import Any


def defer(*packages: str) -> None:
    """From now on, importing one of these packages gives a module that is run at the first look into it. For processes
    of one thread that read, and mostly end without it. What is imported already, or missing, stays as it is."""
    for name in packages:
        spec = None if name in sys.modules else importlib.util.find_spec(name)
        if spec is not None:
            module = importlib.util.module_from_spec(spec)
            module.__class__ = _Deferred
            sys.modules[name] = module


def load_deferred() -> None:
    """Run what was deferred, before there are threads."""
    for module in list(sys.modules.values()):
        if isinstance(module, _Deferred):
            module._run()


class _Deferred(ModuleType):
    """A package that has not run yet. What is known without running it, such as its file, is there."""

    def __getattr__(self, name: str) -> Any:
        self._run()
        return getattr(self, name)

    @property
    def __path__(self) -> MutableSequence[str]:  # type: ignore[override]
        """Python reads it before it imports a module inside, which must not run first."""
        self._run()
        path: MutableSequence[str] = self.__dict__["__path__"]
        return path

    def _run(self) -> None:
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec = self.__spec__
        assert spec is not None
        assert spec.loader is not None
        try:
            spec.loader.exec_module(self)
        except BaseException:
            sys.modules.pop(spec.name, None)
            raise
