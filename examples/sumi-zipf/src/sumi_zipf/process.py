"""Zipf noise: a token that is hit is redrawn from Zipf's law over token ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from sumi_core.base.registry import Part
from sumi_core.corruption.interpolating import Interpolating
from sumi_zipf.law import zipf_law


class Zipf(Interpolating):
    """π(k) ∝ 1 / (k + offset): for a byte-level BPE, whose ids follow the merges, frequent tokens come first."""

    @dataclass
    class Options(Part.Options):
        offset: Annotated[float, Field(gt=0.0, description="added to a token's id; large: nearly uniform noise")] = 1.0

    def __init__(self, options: Any, **context: Any) -> None:
        super().__init__(options, **context)
        self.offset = options.offset

    def stationary(self) -> Tensor:
        return zipf_law(self.num_tokens, self.offset)
