"""Experiment files of tests, read, and what is said against them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sumi_core.base.options import ConfigError
from sumi_core.experiments.sweeps import Sweep, load_sweep

Write = Callable[..., Path]


def load(file: Path, *overrides: str) -> Sweep:
    folder = next(parent for parent in file.parents if parent.name == "experiments")
    return load_sweep(file, folder, overrides)


def complaint(function: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        function()
    assert "\n" not in str(caught.value)
    return str(caught.value)
