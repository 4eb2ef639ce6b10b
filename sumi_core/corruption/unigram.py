"""Unigram noise: a token that is hit is redrawn with the frequencies of the training text (a π of GIDD, 2503.04482).

At pure noise a text already has the frequencies of real ones, and a rare token is more likely signal than noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.corruption.interpolating import Interpolating
from sumi_core.data.vocabulary import VocabularyError

if TYPE_CHECKING:
    from torch import Tensor


class Unigram(Interpolating):
    """π = token frequencies of the train split; no further states.

    smoothing: added to every count, so that any token can become any other; with 0 a token that the train split lacks
    is never noise.
    """

    tables = ("token_counts",)

    @dataclass
    class Options(Part.Options):
        smoothing: Annotated[
            float, Field(ge=0.0, description="added to the count of every token, so that any can be noise")
        ] = 1.0

    def __init__(self, options: Options, **context: Any) -> None:
        super().__init__(options, **context)
        counts = context["vocabulary"].table("token_counts").to(torch.float64) + options.smoothing
        if not counts.sum() > 0:
            raise VocabularyError("the train split holds no token; set process.smoothing above 0")
        self.frequencies = counts / counts.sum()

    def stationary(self) -> Tensor:
        return self.frequencies
