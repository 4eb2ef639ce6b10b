"""Samplers whose rule decides what a step accepts, and when a block, or a whole text, is done.

One rule serves both layouts: a block is written beside the clean text before it (``Blockwise``), a whole text as one
block beside nothing, each row at its own length.
"""

from __future__ import annotations

import dataclasses
import functools
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from sumi_core.corruption import CLOCKS
from sumi_core.corruption.categorical import draw_categorical
from sumi_core.corruption.clocks import ClockReading
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.noise import Noise
from sumi_core.kernels.chunks import Tile, by_tiles
from sumi_core.kernels.row_loss import pick
from sumi_core.layouts.blocks import Blocks
from sumi_core.models.interface import DenoiserFunction, DenoiserInput, takes_feedback
from sumi_core.sampling.ancestral import told
from sumi_core.sampling.blockwise import Blockwise, Move, Place
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.memory import fed
from sumi_core.sampling.rules import Belief, Reading, Rule
from sumi_core.sampling.sampler import Sampler

if TYPE_CHECKING:
    from torch import Tensor


class Adaptive(Sampler):
    """``steps`` is the most network calls of a block, or of a whole text. A rule reads p(x_i | z), whatever the logits
    mean. A network that is given a level is given, after the first call, the one at which the share of the tokens that
    the rule takes for settled survives, so that the text is noised as in training but for the choice of what is
    accepted. Given tokens stand; in a whole text they count for nothing, in a block as accepted."""

    causal: ClassVar[bool | None] = None  # as the layout demands
    layouts: ClassVar[tuple[str, ...]] = ("whole", "blocks")
    mode = "canvas"
    grows = True
    holds_languages: ClassVar[bool] = False  # a rule decides about every place by itself

    options: Any

    def __init__(self, options: Any = None, **context: Any) -> None:
        super().__init__(options, **context)
        self.writer: OfBlocks | OfWholeTexts
        if isinstance(self.layout, Blocks):
            self.writer = OfBlocks(self._rule(), **context)
        else:
            self.writer = OfWholeTexts(self._rule(), self.process)
            self.mode, self.grows = "whole", False

    @classmethod
    def incompatibility(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, str] | None:
        if others["process"] is None or CLOCKS.get(others["clock"]["name"]).one_level:
            return None
        return (
            "evaluation.sampler",
            f"sampler '{own['name']}' gives all positions one noise level, which clock "
            f"'{others['clock']['name']}' does not; choose ancestral, or write clock: shared",
        )

    @abstractmethod
    def _rule(self) -> Rule:
        """The rule of the options."""

    def start(self, canvas: Canvas) -> Canvas:
        return self.writer.start(canvas)

    def step(self, denoiser: DenoiserFunction, canvas: Canvas) -> Canvas:
        return self.writer.step(denoiser, canvas)

    def finished(self, canvas: Canvas) -> Tensor:
        return self.writer.finished(canvas)

    def settled(self, canvas: Canvas) -> Tensor:
        return self.writer.settled(canvas) if isinstance(self.writer, OfBlocks) else super().settled(canvas)


class OfWholeTexts:
    """Writes whole texts by a rule: one block each, of the row's own length."""

    def __init__(self, rule: Rule, process: ForwardProcess) -> None:
        self.rule, self.process = rule, process

    def start(self, canvas: Canvas) -> Canvas:
        place = torch.arange(canvas.length, device=canvas.device)
        inside = place < canvas.lengths[:, None]
        z = torch.where(inside, self.process.sample_prior(canvas.noise("sample", 0), canvas.length), 0)
        started = canvas.written(z, predicted=None)
        return dataclasses.replace(started, state=self.rule.first(started.tokens, inside & ~canvas.frozen))

    def step(self, denoiser: DenoiserFunction, canvas: Canvas) -> Canvas:
        process, belief, number = self.process, canvas.state, canvas.age
        assert isinstance(belief, Belief)
        level = level_of(process, self.rule.settled(belief, number, canvas.steps))
        now = ClockReading(level, torch.ones_like(level), level[:, 0])
        asked = DenoiserInput(belief.z, told(canvas, now), valid=canvas.valid)
        if canvas.predicted is not None:
            asked = fed(denoiser, process, asked, level, canvas.predicted, where=~canvas.frozen)
        logits = process.predict(denoiser, asked, level)
        everywhere = torch.arange(canvas.length, device=canvas.device)

        def held(probs: Tensor, tile: Tile) -> Tensor:
            rows, part = tile
            return canvas.some(rows).allowed(probs, everywhere[part])

        noise = canvas.noise("sample", number + 1)
        posterior = Posterior(process, logits, belief.z, ~belief.open, level, held if canvas.constraints else None)
        after, chance = decided(self.rule, posterior, belief, number, canvas.steps, noise)
        kept = ~belief.open | canvas.done[:, None] | belief.done[:, None]
        return dataclasses.replace(
            canvas.written(after.best),
            age=number + 1,
            nfe=canvas.nfe + 1,
            slots=canvas.slots + canvas.lengths,
            confidence=torch.where(kept, canvas.confidence, chance),
            state=after,
            predicted=logits if takes_feedback(denoiser) else None,
        )

    def finished(self, canvas: Canvas) -> Tensor:
        assert isinstance(canvas.state, Belief)
        return canvas.state.done | (canvas.age >= canvas.steps)


