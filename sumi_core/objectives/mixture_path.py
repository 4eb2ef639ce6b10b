"""The loss of discrete flow matching along mixture paths (Shaul et al., 2412.03487, Sec. 6; docs/mathematics.md 2).

A mixture path leads from noise to a text by one jump per token: conditioned on x, what is not yet x jumps to it at
rate c = −α′/(1 − α) per unit t, and stays. The model jumps z → y at rate c p_θ(y|z). The generalised KL divergence
between the two, Σ_{y≠z} [m_y − u_y + u_y log(u_y/m_y)] with u_y = c δ_{xy} and m_y = c p_θ(y|z), is

    c · [1 − p_θ(z|z) − 1[z ≠ x] (1 + log p_θ(x|z))]

which needs no sum over the vocabulary beyond the softmax.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sumi_core.corruption import PROCESSES
from sumi_core.corruption.interpolating import Interpolating
from sumi_core.kernels.row_loss import RowLoss, Rows, pick, put_add
from sumi_core.objectives.diffusion import Diffusion
from sumi_core.objectives.noising import NoisyBatch
from sumi_core.objectives.posterior import PosteriorObjective

if TYPE_CHECKING:
    from torch import Tensor


class MixturePath(PosteriorObjective):
    """(1 − 2ε) c · [1 − p(z|z) − 1[z ≠ x] (1 + log p(x|z))], the diffusion term of another bound on −log p(x).

    The exact posterior minimises it, but even there it stays above the entropy, since the noise is not the reverse
    of jumps that happen once: a figure of its own, never beside the tight bound, which ``likelihood`` reports. Where a
    z can only be x itself (an unmasked token) nothing is to be learnt and the loss is 0; for absorbing noise it is
    therefore the tight bound. Needs a π that does not move.
    """

    process: Interpolating

    def __init__(self, options: Diffusion.Options, **context: Any) -> None:
        super().__init__(options, **context)
        if not _noise_stays(type(self.process)):
            raise ValueError(f"{type(self.process).__name__} noise has no mixture path; it needs a π that stays")
        self._every_row = bool((self.process.stationary() > 0).all())  # asked once: each time would wait for the device

    @classmethod
    def incompatibility(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, str] | None:
        name, process = own["name"], others["process"]["name"]
        if not _noise_stays(PROCESSES.get(process)):
            return "process", f"objective '{name}' needs noise from one distribution at all levels, unlike '{process}'"
        return super().incompatibility(own, others)

    def token_loss(self, noisy: NoisyBatch) -> RowLoss:
        process, x, z = self.process, noisy.x, noisy.z
        pace = -process.dalpha(noisy.level) / process.noise_fraction(noisy.level) * (1 - 2 * self.options.time_epsilon)
        open_rows = None if self._every_row else (process.mass(z) > 0).reshape(-1).nonzero().squeeze(1)
        divergence = PathDivergence(x.reshape(-1), z.reshape(-1), self.num_tokens, open_rows)
        return divergence.times(pace.expand(x.shape))

    def metrics(self, token_loss: Tensor, noisy: NoisyBatch) -> dict[str, Tensor]:
        return {"mixture_path": token_loss.mean()}


def _noise_stays(process: type[Any]) -> bool:
    """Interpolating processes whose π moves with time have an inflow of their own."""
    return issubclass(process, Interpolating) and process.inflow is Interpolating.inflow


@dataclass
class PathDivergence(RowLoss):
    """1 − p_z − 1[z ≠ x] (1 + log p_x), p = softmax(logits); x, z: ``[N]`` int64. A mask as z has p_z = 0.

    gradient: p_j (p_z + 1[z ≠ x]) − p_z δ_jz − 1[z ≠ x] δ_jx.
    """

    x: Tensor
    z: Tensor
    width: int | None = None
    rows: Tensor | None = None

    def value(self, chunk: Tensor, rows: Rows) -> Tensor:
        x, z, masked = self.x[rows], self._place(chunk, rows), self._masked(chunk, rows)
        log_p = chunk.log_softmax(-1)
        log_p_x = pick(log_p, x)
        # 1 − p_z as the sum of the others: c is large where p_z is all but 1.
        leaves = log_p.exp_().scatter_(-1, z.unsqueeze(-1), 0.0).sum(-1)
        return torch.where(masked, 1.0, leaves) - torch.where(x == self.z[rows], 0.0, 1 + log_p_x)

    def gradient(self, chunk: Tensor, rows: Rows, scale: Tensor) -> Tensor:
        x, z = self.x[rows], self._place(chunk, rows)
        table = chunk.softmax(-1)
        p_z = torch.where(self._masked(chunk, rows), 0.0, pick(table, z)) * scale
        changed = (x != self.z[rows]).to(scale) * scale
        table.mul_((p_z + changed)[:, None])
        put_add(table, z, -p_z)
        put_add(table, x, -changed)
        return table

    def _masked(self, chunk: Tensor, rows: Rows) -> Tensor:
        return self.z[rows] >= chunk.shape[-1]

    def _place(self, chunk: Tensor, rows: Rows) -> Tensor:
        """z, or any token for a mask."""
        return self.z[rows].clamp(max=chunk.shape[-1] - 1)
