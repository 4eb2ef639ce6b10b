"""The section ``model`` of an experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sumi_core.base.options import choice, number, part
from sumi_core.models import ATTENTION_PATTERNS, INITIALISERS


@dataclass
class ModelConfig:
    """The denoiser's dimensions. ``preset`` fills in what is not written; it is a label and no identity field."""

    preset: str | None = None
    hidden_size: int = number(128, low=2, high=2**16)
    intermediate_size: int = number(352, low=1, high=2**20)
    num_layers: int = number(4, low=1, high=1000)
    num_heads: int = number(4, low=1, high=1024)
    num_kv_heads: int = number(2, low=1, high=1024)
    rope_theta: float = number(10000.0, above=0.0)
    norm_epsilon: float = number(1e-5, above=0.0)
    tie_embeddings: bool = False
    qk_norm: bool = False
    attention: Any = part(ATTENTION_PATTERNS, "bidirectional")
    time_conditioning: str = choice("none", "none", "adaln", "token")
    init_std: float = number(0.02, above=0.0, high=10.0)
    initialiser: Any = part(INITIALISERS, "random")  # where the weights start
