"""First-hitting sampling of absorbing noise: the reverse process itself, without steps (Zheng et al., 2409.02908).

Going back from t = 1, each of n masks is filled at a time of its own, independently of the others and of the text: from
a share h = 1 − α of hit tokens, the first of them is filled when that share has fallen to h · u^{1/n}, u uniform. So it
suffices to draw those times and to fill one mask at each. With the exact denoiser that is a draw from p and no
approximation, since every token is drawn given all that stand before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from sumi_core.corruption.categorical import draw_categorical
from sumi_core.kernels.row_loss import pick
from sumi_core.models.interface import DenoiserFunction, DenoiserInput, DenoiserOutput
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.reverse import allowed_at
from sumi_core.sampling.sampler import Sampler
from sumi_core.sampling.truncation import Sharpening, sharpened

if TYPE_CHECKING:
    from torch import Tensor


class FirstHitting(Sampler):
    """Fills one mask in each network call, in random order; ``steps`` is ignored: a token takes a call.

    A sampler of p, exactly, at temperature 1 and without truncation; else none. The network is given the time at which
    the mask is filled, if it is given one at all. The head computes logits of that position alone.
    """

    uses_steps: ClassVar[bool] = False

    @dataclass
    class Options(Sharpening):
        pass

    options: Options

    @classmethod
    def incompatibility(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, str] | None:
        process, clock = others["process"], others["clock"]
        if process is None or (process["name"] == "absorbing" and clock["name"] == "shared"):
            return None
        other = f"process '{process['name']}'" if process["name"] != "absorbing" else f"clock '{clock['name']}'"
        return (
            "evaluation.sampler",
            f"sampler '{own['name']}' needs absorbing noise on one clock, which {other} is not; choose ancestral, or "
            "write process: absorbing and clock: shared",
        )

    def start(self, canvas: Canvas) -> Canvas:
        assert self.process.mask_id is not None
        hit = torch.ones(len(canvas.tokens), 1, dtype=torch.float64, device=canvas.device)
        return canvas.written(torch.full_like(canvas.tokens, self.process.mask_id), state=hit)

    def step(self, denoiser: DenoiserFunction, canvas: Canvas) -> Canvas:
        process, masked = self.process, self._masked(canvas)
        count = masked.sum(-1, keepdim=True)
        draws = canvas.noise("sample", canvas.age).uniform(1, 3, dtype=torch.float64)[:, 0]
        assert isinstance(canvas.state, torch.Tensor)
        hit = canvas.state * draws[:, :1] ** (1 / count.clamp(min=1))
        wanted = (draws[:, 1:2] * count).long()  # which of the masks, counted from the left
        place = (masked.cumsum(-1) <= wanted).sum(-1, keepdim=True).clamp(max=canvas.length - 1)
        time = process.time_of_alpha(1 - hit)
        output = denoiser(DenoiserInput(canvas.tokens, time[:, 0], valid=canvas.valid))
        probs = self._probabilities(canvas, output, place)
        drawn = draw_categorical(probs, draws[:, 2:])
        writes = count > 0
        token = torch.where(writes, drawn, canvas.tokens.gather(1, place))
        chance = torch.where(writes, pick(probs, drawn) / probs.sum(-1), canvas.confidence.gather(1, place))
        return dataclasses.replace(
            canvas.written(canvas.tokens.scatter(1, place, token)),
            age=canvas.age + 1,
            nfe=canvas.nfe + writes[:, 0],
            slots=canvas.slots + writes[:, 0] * canvas.lengths,
            confidence=canvas.confidence.scatter(1, place, chance),
            state=hit,
        )

    def finished(self, canvas: Canvas) -> Tensor:
        return ~self._masked(canvas).any(-1)

    def _masked(self, canvas: Canvas) -> Tensor:
        """Positions of each row that are still to be filled, ``[B, L]`` bool."""
        place = torch.arange(canvas.length, device=canvas.device)
        return (canvas.tokens == self.process.mask_id) & (place < canvas.lengths[:, None])

    def _probabilities(self, canvas: Canvas, output: DenoiserOutput, place: Tensor) -> Tensor:
        """Of the token at one masked position of each row, ``[B, 1, V]`` float64. At a mask, posterior and
        leave-one-out logits are the same."""
        if canvas.constraints:
            logits = allowed_at(self.process, canvas, output.logits(), place).log()
        else:
            row = torch.arange(len(place), device=canvas.device)[:, None]
            logits = dataclasses.replace(output, hidden=output.hidden[row, place]).logits()
        return sharpened(logits[..., : self.num_tokens], self.options)
