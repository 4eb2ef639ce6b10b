"""How noisy the training gradient of a finished model is: what a schedule, a clock or an objective does to learning.

The data are held fixed: the same batch of sequences is noised again and again, as training would at other steps, and
the gradient g of the training loss is taken at the final weights. With independent pairs (g₁, g₂),

    E[|g₁ − g₂|² / 2] = tr Cov(g)        E[g₁ · g₂] = |E g|²

so both are estimated without bias, by means over pairs whose spread gives their errors, and no more than two gradients
are held at a time. An objective without noise, such as next-token prediction, has a variance of 0. One whose weight
grows towards the clean end has a few large gradients among many small ones: the error over pairs, which does not know
what was not drawn, is then too small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from pydantic import Field

from sumi_core.base.progress import Progress, unwatched
from sumi_core.base.registry import Part
from sumi_core.base.statistics import Estimate, mean_estimate
from sumi_core.data.batch import Batch
from sumi_core.data.noise import EVALUATION
from sumi_core.evaluation.measurement import Context, Findings, Measurement, Model, named_estimates
from sumi_core.evaluation.samples import evenly
from sumi_core.objectives.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor, nn


class GradientNoise(Measurement):
    """The noise of the training gradient at the final weights, where the objective draws any."""

    reads = ("sequences", "gradient_sequences", "seed")

    @dataclass
    class Options(Part.Options):
        """pairs: of gradients, from whose spread the errors come."""

        pairs: Annotated[int, Field(ge=2, le=10**4, description="pairs of gradients that are compared")] = 8

    def run(self, model: Model, context: Context) -> Findings:
        """Take gradients on ``gradient_sequences`` of the chosen sequences (0: none)."""
        config = context.config
        if not config.gradient_sequences or not model.objective.needs_process:  # without noise there is none to draw
            return Findings()
        rows = torch.from_numpy(np.stack(evenly(context.tokens, config.gradient_sequences))).to(model.device)
        spread = measure_gradient_noise(
            model.objective,
            model.denoiser,
            rows,
            pairs=self.options.pairs,
            seed=config.seed,
            progress=context.progress,
        )
        figures = spread.metrics()
        return Findings({"gradient_noise": figures}, named_estimates("gradient_noise", figures))


@dataclass(frozen=True)
class GradientSpread:
    """Of the training gradient of one batch, in (nats per token per unit of weight)², over noise levels and noise.

    variance: the trace of its covariance. squared_norm: the squared length of its mean. sequences: in the batch, on
    which the variance depends as 1/B or steeper (stratified levels). gradients: how many were taken."""

    variance: Estimate
    squared_norm: Estimate
    sequences: int
    gradients: int

    def metrics(self) -> dict[str, float]:
        """Plain data by name, as an evaluation's summary holds them."""
        return {
            "variance": self.variance.value,
            "variance_stderr": self.variance.stderr,
            "squared_norm": self.squared_norm.value,
            "squared_norm_stderr": self.squared_norm.stderr,
            "sequences": self.sequences,
            "gradients": self.gradients,
        }


def measure_gradient_noise(
    objective: Objective,
    denoiser: nn.Module,
    tokens: Tensor,
    *,
    pairs: int = 8,
    seed: int = 0,
    progress: Progress = unwatched,
) -> GradientSpread:
    """Take 2·``pairs`` gradients of ``objective.loss`` on the batch ``tokens`` ``[B, L]``, on its device.

    The denoiser is left as it is: no gradient is stored in it. Pair k is noised as at steps 2k + 1 and 2k + 2 of the
    evaluation's own seed, whose step 0 is that of the likelihood. Raises ValueError for fewer than two pairs."""
    if pairs < 2:
        raise ValueError(f"{pairs} pair(s) of gradients have no error; take at least 2")
    weights = [weight for weight in denoiser.parameters() if weight.requires_grad]
    count = len(tokens)

    def gradient(step: int) -> list[Tensor]:
        batch = Batch(tokens, torch.arange(count), torch.arange(count), count, step, EVALUATION + seed)
        with torch.enable_grad():
            loss = objective.loss(denoiser, batch).value
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        return [torch.zeros_like(w) if g is None else g for g, w in zip(found, weights, strict=True)]

    variances, products = [], []
    for pair in range(pairs):
        first, second = gradient(2 * pair + 1), gradient(2 * pair + 2)
        variances.append(sum(float((a.double() - b).square().sum()) for a, b in zip(first, second, strict=True)) / 2)
        products.append(sum(float((a.double() * b).sum()) for a, b in zip(first, second, strict=True)))
        del first, second  # before those of the next pair are taken
        progress(2 * (pair + 1), 2 * pairs, "gradients", "noise of the training gradient")
    return GradientSpread(mean_estimate(variances), mean_estimate(products), count, 2 * pairs)
