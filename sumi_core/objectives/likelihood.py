"""The likelihoods that a model has, whatever it was trained with: exact, or the tight bound of its process.

    −log p(x) ≤ ∫_ε^{1−ε} E_{z~q_t(·|x)}[integrand(x_θ(·|z), x, z, t)] dt     diffusion, estimated at one t per sequence
                + E_{z~q_ε(·|x)}[−log p_θ(x|z)]                              reconstruction, the clean end
                + KL(q_{1−ε}(·|x) ‖ p_{1−ε})                                  prior, the noisy end

per position, summed over positions (docs/mathematics.md 1 and 2). The process supplies every term. Where positions have
clocks of their own, t is the level of each and the integral runs along the clocks: ∫ E[integrand · dlevel/dt] dt
(docs/mathematics.md 5).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sumi_core.base.numerics import no_grad
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.batch import Batch
from sumi_core.kernels.row_loss import cross_entropy_loss
from sumi_core.layouts.layout import Layout, Whole
from sumi_core.models.interface import DenoiserFunction, DenoiserInput
from sumi_core.objectives.feedback import FeedbackSource
from sumi_core.objectives.noising import noise_of_bound

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Likelihood:
    """An estimate of −log p(x) of each sequence in nats, all fields ``[B]`` float64.

    −log p(x) = or ≤ E[diffusion + reconstruction + prior]. An exact likelihood has all of it in ``diffusion``.

    The last four say how the loss depends on the noise: at ``time`` in [0, 1], when the noise level is ``level`` (t, in
    [ε, 1 − ε]) and a share ``alpha`` of the tokens survives, a token costs ``nats_per_alpha`` nats per unit of α.
    Plotted against 1 − α its area is the bound's diffusion term per token, whatever the schedule. Where positions have
    levels of their own, level and alpha are their means, and nats_per_alpha is that of the positions whose clock runs
    (NaN when none does). An exact likelihood has time and level 0, alpha 1, nats_per_alpha 0.
    """

    diffusion: Tensor
    reconstruction: Tensor
    prior: Tensor
    time: Tensor
    level: Tensor
    alpha: Tensor
    nats_per_alpha: Tensor

    @property
    def total(self) -> Tensor:
        """Nats per sequence: the three terms together."""
        return self.diffusion + self.reconstruction + self.prior


class Reading(ABC):
    """One way to read a likelihood off a model. A model trained for several modes has several."""

    exact: bool  # the likelihood itself, or an upper bound on −log p

    @abstractmethod
    def __call__(self, denoiser: DenoiserFunction, batch: Batch, epsilon: float) -> Likelihood:
        """An unbiased estimate of −log p or of its upper bound, one noise level per row.

        epsilon: the bound integrates t over [ε, 1 − ε] and adds both ends. Average several steps of a batch (each draws
        new levels and noise) for a better estimate. No gradient.
        """


class ChainRule(Reading):
    """Σ_i −log p(x_i | x_{<i}) of a causal model, exact: it reads [eos] + x[:-1], its logits at i predict x_i."""

    exact = True

    def __init__(self, num_tokens: int, eos_id: int) -> None:
        self.num_tokens, self.eos_id = num_tokens, eos_id

    def token_nats(self, denoiser: DenoiserFunction, x: Tensor) -> Tensor:
        """−log p(x_i | x_{<i}), ``[B, L]``, with gradient."""
        inputs = torch.cat([torch.full_like(x[:, :1], self.eos_id), x[:, :-1]], dim=1)
        return denoiser(DenoiserInput(inputs)).apply(cross_entropy_loss(x, self.num_tokens))

    @no_grad
    def __call__(self, denoiser: DenoiserFunction, batch: Batch, epsilon: float) -> Likelihood:
        exact = per_sequence(self.token_nats(denoiser, batch.tokens))
        zeros = torch.zeros_like(exact)
        return Likelihood(
            diffusion=exact,
            reconstruction=zeros,
            prior=zeros,
            time=zeros,
            level=zeros,
            alpha=torch.ones_like(exact),
            nats_per_alpha=zeros,
        )


class Bound(Reading):
    """The tight bound of a corruption process, of texts that are shown as a layout says: of whole texts, or the sum of
    the bounds of their blocks, each given the clean text before it. All positions of a row have one noise level, so
    that the loss by level means the same under every layout. eos_id: what stands before a text. source: of the feedback
    that the denoiser is given, which may be made of the same path only: see ``objectives.feedback``."""

    exact = False

    def __init__(
        self,
        process: ForwardProcess,
        layout: Layout | None = None,
        eos_id: int = 0,
        source: FeedbackSource | None = None,
    ) -> None:
        self.process, self.layout, self.eos_id, self.source = process, layout or Whole(), eos_id, source

    @no_grad
    def __call__(self, denoiser: DenoiserFunction, batch: Batch, epsilon: float) -> Likelihood:
        x, process, source = batch.tokens, self.process, self.source

        def lay_out(denoiser: DenoiserFunction) -> DenoiserFunction:
            return self.layout.of(denoiser, x, self.eos_id)

        def fed(given: DenoiserInput, level: Tensor, stream: str) -> DenoiserInput:
            if source is None:
                return given
            return source.feed(denoiser, lay_out, process, given, level, batch.noise(stream))

        shown = lay_out(denoiser)
        noisy = noise_of_bound(process, batch, epsilon)
        output = shown(fed(noisy.given, noisy.level, "feedback_path"))
        integrand = output.apply(process.bound_loss(x, noisy.z, noisy.level))
        density = per_sequence(noisy.weight.to(integrand.dtype) * integrand)

        clean_end = torch.full((len(x), 1), epsilon, dtype=torch.float64, device=x.device)
        z = process.corrupt(x, clean_end, batch.noise("reconstruction"))
        given = fed(DenoiserInput(z, clean_end.squeeze(-1)), clean_end, "feedback_reconstruction")
        logits = process.predict(shown, given, clean_end)
        reconstruction = process.reconstruction(logits, x, z, clean_end)
        prior = process.prior(x, 1 - clean_end)
        # α falls by this much per token and unit of drawn time, whatever the schedule and the clocks.
        fall = -(noisy.weight * process.dalpha(noisy.level)).expand(x.shape).sum(-1)
        return Likelihood(
            diffusion=(1 - 2 * epsilon) * density,
            reconstruction=per_sequence(reconstruction),
            prior=per_sequence(prior),
            time=batch.times(0.0, 1.0),
            level=noisy.level.mean(-1),
            alpha=process.alpha(noisy.level).mean(-1),
            nats_per_alpha=density / fall,
        )


def per_sequence(nats: Tensor) -> Tensor:
    """Sum over positions in float64: ``[B, L]`` → ``[B]``."""
    return nats.to(torch.float64).sum(-1)
