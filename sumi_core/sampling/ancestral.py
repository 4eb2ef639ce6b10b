"""Ancestral sampling: walk the reverse process from pure noise to text (docs/mathematics.md 7; D3PM, 2107.03006)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from sumi_core.base.options import later, part
from sumi_core.corruption import SCHEDULES
from sumi_core.corruption.categorical import draw_categorical
from sumi_core.corruption.clocks import ClockReading, Clocks
from sumi_core.corruption.process import ForwardProcess
from sumi_core.models.interface import DenoiserFunction, DenoiserInput, takes_feedback
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.memory import fed
from sumi_core.sampling.reverse import Predicted, ReverseStep
from sumi_core.sampling.sampler import Sampler
from sumi_core.sampling.truncation import LANGUAGE_CUT, Sharpening, changes, cuts, sharpened

if TYPE_CHECKING:
    from torch import Tensor

_LOG_SNR_END = 9.0  # α from 1.2e-4 to 1 − 1.2e-4, Sumi's range


class Ancestral(Sampler):
    """``steps`` network calls at falling times t; the last one draws clean tokens from the posterior.

    A sampler of p: with the exact denoiser the distribution of its texts comes to p as the steps get finer. With
    another temperature, a truncation or a greedy tail it is none.

    spacing ``time``: times 1, 1 − 1/steps, …, 1/steps. spacing ``log_snr``: times evenly spaced in the log-SNR of a
    position whose clock shows t itself (Sumi, 2606.19005), dense at both ends. grid: the levels of α that this schedule
    has at even times, whatever the model's own is; ``linear`` fills in as many tokens in each step, ``cosine`` few of a
    noisy text and many of a nearly finished one (MaskGIT, 2202.04200), ``fitted`` as a model's bound wants them
    (``sumi fit-schedule``). The first time is pure noise, t = 1, in all of them. Positions step from and to the levels
    that their clocks show; one whose clock stands keeps its state.

    Constraints hold for the predicted clean tokens. Under noise that consists of tokens a text on its way may hold one
    that is forbidden, as noise; the step that takes a position to level 0 writes allowed tokens only. A language is
    exact in one step and a heuristic in several (``sumi_core.sampling.languages``); it is drawn from the sharpened
    predictions, whatever the greedy tail.

    Given tokens stand as they are. Under noise that consists of tokens a denoiser that is given one level reads them as
    tokens at the level of the others, so what is written beside them is not drawn from its conditional distribution
    (docs/mathematics.md 7). One that has learnt to read a level for each token is given 0 there where the canvas is
    ``told``: then it is.

    A model with feedback is given, from the second step on, what it predicted at the step before, each row its own,
    wherever a token is still to be written. That prediction had feedback in turn: the memory goes back to the first
    step, while the bound with feedback of a path is that of a memory of one step.
    """

    @dataclass
    class Options(Sharpening):
        spacing: Annotated[
            Literal["time", "log_snr"],
            Field(description="where the steps lie: evenly in time, or evenly in the log-SNR"),
        ] = "time"
        grid: Annotated[
            Any, Field(description="where the steps lie: at the levels of this schedule; null: as spacing says")
        ] = part(SCHEDULES, None, optional=True, later=True)
        greedy_tail: Annotated[
            int,
            Field(ge=0, le=2**16, description="last steps that take the most probable states instead of drawing"),
        ] = later(0)

        def check(self) -> None:
            """Raises ValueError for steps that are to lie at two places."""
            if self.grid is not None and self.spacing != "time":
                raise ValueError("grid says where the steps lie; leave spacing out, or the grid")

    holds_languages: ClassVar[bool] = True

    process: ForwardProcess
    options: Options

    def check(self, canvas: Canvas) -> None:
        super().check(canvas)
        if canvas.joint is not None and (self.options.temperature == 0 or cuts(self.options)):
            raise ValueError(LANGUAGE_CUT)

    def levels(self, steps: int) -> Tensor:
        """The times of the network calls and, last, 0: ``[steps + 1]`` float64, falling from 1."""
        if self.options.grid is not None:
            even = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
            levels = self.process.time_of_alpha(SCHEDULES.from_config(self.options.grid).alpha(even))
            levels[0], levels[-1] = 1.0, 0.0
            return levels
        if self.options.spacing == "log_snr":
            log_snr = torch.linspace(-_LOG_SNR_END, _LOG_SNR_END, steps, dtype=torch.float64)
            levels = self.process.time_of_alpha(torch.sigmoid(log_snr))
            levels[0] = 1.0
            return torch.cat([levels, levels.new_zeros(1)])
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64)

    def start(self, canvas: Canvas) -> Canvas:
        clocks = self.process.clock.draw(canvas.noise("sample_clock", 0), canvas.length)
        noise = self.process.sample_prior(canvas.noise("sample", 0), canvas.length)
        return canvas.written(noise, state=clocks, predicted=None)

    def step(self, denoiser: DenoiserFunction, canvas: Canvas) -> Canvas:
        return self._denoised(denoiser, canvas, self.levels(canvas.steps), canvas.age)

    def _denoised(self, denoiser: DenoiserFunction, canvas: Canvas, times: Tensor, number: int) -> Canvas:
        """The canvas after one network call, which takes it from the time of this number to the next. times: falling to
        0, ``[steps + 1]`` float64."""
        process, z, clocks = self.process, canvas.tokens, canvas.state
        assert isinstance(clocks, Clocks)
        now, then = (clocks.at(times[number + i].to(z.device).expand(len(z))) for i in (0, 1))
        stands = now.level == then.level
        aim = torch.where(stands, 0.0, then.level)  # where nothing is to happen, any step that is defined will do
        given = DenoiserInput(z, told(canvas, now), valid=canvas.valid)
        if canvas.predicted is not None:
            given = fed(denoiser, process, given, now.level, canvas.predicted, where=~canvas.frozen)
        logits = process.predict(denoiser, given, now.level)
        predicted = Predicted(process, canvas, logits, range(canvas.length), self.sharpened)
        step = ReverseStep(predicted, z, canvas.frozen, now.level, aim, self._drawn(number, len(times) - 1))
        drawn, chance = step.draw(canvas.noise("sample", canvas.age + 1))
        drawn = torch.where(stands, z, drawn)
        chance = self._confidence(canvas, logits, z, drawn, chance, now.level, then.level)
        kept = canvas.frozen | stands | chance.isnan()
        return dataclasses.replace(
            canvas.written(drawn),
            age=canvas.age + 1,
            nfe=canvas.nfe + 1,
            slots=canvas.slots + canvas.lengths,
            confidence=torch.where(kept, canvas.confidence, chance),
            predicted=logits if takes_feedback(denoiser) else None,
        )

    def _confidence(
        self, canvas: Canvas, logits: Tensor, z: Tensor, drawn: Tensor, chance: Tensor, now: Tensor, then: Tensor
    ) -> Tensor:
        """How sure the network is of each token that a step drew, ``[B, L]`` float64: that it is the clean one, which
        on the way to a level above 0 is not the chance that it was drawn with. NaN where the token could only stay,
        which a language leaves open."""
        sure = torch.where(then == 0, chance, self.process.belief(logits, z, now, drawn))
        return sure if canvas.joint is not None else torch.where((drawn == z) & (chance == 1), torch.nan, sure)

    def sharpened(self, logits: Tensor) -> Tensor:
        """Leave-one-out logits ``[..., S]`` as the temperature and the truncation of the options change them."""
        if not changes(self.options):
            return logits
        if self.options.temperature > 0 and not cuts(
            self.options
        ):  # in logarithms: nothing possible becomes impossible
            return self.process.token_logits(logits.double()) / self.options.temperature
        probs = sharpened(logits[..., : self.num_tokens], self.options)
        return torch.nn.functional.pad(probs.log(), (0, self.num_states - self.num_tokens), value=-torch.inf)

    def _drawn(self, number: int, steps: int) -> Callable[[Tensor, Tensor], Tensor]:
        """How a step draws states from probabilities ``[…, S]``: the most probable ones in the last steps, if they are
        greedy."""

        def drawn(probs: Tensor, uniform: Tensor) -> Tensor:
            states = draw_categorical(probs, uniform)  # which refuses NaN in any case
            return probs.argmax(-1) if number >= steps - self.options.greedy_tail else states

        return drawn

    def finished(self, canvas: Canvas) -> Tensor:
        return torch.full_like(canvas.done, canvas.age >= canvas.steps)


def told(canvas: Canvas, now: ClockReading) -> Tensor:
    """The level that a network is given: 0 where a token is given, if it is given one for every position."""
    level = now.conditioning_level
    if canvas.told and level.ndim == 1:
        level = level.unsqueeze(-1).expand(canvas.tokens.shape)
    return torch.where(canvas.frozen, 0.0, level) if level.ndim > 1 else level
