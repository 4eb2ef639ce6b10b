"""Ancestral sampling: walk the reverse process from pure noise to text (docs/mathematics.md 7; D3PM, 2107.03006)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.corruption.categorical import draw_categorical
from sumi_core.corruption.clocks import Clocks
from sumi_core.corruption.process import ForwardProcess
from sumi_core.kernels.row_loss import pick
from sumi_core.models.interface import DenoiserFunction, DenoiserInput, takes_feedback
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.memory import fed
from sumi_core.sampling.sampler import Sampler

if TYPE_CHECKING:
    from torch import Tensor

_LOG_SNR_END = 9.0  # α from 1.2e-4 to 1 − 1.2e-4, Sumi's range


@dataclass(frozen=True)
class _Walk:
    """clocks: of the rows. predicted: leave-one-out logits ``[B, L, S]`` of the last step, for a model that is given
    them at the next one; None before the first."""

    clocks: Clocks
    predicted: Tensor | None = None


class Ancestral(Sampler):
    """``steps`` network calls at falling times t; the last one draws clean tokens from the posterior.

    spacing ``time``: times 1, 1 − 1/steps, …, 1/steps. spacing ``log_snr``: times evenly spaced in the log-SNR of a
    position whose clock shows t itself (Sumi, 2606.19005), dense at both ends. The first is pure noise, t = 1, in
    either. Positions step from and to the levels that their clocks show; one whose clock stands keeps its state.

    Constraints hold for the predicted clean tokens. Under noise that consists of tokens a text on its way may hold one
    that is forbidden, as noise; the step that takes a position to level 0 writes allowed tokens only.

    Given tokens stand as they are. Under noise that consists of tokens the denoiser reads them as tokens at the level
    of the others, so what is written beside them is not drawn from its conditional distribution (docs/mathematics.md
    7).

    A model with feedback is given, from the second step on, what it predicted at the step before, each row its own,
    wherever a token is still to be written. That prediction had feedback in turn: the memory goes back to the first
    step, while the bound with feedback of a path is that of a memory of one step.
    """

    @dataclass
    class Options(Part.Options):
        spacing: Annotated[
            Literal["time", "log_snr"],
            Field(description="where the steps lie: evenly in time, or evenly in the log-SNR"),
        ] = "time"

    process: ForwardProcess
    options: Options

    def levels(self, steps: int) -> Tensor:
        """The times of the network calls and, last, 0: ``[steps + 1]`` float64, falling from 1."""
        if self.options.spacing == "log_snr":
            log_snr = torch.linspace(-_LOG_SNR_END, _LOG_SNR_END, steps, dtype=torch.float64)
            levels = self.process.time_of_alpha(torch.sigmoid(log_snr))
            levels[0] = 1.0
            return torch.cat([levels, levels.new_zeros(1)])
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64)

    def start(self, canvas: Canvas) -> Canvas:
        clocks = self.process.clock.draw(canvas.noise("sample_clock", 0), canvas.length)
        noise = self.process.sample_prior(canvas.noise("sample", 0), canvas.length)
        return canvas.written(noise, state=_Walk(clocks))

    def step(self, denoiser: DenoiserFunction, canvas: Canvas) -> Canvas:
        process, z, walk = self.process, canvas.tokens, canvas.state
        assert isinstance(walk, _Walk)
        clocks = walk.clocks
        times = self.levels(canvas.steps).to(z.device)
        now, then = (clocks.at(times[canvas.age + i].expand(len(z))) for i in (0, 1))
        stands = now.level == then.level
        aim = torch.where(stands, 0.0, then.level)  # where nothing is to happen, any step that is defined will do
        level = now.conditioning_level
        if level.ndim > 1:
            level = torch.where(canvas.frozen, 0.0, level)  # what is given is clean
        given = DenoiserInput(z, level, valid=canvas.valid)
        if walk.predicted is not None:
            given = fed(denoiser, process, given, now.level, walk.predicted, where=~canvas.frozen)
        logits = process.predict(denoiser, given, now.level)
        place = torch.arange(canvas.length, device=z.device)
        if canvas.constraints:
            clean = canvas.allowed(process.denoiser(logits.double()), place)
            probs = only_allowed(clean, process.reverse(clean.log(), z, now.level, aim), where=then.level == 0)
        else:
            probs = process.reverse(logits, z, now.level, aim)
        drawn = draw_categorical(
            probs, canvas.noise("sample", canvas.age + 1).uniform(canvas.length, dtype=torch.float64)
        )
        drawn = torch.where(stands, z, drawn)
        chance = pick(probs, drawn) / probs.sum(-1)
        return dataclasses.replace(
            canvas.written(drawn),
            age=canvas.age + 1,
            nfe=canvas.nfe + 1,
            slots=canvas.slots + canvas.lengths,
            confidence=torch.where(canvas.frozen | stands, canvas.confidence, chance),
            state=_Walk(clocks, logits if takes_feedback(denoiser) else None),
        )

    def finished(self, canvas: Canvas) -> Tensor:
        return torch.full_like(canvas.done, canvas.age >= canvas.steps)


def only_allowed(clean: Tensor, probs: Tensor, where: Tensor) -> Tensor:
    """Reverse probabilities ``[B, L, S]`` that lead, ``where`` a position becomes clean, only to tokens that ``clean``
    ``[B, L, S]`` gives any probability: rounding leaves some to others. where: broadcastable to ``[B, L]``.

    A state that the process cannot leave any more, a token behind absorbing noise, stays as it was written."""
    held = torch.where(clean > 0, probs, 0.0)
    return torch.where((where & (held.sum(-1) > 0)).unsqueeze(-1), held, probs)
