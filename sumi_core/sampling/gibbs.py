"""Gibbs sampling of a noisy text: steps that repair what parallel draws got wrong, and change no distribution.

The text z at level t has the distribution p_t. Redrawing one position from

    p_t(z_i | z_{−i}) = α x_θ(z_i) + (1 − α) π(z_i),     x_θ(·) = p(x_i | z_{−i}), the leave-one-out posterior

leaves p_t as it is (docs/mathematics.md 7; the informed corrector of 2605.22765), if which position it is does not
depend on the text. So one position is redrawn in a network call, and it is chosen blindly: choosing those that the
network is least sure of is a different chain with a different distribution, and so is redrawing several at once from
one call (``tests/sampling/test_gibbs.py`` measures both).

Every parameterisation is read as leave-one-out. Posterior logits do not allow that where noise never leads to a state,
as under unigram noise without smoothing: such a token would be kept more often than it should, so this is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from sumi_core.corruption.categorical import draw_categorical
from sumi_core.corruption.clocks import ClockReading, Clocks
from sumi_core.kernels.row_loss import pick
from sumi_core.models.interface import DenoiserFunction, DenoiserInput
from sumi_core.sampling.ancestral import Ancestral, told
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.reverse import allowed_at

if TYPE_CHECKING:
    from torch import Tensor


class Corrector(Ancestral):
    """An ancestral sampler that can also redraw single positions at one level: ``correct``."""

    holds_languages: ClassVar[bool] = False  # a position that is redrawn by itself may leave the others without a text

    @dataclass
    class Options(Ancestral.Options):
        order: Annotated[
            Literal["random", "scan"],
            Field(
                description="which position a call redraws: any, each as likely, or one after the other from the left"
            ),
        ] = "random"

    options: Options

    @classmethod
    def incompatibility(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, str] | None:
        process = others["process"]
        if process is None:
            return None
        if process["name"] == "absorbing_uniform":
            return (
                "evaluation.sampler",
                f"sampler '{own['name']}' redraws any position, and a model of process 'absorbing_uniform' "
                "learns nothing of those that are certain; choose ancestral",
            )
        posterior = others["parameterisation"]["name"] == "posterior"
        if posterior and process["name"] == "unigram" and not process["smoothing"]:
            return (
                "evaluation.sampler",
                f"sampler '{own['name']}' needs leave-one-out predictions, which posterior ones do not tell where "
                "a token is never noise; set process.smoothing above 0, or choose ancestral",
            )
        return None

    def correct(self, denoiser: DenoiserFunction, canvas: Canvas, time: Tensor, number: int) -> Canvas:
        """The canvas with one position of each row redrawn given all others, at ``time`` ``[]`` float64: one network
        call. number: of the correction, counted over the run; it addresses the choice of the position.

        Positions that are given, and those whose clock stands at either end, are not redrawn. Where the noise has a
        mask the network reads one at the position that is redrawn, so that its state cannot leak into the prediction.
        A network that takes feedback is given none: an earlier prediction has seen the position's own token.
        """
        process, z, clocks = self.process, canvas.tokens, canvas.state
        assert isinstance(clocks, Clocks)
        now = clocks.at(time.to(z.device).expand(len(z)))
        level = now.level.expand(z.shape)
        place, possible = self._chosen(canvas, (level > 0) & (level < 1), number)
        occurs = process.mask_id is not None and float(process.stationary()[process.mask_id]) > 0
        read = z.scatter(1, place, process.mask_id) if occurs and process.mask_id is not None else z
        clean = self._predicted(denoiser, canvas, read, now, place)
        probs = process.marginal(clean, level.gather(1, place))
        uniform = canvas.noise("sample", canvas.age + 1).uniform(1, dtype=torch.float64)
        drawn = draw_categorical(probs, uniform)
        chance = pick(clean, drawn) / clean.sum(-1)  # a mask has none: it is not sure of anything
        kept = torch.where(possible, drawn, z.gather(1, place))
        sure = torch.where(possible, chance, canvas.confidence.gather(1, place))
        return dataclasses.replace(
            canvas.written(z.scatter(1, place, kept)),
            age=canvas.age + 1,
            nfe=canvas.nfe + 1,
            slots=canvas.slots + canvas.lengths,
            confidence=canvas.confidence.scatter(1, place, sure),
        )

    def _chosen(self, canvas: Canvas, moves: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """A position of each row, ``[B, 1]`` int64, and whether it may be redrawn at all, ``[B, 1]`` bool. moves:
        ``[B, L]`` bool, positions on their way."""
        place = torch.arange(canvas.length, device=canvas.device)
        open_ = moves & ~canvas.frozen & (place < canvas.lengths[:, None])
        count = open_.sum(-1, keepdim=True)
        if self.options.order == "scan":
            wanted = number % count.clamp(min=1)
        else:
            wanted = (canvas.noise("position", number).uniform(1, dtype=torch.float64) * count).long()
        at = (open_.cumsum(-1) <= wanted).sum(
            -1, keepdim=True
        )  # positions before the wanted one of those that are open
        return at.clamp(max=canvas.length - 1), count > 0

    def _predicted(
        self, denoiser: DenoiserFunction, canvas: Canvas, read: Tensor, now: ClockReading, place: Tensor
    ) -> Tensor:
        """x_θ at one position of each row, ``[B, 1, S]`` float64, under the constraints. The head computes no logits of
        other positions, unless a constraint looks at them."""
        process = self.process
        output = denoiser(DenoiserInput(read, told(canvas, now), valid=canvas.valid))
        level = now.level.expand(read.shape)
        if not canvas.constraints:
            row = torch.arange(len(read), device=read.device)[:, None]
            output = dataclasses.replace(output, hidden=output.hidden[row, place])
            read, level = read.gather(1, place), level.gather(1, place)
        logits = process.leave_one_out(output.logits(), read, level)
        if canvas.constraints:
            logits = allowed_at(process, canvas, logits, place).log()
        return process.denoiser(self.sharpened(logits.double()))
