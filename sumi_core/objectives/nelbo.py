"""The negative evidence lower bound of a corruption process: training loss and reported likelihood.

    −log p(x) ≤ ∫_ε^{1−ε} E_{z~q_t(·|x)}[integrand(x_θ(·|z), x, z, t)] dt     diffusion, estimated at one t per sequence
                + E_{z~q_ε(·|x)}[−log p_θ(x|z)]                              reconstruction, the clean end
                + KL(q_{1−ε}(·|x) ‖ p_{1−ε})                                  prior, the noisy end

per position, summed over positions (design: math.md 1 and 2). The process supplies every term.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sumi_core.corruption.process import DenoiserFunction, ForwardProcess
from sumi_core.data.batch import Batch
from sumi_core.objectives.objective import Likelihood, Loss, Objective, per_sequence
from sumi_core.typed import choice, number


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

    def __init__(self, options: Options, *, process: ForwardProcess | None, num_tokens: int, eos_id: int) -> None:
        super().__init__(options, process=process, num_tokens=num_tokens, eos_id=eos_id)
        assert process is not None
        self.process = process
        self.options = options

    def loss(self, denoiser: DenoiserFunction, batch: Batch) -> Loss:
        epsilon = self.options.time_epsilon
        t = batch.times(epsilon, 1 - epsilon)
        z, integrand = self._diffusion(denoiser, batch, t)
        bound = (1 - 2 * epsilon) * integrand.detach().mean()
        if self.options.weighting == "snr":
            per_log_snr = -1 / self.process.schedule.log_snr_rate(t)
            value = (integrand * per_log_snr.unsqueeze(-1).to(integrand.dtype)).mean()
        else:
            value = (1 - 2 * epsilon) * integrand.mean()
        changed = (z != batch.tokens).to(torch.float32).mean()
        return Loss(value, {"elbo": bound, "changed_tokens": changed})

    @torch.no_grad()
    def nats(self, denoiser: DenoiserFunction, batch: Batch, epsilon: float) -> Likelihood:
        x, schedule = batch.tokens, self.process.schedule
        t = batch.times(epsilon, 1 - epsilon)
        _, integrand = self._diffusion(denoiser, batch, t)
        density = per_sequence(integrand)

        clean_end = torch.full_like(t, epsilon)
        z = self.process.corrupt(x, clean_end.unsqueeze(-1), batch.noise("reconstruction"))
        reconstruction = self.process.reconstruction(denoiser(z, clean_end), x, z, clean_end.unsqueeze(-1))
        prior = self.process.prior(x, (1 - clean_end).unsqueeze(-1))
        return Likelihood(
            diffusion=(1 - 2 * epsilon) * density,
            reconstruction=per_sequence(reconstruction),
            prior=per_sequence(prior),
            level=t,
            alpha=schedule.alpha(t),
            nats_per_alpha=density / (-schedule.dalpha(t) * x.shape[-1]),
        )

    def _diffusion(self, denoiser: DenoiserFunction, batch: Batch, t: Tensor) -> tuple[Tensor, Tensor]:
        """Corrupt to levels ``t [B]`` and look: the noisy tokens and the bound's integrand, both ``[B, L]``."""
        x, levels = batch.tokens, t.unsqueeze(-1)
        z = self.process.corrupt(x, levels, batch.noise("corrupt"))
        return z, self.process.bound_integrand(denoiser(z, t), x, z, levels)
