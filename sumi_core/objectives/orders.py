"""The likelihood of a diffusion model that writes a text one position at a time, in an order of its own.

    p(x) = Π_k p_θ(x_{σ_k} | canvas_k),     canvas_k: the tokens at σ_1 … σ_{k−1}, and what is not written yet

σ_k is a function of canvas_k, or drawn beforehand, so whoever decodes finds the same order, and p sums to 1 over all
texts: a chain rule (docs/mathematics.md 9). It is the likelihood of this way of writing, not the one that the bound of
the process bounds; but under masks alone, for a network that is given no level, that bound is the mean over all orders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from sumi_core.base.numerics import no_grad
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.batch import Batch
from sumi_core.kernels.chunks import chunks_of
from sumi_core.kernels.row_loss import pick
from sumi_core.models.interface import DenoiserFunction, DenoiserInput
from sumi_core.objectives.likelihood import Given, Likelihood, Reading

if TYPE_CHECKING:
    from torch import Tensor

Order = Literal["left_to_right", "confidence_ordered", "random_order"]


class InOrder(Reading):
    """Left to right, at each step at the position where the most probable token is most probable, or in an order drawn
    for each text, uniform over all L!; L calls a text.

    What is not written yet is pure noise. Under noise that ends in masks alone the canvas is certain, and the figure
    exact. Else one canvas u ~ π is drawn for each text and keeps standing until it is written over:
    E_u[−log p(x|u)] ≥ −log E_u[p(x|u)] by Jensen's inequality, so each draw estimates an upper bound, which is also the
    length of a code whose decoder is given u. So does each random order: it is the length of a code whose decoder is
    given the order.

    The denoiser is given the level at which as large a share of the tokens is hit as is not written yet, within [ε,
    1 − ε]; with ``told`` (it has learnt a level for each token) ε at what is written and 1 − ε at what is not. No
    feedback."""

    def __init__(self, process: ForwardProcess, order: Order, *, told: bool = False) -> None:
        self.process, self.order, self.told = process, order, told
        self.exact = order != "random_order" and bool(process.stationary().max() == 1)

    @no_grad
    def __call__(self, denoiser: DenoiserFunction, batch: Batch, epsilon: float) -> Likelihood:
        nats = self.by_position(denoiser, batch, epsilon).sum(-1)
        zeros = torch.zeros_like(nats)
        return Likelihood(
            diffusion=nats,
            reconstruction=zeros,
            prior=zeros,
            time=zeros,
            level=zeros,
            alpha=torch.ones_like(nats),
            nats_per_alpha=zeros,
        )

    @no_grad
    def by_position(
        self, denoiser: DenoiserFunction, batch: Batch, epsilon: float, given: Given | None = None
    ) -> Tensor:
        """−log p_θ(x_i | what was written before it)."""
        if given is not None:
            raise ValueError("the chain rule in an order reads whole texts; give it no context")
        x, process = batch.tokens, self.process
        length = x.shape[1]
        drawn = batch.noise("writing_order").uniform(length).argsort(-1)
        z = process.sample_prior(batch.noise("canvas"), length).to(x.device)
        written, nats = (
            torch.zeros_like(x, dtype=torch.bool),
            torch.zeros(x.shape, dtype=torch.float64, device=x.device),
        )
        for number in range(length):
            level = self._level(written, 1 - number / length, epsilon)
            logits = process.predict(denoiser, DenoiserInput(z, level if self.told else level[:, 0]), level)
            place = drawn[:, number, None] if self.order == "random_order" else self._place(logits, written, number)
            own = logits.gather(1, place[..., None].expand(-1, 1, logits.shape[-1]))
            token = x.gather(1, place)
            nats.scatter_(1, place, -pick(process.log_denoiser(own.double()), token))
            z, written = z.scatter(1, place, token), written.scatter(1, place, True)
        return nats

    def _level(self, written: Tensor, share: float, epsilon: float) -> Tensor:
        """``[B, L]`` if told, else ``[B, 1]``, float64."""
        if self.told:
            return torch.where(written, epsilon, 1 - epsilon).double()
        level = self.process.time_of_alpha(torch.tensor([[1 - share]], dtype=torch.float64, device=written.device))
        return level.clamp(epsilon, 1 - epsilon).expand(len(written), 1)

    def _place(self, logits: Tensor, written: Tensor, number: int) -> Tensor:
        """The position that is written next, ``[B, 1]``."""
        if self.order == "left_to_right":
            return torch.full_like(written[:, :1], number, dtype=torch.int64)
        rows = logits.reshape(-1, logits.shape[-1])
        parts = [self.process.log_denoiser(rows[own]).max(-1).values for own in chunks_of(rows, None)]
        confidence = torch.cat(parts).reshape(written.shape)
        return confidence.masked_fill(written, -torch.inf).argmax(-1, keepdim=True)
