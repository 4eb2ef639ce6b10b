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
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from sumi_core.base.numerics import no_grad
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.batch import Batch
from sumi_core.kernels.row_loss import cross_entropy_loss
from sumi_core.layouts.layout import Layout, Whole
from sumi_core.models.interface import DenoiserFunction, DenoiserInput, DenoiserOutput
from sumi_core.objectives.feedback import FeedbackSource
from sumi_core.objectives.noising import NoisyBatch, noise_of_bound

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


@dataclass(frozen=True)
class Given:
    """What is read of each text, and what is given: the likelihood is of the tokens from ``context`` to ``lengths``.

    context, lengths: ``[B]`` int64, 0 ≤ context < length. The tokens before are clean; those after are padding. told:
    whether the denoiser has learnt to read a level for each token, and is given 0 where one is clean. Any other is
    given one level for all of them, at which it takes what is given for tokens that noise could have written."""

    context: Tensor
    lengths: Tensor
    told: bool = False

    def read(self, x: Tensor) -> Tensor:
        """The positions that the likelihood is of, ``[B, L]`` bool."""
        place = torch.arange(x.shape[1], device=x.device)
        return (place >= self.context[:, None]) & (place < self.lengths[:, None])

    def stands(self, x: Tensor) -> Tensor:
        """The positions that are given, ``[B, L]`` bool."""
        return torch.arange(x.shape[1], device=x.device) < self.context[:, None]

    def valid(self, x: Tensor) -> Tensor | None:
        """The positions that belong to their text, ``[B, L]`` bool; None where all do."""
        inside = torch.arange(x.shape[1], device=x.device) < self.lengths[:, None]
        return None if bool(inside.all()) else inside


class Reading(ABC):
    """One way to read a likelihood off a model. A model trained for several modes has several."""

    exact: bool  # the likelihood itself, or an upper bound on −log p

    @abstractmethod
    def __call__(self, denoiser: DenoiserFunction, batch: Batch, epsilon: float) -> Likelihood:
        """An unbiased estimate of −log p or of its upper bound, one noise level per row.

        epsilon: the bound integrates t over [ε, 1 − ε] and adds both ends. Average several steps of a batch (each draws
        new levels and noise) for a better estimate. No gradient.
        """

    @abstractmethod
    def by_position(
        self, denoiser: DenoiserFunction, batch: Batch, epsilon: float, given: Given | None = None
    ) -> Tensor:
        """What each position adds to the total of the same estimate, ``[B, L]`` float64 nats. No gradient.

        given: read each text after its context, given that; 0 at all other positions. Their sum is then, or bounds,
        −log p of what is read given the context. Raises ValueError for a reading that takes none."""

    def greedy(self, denoiser: DenoiserFunction, batch: Batch, given: Given) -> Tensor | None:
        """Whether what is read is what the model finds most probable, token by token, ``[B]`` bool; None: there is no
        such order."""
        return None


