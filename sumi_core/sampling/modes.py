"""Which objectives train a model that has an autoregressive mode beside its diffusion mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TWO_MODES = ("joint",)


def without_autoregressive_mode(sampler: str, experiment: Mapping[str, Any]) -> tuple[str, str] | None:
    """Why a sampler that reads the autoregressive mode of a model of blocks cannot write with this experiment's: a key
    and a sentence, or None. experiment: every section of the resolved experiment by name, as plain data."""
    objective = experiment["objective"]["name"]
    if objective in TWO_MODES:
        return None
    return (
        "evaluation.sampler",
        f"sampler '{sampler}' reads the model's autoregressive mode, which objective '{objective}' does not train; "
        f"write objective: {' or '.join(TWO_MODES)}, or leave the sampler out",
    )
