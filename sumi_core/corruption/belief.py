"""What an earlier pass predicted, read at the text in noise that is given now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sumi_core.corruption.process import ForwardProcess
from sumi_core.kernels.chunks import Rows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class BeliefReader:
    """The ``read`` of a ``Belief``. A prediction of x_i that leaves z_i out outlives a change of z_i; so logits are
    brought to that form with the state that the earlier pass saw, and joined with the state that stands now.

    z: ``[B, L]`` int64, t: broadcastable to it, the state that is given now and its level. seen, at: those of the
    earlier pass; None: its logits leave the own token out already, whatever the parameterisation."""

    process: ForwardProcess
    z: Tensor
    t: Tensor
    seen: Tensor | None = None
    at: Tensor | None = None

    def __call__(self, logits: Tensor, rows: Rows, reading: str) -> tuple[Tensor, Tensor]:
        process, tokens = self.process, self.process.num_tokens
        z, t = _rows(self.z, self.z, rows), _rows(self.t, self.z, rows)
        logits = logits[None]
        if self.seen is not None and self.at is not None:
            seen, at = _rows(self.seen, self.z, rows), _rows(self.at, self.z, rows)
            logits = process.leave_one_out(logits, seen, at)
        if (process.parameterisation.reading if reading == "own" else reading) == "posterior":
            p = process.log_posterior(logits, z, t).exp()
            return p[0, :, :tokens], p.new_ones(p.shape[1])
        p = process.denoiser(logits)
        return p[0, :, :tokens], process.noise_chance(p, z, t)[0]


def _rows(values: Tensor, like: Tensor, rows: Rows) -> Tensor:
    """Some rows of what is broadcastable to ``[B, L]``, as ``[1, n]``."""
    return values.expand(like.shape).reshape(-1)[rows][None]