class ChainRule(Reading):
    """Σ_i −log p(x_i | x_{<i}) of a causal model, exact: it reads [eos] + x[:-1], its logits at i predict x_i."""

    exact = True

    def __init__(self, num_tokens: int, eos_id: int) -> None:
        self.num_tokens, self.eos_id = num_tokens, eos_id

    def token_nats(self, denoiser: DenoiserFunction, x: Tensor) -> Tensor:
        """−log p(x_i | x_{<i}), ``[B, L]``, with gradient."""
        return self._shown(denoiser, x).apply(cross_entropy_loss(x, self.num_tokens))

    def _shown(self, denoiser: DenoiserFunction, x: Tensor) -> DenoiserOutput:
        inputs = torch.cat([torch.full_like(x[:, :1], self.eos_id), x[:, :-1]], dim=1)
        return denoiser(DenoiserInput(inputs))

    @no_grad
    def by_position(
        self, denoiser: DenoiserFunction, batch: Batch, epsilon: float, given: Given | None = None
    ) -> Tensor:
        nats = self.token_nats(denoiser, batch.tokens).to(torch.float64)
        return nats if given is None else torch.where(given.read(batch.tokens), nats, 0.0)

    @no_grad
    def greedy(self, denoiser: DenoiserFunction, batch: Batch, given: Given) -> Tensor | None:
        x, read = batch.tokens, given.read(batch.tokens)
        output = self._shown(denoiser, x)
        places = replace(output, hidden=output.hidden[read][None])  # no logits of any other
        same = places.logits()[0, :, : self.num_tokens].argmax(-1) == x[read]
        return torch.ones_like(read).masked_scatter(read, same).all(-1)

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
    def by_position(
        self, denoiser: DenoiserFunction, batch: Batch, epsilon: float, given: Given | None = None
    ) -> Tensor:
        """Given a context c, what is read y is noised as a text of its own and c stays clean:

            −log p_θ(y|c) ≤ Σ_i ∫ E_{z~q_t(·|y)}[integrand(x_θ(·|c, z), y_i, z_i, t)] dt + both end terms

        with p_θ(·|c) the reverse process beside a context that stands, which is what a sampler with a prompt draws
        from (docs/mathematics.md 9). Whatever the denoiser makes of c, this is a bound."""
        terms = self._terms(denoiser, batch, epsilon, given)
        density, reconstruction, prior = (part.to(torch.float64) for part in terms[1:])
        nats = (1 - 2 * epsilon) * density + reconstruction + prior
        return nats if given is None else torch.where(given.read(batch.tokens), nats, 0.0)

    @no_grad
    def __call__(self, denoiser: DenoiserFunction, batch: Batch, epsilon: float) -> Likelihood:
        noisy, *terms = self._terms(denoiser, batch, epsilon)
        density, reconstruction, prior = (per_sequence(part) for part in terms)
        process = self.process
        # α falls by this much per token and unit of drawn time, whatever the schedule and the clocks.
        fall = -(noisy.weight * process.dalpha(noisy.level)).expand(batch.tokens.shape).sum(-1)
        return Likelihood(
            diffusion=(1 - 2 * epsilon) * density,
            reconstruction=reconstruction,
            prior=prior,
            time=batch.times(0.0, 1.0),
            level=noisy.level.mean(-1),
            alpha=process.alpha(noisy.level).mean(-1),
            nats_per_alpha=density / fall,
        )

    def _terms(
        self, denoiser: DenoiserFunction, batch: Batch, epsilon: float, given: Given | None = None
    ) -> tuple[NoisyBatch, Tensor, Tensor, Tensor]:
        """The noise, and of each position the integrand per unit of time, the reconstruction and the prior term, all
        ``[B, L]``."""
        x, process, source = batch.tokens, self.process, self.source
        beside = None if given is None else _Beside(given, batch)
        chosen = None if beside is None else ~beside.stands

        def lay_out(denoiser: DenoiserFunction) -> DenoiserFunction:
            return self.layout.of(denoiser, x, self.eos_id)

        def fed(shown: DenoiserInput, level: Tensor, stream: str) -> DenoiserInput:
            if source is None:
                return shown
            return source.feed(denoiser, lay_out, process, shown, level, batch.noise(stream), chosen)

        def noised(noise: NoisyBatch) -> NoisyBatch:
            return noise if beside is None else beside.placed(noise)

        def show(noise: NoisyBatch) -> DenoiserInput:
            return noise.given if beside is None else replace(noise.given, valid=beside.valid)

        own = batch if beside is None else beside.own
        shown = lay_out(denoiser)
        noisy = noised(noise_of_bound(process, own, epsilon))
        output = shown(fed(show(noisy), noisy.level, "feedback_path"))
        integrand = output.apply(process.bound_loss(x, noisy.z, noisy.level))
        density = noisy.weight.to(integrand.dtype) * integrand

        clean_end = torch.full((len(x), 1), epsilon, dtype=torch.float64, device=x.device)
        z = process.corrupt(own.tokens, clean_end, own.noise("reconstruction"))
        ones = torch.ones_like(clean_end)
        end = noised(NoisyBatch(own.tokens, z, clean_end, ones, clean_end.squeeze(-1), ones.bool()))
        logits = process.predict(shown, fed(show(end), clean_end, "feedback_reconstruction"), clean_end)
        return noisy, density, process.reconstruction(logits, x, end.z, clean_end), process.prior(x, 1 - clean_end)


class _Beside:
    """Texts that are noised given a context which stands."""

    def __init__(self, given: Given, batch: Batch) -> None:
        x = batch.tokens
        self.x, self.told, self.valid = x, given.told, given.valid(x)
        self.stands, self.read = given.stands(x), given.read(x)
        counts = given.lengths - given.context
        width = int(counts.max())
        place = torch.arange(x.shape[1], device=x.device) - given.context[:, None]
        self._from = place.clamp(0, width - 1)
        at = (torch.arange(width, device=x.device) + given.context[:, None]).clamp(max=x.shape[1] - 1)
        #: What is read alone, ``[B, n]``; what follows the end of a row is padding.
        self.own = replace(batch, tokens=x.gather(1, at), lengths=counts.tolist())

    def placed(self, noise: NoisyBatch) -> NoisyBatch:
        """The noise of what is read, ``[B, n]``, where it stands in the texts, ``[B, L]``."""
        level = noise.conditioning_level
        if level.ndim > 1 or self.told:
            level = torch.where(self.stands, 0.0, self._placed(level[:, None] if level.ndim == 1 else level))
        return NoisyBatch(
            x=self.x,
            z=torch.where(self.read, self._placed(noise.z), self.x),
            level=self._placed(noise.level),
            weight=self._placed(noise.weight),
            conditioning_level=level,
            clocked=noise.clocked,
        )

    def _placed(self, part: Tensor) -> Tensor:
        return part if part.shape[1] == 1 < self.own.tokens.shape[1] else part.gather(1, self._from)


def per_sequence(nats: Tensor) -> Tensor:
    """Sum over positions in float64: ``[B, L]`` → ``[B]``."""
    return nats.to(torch.float64).sum(-1)
