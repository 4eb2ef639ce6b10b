"""The negative evidence lower bound of a corruption process: training loss and reported likelihood.

    −log p(x) ≤ ∫_ε^{1−ε} E_{z~q_t(·|x)}[integrand(x_θ(·|z), x, z, t)] dt     diffusion, estimated at one t per sequence
                + E_{z~q_ε(·|x)}[−log p_θ(x|z)]                              reconstruction, the clean end
                + KL(q_{1−ε}(·|x) ‖ p_{1−ε})                                  prior, the noisy end

per position, summed over positions (design: math.md 1 and 2). The process supplies every term. Where positions have
clocks of their own, t is the level of each and the integral runs along the clocks: ∫ E[integrand · dlevel/dt] dt
(design: math.md 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.batch import Batch
from sumi_core.models.function import DenoiserFunction
from sumi_core.objectives.objective import Likelihood, Loss, Objective, per_sequence
from sumi_core.typed import choice, number


@dataclass(frozen=True)
class Corrupted:
    """A batch in noise. x, z: ``[B, L]`` int64. level: t of every position, in [ε, 1 − ε]; speed: of its clock, so
    that (1 − 2ε) E[speed · f(level)] = ∫_ε^{1−ε} f dt; both float64, ``[B, 1]`` or ``[B, L]``. told: the level that
    the denoiser is given, ``[B]`` or ``[B, L]``."""

    x: Tensor
    z: Tensor
    level: Tensor
    speed: Tensor
    told: Tensor


class Nelbo(Objective):
    """Train with the tight bound's diffusion term at stratified noise levels, or with a bounded reweighting of it.

    weighting ``elbo``: (1 − 2ε) · integrand, an unbiased estimate of the diffusion term in nats per token.
    weighting ``snr``: integrand / (−dλ/dt), λ = log(α/(1−α)). It drops the density of λ from the bound (2512.10858;
    Sumi, 2606.19005), which leaves (1−α) π(z)/q_t(z|x) · [KL + ρ − log ρ − 1]: for uniform noise the weight is 1 where
    z ≠ x and 1/(1 + V e^λ) where z = x, for absorbing noise α times the masked cross-entropy. The weight never exceeds
    1, but the loss is no bound; ``nats`` and the metric ``elbo`` keep the true weight. The schedule's density of λ
    becomes the weighting: schedules then differ in what is minimised, not only in variance.
    """

    @dataclass
    class Options(Objective.Options):
        time_epsilon: float = number(1e-3, above=0.0, high=0.4)  # train on t in [ε, 1 − ε]
        weighting: str = choice("elbo", "elbo", "snr")

    process: ForwardProcess
    options: Options

    def __init__(self, options: Options, **context: Any) -> None:
        super().__init__(options, **context)
        self.options = options

    def loss(self, denoiser: DenoiserFunction, batch: Batch) -> Loss:
        epsilon = self.options.time_epsilon
        noisy = self.corrupt(batch, epsilon)
        density = self._density(denoiser, noisy)
        bound = (1 - 2 * epsilon) * density.mean()
        value = bound
        if self.options.weighting == "snr":
            per_log_snr = -1 / self.process.log_snr_rate(noisy.level)
            value = (density * per_log_snr.to(density.dtype)).mean()
        changed = (noisy.z != noisy.x).to(torch.float32).mean()
        return Loss(value, {"elbo": bound.detach(), "changed_tokens": changed})

    @torch.no_grad()
    def nats(self, denoiser: DenoiserFunction, batch: Batch, epsilon: float) -> Likelihood:
        x, process = batch.tokens, self.process
        noisy = self.corrupt(batch, epsilon)
        density = per_sequence(self._density(denoiser, noisy))

        clean_end = torch.full((len(x), 1), epsilon, dtype=torch.float64, device=x.device)
        z = process.corrupt(x, clean_end, batch.noise("reconstruction"))
        logits = process.predict(denoiser, z, clean_end, clean_end.squeeze(-1))
        reconstruction = process.reconstruction(logits, x, z, clean_end)
        prior = process.prior(x, 1 - clean_end)
        # α falls by this much per token and unit of drawn time, whatever the schedule and the clocks.
        fall = -(noisy.speed * process.dalpha(noisy.level)).expand(x.shape).sum(-1)
        return Likelihood(
            diffusion=(1 - 2 * epsilon) * density,
            reconstruction=per_sequence(reconstruction),
            prior=per_sequence(prior),
            level=noisy.level.mean(-1),
            alpha=process.alpha(noisy.level).mean(-1),
            nats_per_alpha=density / fall,
        )

    def corrupt(self, batch: Batch, epsilon: float) -> Corrupted:
        """Draw noise levels and noise: a stratified time for each sequence, by its clocks a level for each position."""
        x = batch.tokens
        clocks = self.process.clock.draw(batch.noise("clock"), x.shape[-1])
        reading = clocks.at(batch.times(0.0, 1.0))
        level, told = (epsilon + (1 - 2 * epsilon) * part for part in (reading.level, reading.told))
        z = self.process.corrupt(x, level, batch.noise("corrupt"))
        return Corrupted(x, z, level, reading.speed, told)

    def _density(self, denoiser: DenoiserFunction, noisy: Corrupted) -> Tensor:
        """The bound's integrand per unit of clock time at every position, ``[B, L]``."""
        logits = self.process.predict(denoiser, noisy.z, noisy.level, noisy.told)
        integrand = self.process.bound_integrand(logits, noisy.x, noisy.z, noisy.level)
        return noisy.speed.to(integrand.dtype) * integrand
