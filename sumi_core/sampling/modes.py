"""The modes of a model that is trained to predict the next token and to denoise, and who writes with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TWO_MODES = ("joint",)  # objectives

#: The samplers that write in each mode; the first is the mode's own.
MODES: Mapping[str, tuple[str, ...]] = {
    "ar": ("autoregressive",),
    "canvas": ("blockwise", "entropy_bound", "threshold"),
    "speculative": ("speculative",),
}


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