class OfBlocks(Blockwise):
    """Writes blocks by a rule."""

    def __init__(self, rule: Rule, **context: Any) -> None:
        super().__init__(None, **context)
        self.rule = rule

    def _level(self, canvas: Canvas, number: int, belief: Belief | None) -> Tensor:
        if belief is None:
            return torch.ones(len(canvas.tokens), 1, dtype=torch.float64, device=canvas.device)
        return level_of(self.process, self.rule.settled(belief, number, canvas.steps))

    def _move(self, canvas: Canvas, logits: Tensor, z: Tensor, place: Place) -> Move:
        belief = self.rule.first(z) if place.belief is None else place.belief
        begin = place.block * self.layout.options.length

        def held(probs: Tensor, tile: Tile) -> Tensor:
            rows, part = tile
            first = begin + part.start
            places = torch.arange(first, max(first, min(canvas.length, begin + part.stop)), device=probs.device)
            return torch.cat([canvas.some(rows).allowed(probs[:, : len(places)], places), probs[:, len(places) :]], 1)

        noise = self._noise(canvas, place.block, place.number + 1)
        of_block = held if canvas.constraints else None
        posterior = Posterior(self.process, logits, belief.z, place.given, place.level, of_block)
        after, chance = decided(self.rule, posterior, belief, place.number, canvas.steps, noise)
        # A row that waits for others keeps what it had.
        return Move(after.z, after.best, torch.where(belief.done[:, None], torch.nan, chance), after.done, after)


def level_of(process: ForwardProcess, settled: Tensor) -> Tensor:
    """The level at which a share of the tokens survives, float64 in its shape; 1 where none does."""
    return torch.where(settled > 0, process.time_of_alpha(settled), 1.0)


@dataclass(frozen=True)
class Posterior:
    """log p(x_i | z) of a block, ``[B, n, V]`` float64, a piece at a time.

    logits: leave-one-out, ``[B, n, S]``. z: ``[B, n]``. given: ``[B, n]`` bool, where z is certain. level: ``[B, 1]``
    float64. held: probabilities ``[b, q, V]`` of a piece under the constraints."""

    process: ForwardProcess
    logits: Tensor
    z: Tensor
    given: Tensor
    level: Tensor
    held: Callable[[Tensor, Tile], Tensor] | None

    def at(self, tile: Tile) -> Tensor:
        """Of a piece. Raises ValueError where no token has a probability."""
        z, given, level = self.z[tile], self.given[tile], self.level.expand(self.z.shape)[tile]
        posterior = self.process.log_posterior(self.logits[tile], z, level)[..., : self.process.num_tokens]
        if self.held is not None:
            posterior = self.held(posterior.exp(), tile).log()
        posterior[given] = -torch.inf
        posterior[given, z[given]] = 0.0
        top = posterior.amax(-1)  # NaN where any is
        if bool(((top == -torch.inf) | top.isnan()).any()):
            raise ValueError(
                "cannot draw a state: the probabilities are NaN or all zero; does the denoiser give NaN logits?"
            )
        return posterior


def decided(
    rule: Rule, posterior: Posterior, belief: Belief, number: int, steps: int, noise: Noise
) -> tuple[Belief, Tensor]:
    """What a step makes of a block, and how probable each token of ``best`` is to the network, not to what the rule
    sharpened: ``[B, n]`` float64, NaN where there is none; of rows that were done it means nothing.

    Raises ValueError where no token has a probability."""
    z = belief.z

    @functools.cache
    def uniform() -> Tensor:  # a rule that draws no token takes none of these numbers
        return noise.uniform(z.shape[1], dtype=torch.float64)

    def read(tile: Tile) -> tuple[Tensor, ...]:
        log_p, stands = posterior.at(tile), z[tile]
        found = rule.read(log_p, stands, number, steps, lambda probs: draw_categorical(probs, uniform()[tile]))
        return found.best, found.drawn, found.sure, _chance(log_p, found.best), _chance(log_p, stands)

    best, drawn, sure, of_best, of_z = by_tiles(posterior.logits, read)
    reading = Reading(best, drawn, sure)
    after = rule.decided(belief, reading, number, steps, lambda: posterior.process.sample_prior(noise, z.shape[1]))
    return after, torch.where(after.best == best, of_best, of_z)


def _chance(log_p: Tensor, state: Tensor) -> Tensor:
    """The probability of each state ``[b, q]`` under ``log_p`` ``[b, q, V]``: ``[b, q]``, NaN where it is no token."""
    count = log_p.shape[-1]
    return torch.where(state < count, pick(log_p, state.clamp(max=count - 1)).exp(), torch.nan)
