"""Sharper predictions: temperature, and cutting off the improbable (top-k, top-p, min-p).

They act on the predicted distribution of a clean token. Each of them changes it, so a sampler that uses one is no
sampler of p, and its texts do not show how well the model predicts: they trade variety for likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field

from sumi_core.base.options import later
from sumi_core.base.registry import Part
from sumi_core.sampling.choosing import tempered

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Truncation(Part.Options):
    """Options of samplers that can cut off the improbable, in the order in which they act."""

    top_k: Annotated[int, Field(ge=0, le=2**31, description="keep the k most probable tokens; 0: all")] = later(0)
    top_p: Annotated[
        float,
        Field(gt=0.0, le=1.0, description="keep the most probable tokens, as few as reach this sum"),
    ] = later(1.0)
    min_p: Annotated[
        float, Field(ge=0.0, lt=1.0, description="keep tokens at least this share as probable as the most probable one")
    ] = later(0.0)


@dataclass
class Sharpening(Truncation):
    """The same, with a temperature."""

    temperature: Annotated[
        float, Field(ge=0.0, description="divides the logits of the predicted tokens; 0: always the most probable one")
    ] = later(1.0)


#: Why a step that draws all tokens of a text at once cannot cut some off and hold the text to a language.
LANGUAGE_CUT = (
    "temperature 0, top_k, top_p and min_p may cut off every text of the language; leave them out of evaluation.sampler"
)


def cuts(options: Any) -> bool:
    """Whether ``sharpened`` would leave tokens out, but for a temperature of 0."""
    return bool(options.top_k or options.top_p < 1 or options.min_p)


def changes(options: Any) -> bool:
    """Whether ``sharpened`` would change anything."""
    return bool(options.temperature != 1 or cuts(options))


def sharpened(logits: Tensor, options: Any) -> Tensor:
    """Probabilities of tokens, ``[..., V]`` → ``[..., V]`` float64: first the temperature acts, then top_k, top_p and
    min_p, each on what the one before has left. Tokens as probable as the last one that top_k keeps are kept, too. Not
    normalised; all 0 or NaN where no token has a finite logit.

    options: with temperature, top_k, top_p (Holtzman et al., 1904.09751) and min_p (Nguyen et al., 2407.01082)."""
    probs = tempered(logits, options.temperature)
    if 0 < options.top_k < probs.shape[-1]:
        least = probs.topk(options.top_k, -1).values[..., -1:]
        probs = torch.where(probs >= least, probs, 0.0)
    if options.top_p < 1:
        falling, order = probs.sort(-1, descending=True)
        before = falling.cumsum(-1) - falling
        within = before < options.top_p * falling.sum(-1, keepdim=True)
        probs = torch.where(torch.zeros_like(within).scatter(-1, order, within), probs, 0.0)
    if options.min_p:
        probs = torch.where(probs >= options.min_p * probs.amax(-1, keepdim=True), probs, 0.0)
    return probs
