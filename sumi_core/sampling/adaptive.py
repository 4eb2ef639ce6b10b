"""Block-by-block sampling by a rule that decides how much of a block a step accepts, and when a block is done."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.corruption.categorical import draw_categorical
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.noise import Noise
from sumi_core.kernels.row_loss import pick
from sumi_core.sampling.blockwise import Blockwise, Move, Place
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.rules import Belief, EntropyBoundRule, Rule, ThresholdRule

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class _Addressed:
    """A rule's draws by the address of a step."""

    process: ForwardProcess
    source: Noise
    width: int

    def tokens(self, probs: Tensor) -> Tensor:
        return draw_categorical(probs, self.source.uniform(self.width, dtype=torch.float64))

    def noise(self) -> Tensor:
        return self.process.sample_prior(self.source, self.width)


class Adaptive(Blockwise):
    """``steps`` is the most network calls of a block. A rule reads p(x_i | z), whatever the logits mean. A network that
    is given a level is given, after the first call, the one at which the accepted share of the tokens survives, so that
    the block is noised as in training but for the choice of what is accepted. Where all are accepted, half a token
    counts as noise: at level 0 nothing could be revised, and what is accepted last need not be sure."""

    holds_languages: ClassVar[bool] = False  # a rule takes the most probable token of each place by itself

    options: Any
    rule: Rule

    def __init__(self, options: Any = None, **context: Any) -> None:
        super().__init__(options, **context)
        self.rule = self._rule()

    @abstractmethod
    def _rule(self) -> Rule:
        """The rule of the options."""

    def _level(self, canvas: Canvas, number: int, belief: Belief | None) -> Tensor:
        if belief is None:
            return torch.ones(len(canvas.tokens), 1, dtype=torch.float64, device=canvas.device)
        share = belief.accepted.double().mean(-1, keepdim=True).clamp(max=1 - 0.5 / belief.accepted.shape[1])
        return torch.where(share > 0, self.process.time_of_alpha(share), 1.0)

    def _move(self, canvas: Canvas, logits: Tensor, z: Tensor, place: Place) -> Move:
        posterior = self.process.log_posterior(logits, z, place.level)[..., : self.num_tokens]
        if canvas.constraints:
            posterior = self._allowed(canvas, posterior.exp(), place.block).log()
        given = place.given[..., None]
        token = torch.arange(self.num_tokens, device=z.device)
        certain = torch.where(token == z[..., None], 0.0, -torch.inf)
        posterior = torch.where(given, certain, posterior)
        if bool((posterior.amax(-1) == -torch.inf).logical_or(posterior.isnan().any(-1)).any()):
            raise ValueError(
                "cannot draw a state: the probabilities are NaN or all zero; does the denoiser give NaN logits?"
            )
        belief = self.rule.first(z) if place.belief is None else place.belief
        draws = _Addressed(self.process, self._noise(canvas, place.block, place.number + 1), z.shape[1])
        after = self.rule.step(belief, posterior, place.number, canvas.steps, draws)
        assert after.logits is not None
        # Not of what the rule sharpened; a row that waits for others keeps what it had.
        chance = torch.where(belief.done[:, None], torch.nan, pick(posterior.exp(), after.best))
        return Move(after.z, after.best, chance, after.done, after)


class EntropyBound(Adaptive):
    """Accepts the surest tokens while their entropies add up to little, turns the others back to noise, and stops a
    block that is stable and sure (``EntropyBoundRule``): the sampler of DiffusionGemma, with its defaults. Its
    ``steps`` are 48 there. It emits the most probable tokens and sharpens the distributions: no draw from the model."""

    version = "2"  # goes on with a block whose tokens are all accepted

    @dataclass
    class Options(Part.Options):
        entropy_bound: Annotated[
            float, Field(gt=0.0, description="γ: accept tokens while Σ entropies − the largest is at most this (nats)")
        ] = 0.1
        t_min: Annotated[float, Field(gt=0.0, description="the temperature to which it falls over the steps")] = 0.4
        t_max: Annotated[float, Field(gt=0.0, description="the temperature of the first step")] = 0.8
        stability: Annotated[
            int, Field(ge=0, le=1024, description="earlier steps whose most probable tokens must be the same to stop")
        ] = 1
        confidence: Annotated[
            float, Field(gt=0.0, description="mean entropy (nats) below which a stable block is done")
        ] = 0.005

    def _rule(self) -> Rule:
        own = self.options
        return EntropyBoundRule(own.entropy_bound, own.t_min, own.t_max, own.stability, own.confidence)


class Threshold(Adaptive):
    """Accepts every token whose probability reaches a threshold, at least so many that the steps suffice, and turns the
    others back to noise (``ThresholdRule``). It emits the most probable tokens: no draw from the model."""

    @dataclass
    class Options(Part.Options):
        threshold: Annotated[
            float, Field(gt=0.0, le=1.0, description="the least probability with which a token is accepted")
        ] = 0.9

    def _rule(self) -> Rule:
        return ThresholdRule(self.options.threshold)
