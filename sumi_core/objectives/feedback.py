"""Where the predictions come from that a model with feedback (``sumi_core.models.feedback``) is given.

A source sees a text in noise and its level, never the clean text, so what it feeds back holds no more than the noise
that it was made of. Which bound that leaves (docs/mathematics.md 13):

    of the same z_t     x_θ is a function of (z_t, t) in two passes: the tight bound holds as it is
    of a z_u of one path, u > t, z_u ~ q_{u|t}(· | z_t)     averaged over such pairs the bound is that of a sampler that
                        remembers its prediction of level u when it stands at level t
    of another noising of the same text     no bound at all: two noisings tell more of x than one, and the figure falls
                        below the entropy. No source draws one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, cast

import torch
from pydantic import Field

from sumi_core.base.numerics import no_grad
from sumi_core.base.references import stage_ref
from sumi_core.base.registry import Part
from sumi_core.corruption.belief import BeliefReader
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.noise import Noise
from sumi_core.models.initialisers import other_tokens
from sumi_core.models.interface import Belief, DenoiserFunction, DenoiserInput, TakesFeedback
from sumi_core.objectives.reference import frozen

if TYPE_CHECKING:
    from torch import Tensor

    from sumi_core.models.denoiser import Denoiser

#: From a denoiser to the one that shows it texts as a layout lays them out.
LayOut = Callable[[DenoiserFunction], DenoiserFunction]


@dataclass(frozen=True)
class Earlier:
    """What the earlier pass is given. level: of its tokens, broadcastable to ``[B, L]`` float64. where: positions that
    are to have feedback of it, ``[B, 1]`` or ``[B, L]`` bool."""

    given: DenoiserInput
    level: Tensor
    where: Tensor

    def where_chosen(self, given: DenoiserInput, chosen: Tensor) -> Earlier:
        """The same, with tokens, and levels told for each of them, as they are ``given`` wherever none is chosen."""
        told = self.given.level
        if told is not None and told.ndim > 1 and given.level is not None:
            told = torch.where(chosen, told, given.level)
        tokens = torch.where(chosen, self.given.tokens, given.tokens)
        return replace(self, given=replace(self.given, tokens=tokens, level=told))


class FeedbackSource(Part, ABC):
    """Who predicts, of which text in noise. The earlier pass has no feedback itself, and no gradient."""

    @dataclass
    class Options(Part.Options):
        share: Annotated[
            float,
            Field(
                gt=0.0,
                lt=1.0,
                description="share of the sequences that are trained with feedback; the others train the pass without, "
                "which every sampler begins with",
            ),
        ] = 0.5

    options: Any

    @abstractmethod
    def earlier(self, process: ForwardProcess, given: DenoiserInput, level: Tensor, noise: Noise) -> Earlier:
        """The text in noise that the prediction is made of: ``given``, or more noise on top of it.

        level: of its tokens, broadcastable to ``[B, L]`` float64. noise: of the source's own."""

    def predictor(self, denoiser: DenoiserFunction, process: ForwardProcess, device: torch.device) -> DenoiserFunction:
        """Who predicts: the denoiser itself, unless another one does."""
        return denoiser

    def feed(
        self,
        denoiser: DenoiserFunction,
        lay_out: LayOut,
        process: ForwardProcess,
        given: DenoiserInput,
        level: Tensor,
        noise: Noise,
        chosen: Tensor | None = None,
    ) -> DenoiserInput:
        """What ``denoiser`` is given, with feedback: ``given`` and the prediction of an earlier pass.

        level, noise: as for ``earlier``. chosen: rows that have feedback, ``[B, 1]`` bool, or positions, ``[B, L]``:
        the others stand in the earlier pass too, as a prompt does in all steps of a sampler; None: all."""
        asked = self.earlier(process, given, level, noise)
        if chosen is not None and chosen.shape[1] > 1:
            asked = asked.where_chosen(given, chosen)
        output = no_grad(lay_out(self.predictor(denoiser, process, given.tokens.device)))(asked.given)
        where = asked.where if chosen is None else asked.where & chosen
        read = BeliefReader(process, given.tokens, level, asked.given.tokens, asked.level)
        feedback = cast(TakesFeedback, denoiser).feedback(Belief(output, read, where))
        return replace(given, feedback=feedback)


class Same(FeedbackSource):
    """The model's own prediction of the very same text in noise, in a first pass (Analog Bits, 2208.04202)."""

    def earlier(self, process: ForwardProcess, given: DenoiserInput, level: Tensor, noise: Noise) -> Earlier:
        return Earlier(given, level, torch.ones_like(given.tokens[:, :1], dtype=torch.bool))


class Path(FeedbackSource):
    """The model's own prediction of a noisier state of the same path, z_u ~ q_{u|t}(· | z_t) with u = t + lag: what a
    sampler with steps of that length has at hand. Where u would exceed 1 there is none, as at a sampler's first step.
    """

    @dataclass
    class Options(FeedbackSource.Options):
        lag: Annotated[
            float, Field(gt=0.0, lt=1.0, description="u − t: how much earlier in sampling the prediction was made")
        ] = 0.05

    def earlier(self, process: ForwardProcess, given: DenoiserInput, level: Tensor, noise: Noise) -> Earlier:
        told, lag = given.level, self.options.lag
        later = level + lag
        at = later.clamp(max=1.0)
        seen = process.noise_on(given.tokens, level, at, noise)
        asked = replace(given, tokens=seen, level=None if told is None else (told + lag).clamp(max=1.0))
        return Earlier(asked, at, later <= 1.0)


class Reference(Same):
    """The prediction of the same text in noise by another cell's model, which stays as it is (the second stage of RCD,
    2601.22954). of: that cell, or a group of seeds, of which that of the same seed is meant. It must know the same
    tokens and the same noise; its size is its own.
    """

    @dataclass
    class Options(Same.Options):
        of: Annotated[Any | None, Field(description="the cell, or group of seeds, whose model predicts")] = stage_ref(
            "pretrained_denoiser"
        )

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._denoiser: Denoiser | None = None

    @classmethod
    def incompatibility(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, str] | None:
        cell, there = own["of"]["cell"], own["of"]["experiment"]
        for key in ("process", "schedule", "clock", "parameterisation", "layout"):
            if there[key] != others[key]:
                problem = f"is not that of '{cell}', which predicts from the same noise for objective.feedback"
                return key, f"{problem}; write the same {key}, or name another cell"
        return other_tokens(cell, there, others, "whose model predicts for objective.feedback")

    def predictor(self, denoiser: DenoiserFunction, process: ForwardProcess, device: torch.device) -> DenoiserFunction:
        """The other cell's model, read when it is first needed. It is not a module of this one: no checkpoint, average
        or export of the model's weights holds it."""
        if self._denoiser is None:
            self._denoiser = frozen(self.options.of, process.num_states)
        return cast(DenoiserFunction, self._denoiser.to(device))
