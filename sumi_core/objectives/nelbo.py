"""The negative evidence lower bound of a corruption process as a training loss (docs/mathematics.md 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sumi_core.kernels.row_loss import RowLoss
from sumi_core.objectives.diffusion import Diffusion
from sumi_core.objectives.noising import NoisyBatch

if TYPE_CHECKING:
    from torch import Tensor


class Nelbo(Diffusion):
    """Train with the tight bound's diffusion term, or with a bounded reweighting of it.

    weighting ``elbo``: (1 − 2ε) · integrand, an unbiased estimate of the diffusion term in nats per token.
    weighting ``snr``: integrand / (−dλ/dt), λ = log(α/(1−α)). It drops the density of λ from the bound (2512.10858;
    Sumi, 2606.19005), which leaves (1−α) π(z)/q_t(z|x) · [KL + ρ − log ρ − 1]: for uniform noise the weight is 1 where
    z ≠ x and 1/(1 + V e^λ) where z = x, for absorbing noise α times the masked cross-entropy. The weight never exceeds
    1 where π stays the same at all levels, 2 for hybrid and 1 + late for clustered noise, but the loss is not a bound;
    ``likelihood`` and the metric ``elbo`` keep the true weight. The schedule's density of λ becomes the weighting:
    schedules then differ in what is minimised, not only in variance.

    The metric ``elbo`` is the diffusion term, estimated on the sequences that follow the process's own clock; it is
    missing where ``token_levels`` leaves none.
    """

    @dataclass
    class Options(Diffusion.Options):
        weighting: Annotated[
            Literal["elbo", "snr"],
            Field(description="weight of the noise levels: the bound's, or the schedule's own density of the log-SNR"),
        ] = "elbo"

    options: Options

    def token_loss(self, noisy: NoisyBatch) -> RowLoss:
        integrand = self.process.bound_loss(noisy.x, noisy.z, noisy.level)
        return integrand.times(self._scale(noisy, self.options.weighting).expand(noisy.x.shape))

    def metrics(self, token_loss: Tensor, noisy: NoisyBatch) -> dict[str, Tensor]:
        share = 1 - self.options.token_levels
        if not share:
            return {}
        bound = token_loss.double() * self._scale(noisy, "elbo") / self._scale(noisy, self.options.weighting)
        # Divided by the expected share, not by the count: micro-batches of any make-up average to the batch's figure.
        return {"elbo": (bound * noisy.clocked).mean() / share}

    def _scale(self, noisy: NoisyBatch, weighting: str) -> Tensor:
        """What multiplies the integrand, float64, ``[B, 1]`` or ``[B, L]``."""
        if weighting == "snr":
            return -1 / self.process.log_snr_rate(noisy.level)
        return noisy.level.new_tensor(1 - 2 * self.options.time_epsilon)
