"""Interpolating processes: a token that is hit by noise is redrawn from a distribution π.

    q_t(y|x) = α δ_{xy} + (1 − α) π(y),    jump rate y→z:  r(t) π(z),   r = −α′/α

π uniform, all on a mask, or the corpus frequencies give uniform, absorbing and unigram diffusion (D3PM, 2107.03006;
GIDD, 2503.04482; docs/mathematics.md 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.noise import Noise
from sumi_core.kernels.row_loss import RowLoss, Rows, pick, put_add

if TYPE_CHECKING:
    from torch import Tensor


class Interpolating(ForwardProcess):
    """Everything for any α and π, zeros in π included. Subclasses give ``stationary`` and, where cheaper, closed forms.

    A π that moves with time overrides ``arrived``, ``inflow``, ``token_noise``, ``add_noise`` and ``drawn_between``;
    the rest follows.
    """

    _pi: Tensor | None = None

    # --- the noise --------------------------------------------------------------------------------------------------

    def pi(self, device: torch.device) -> Tensor:
        """``stationary``, kept where it was last used: ``[S]`` float64."""
        if self._pi is None or self._pi.device != device:
            self._pi = self.stationary().to(device)
        return self._pi

    def mass(self, state: Tensor) -> Tensor:
        """π(state): ``[...]`` float64."""
        return self.pi(state.device)[state]

    def arrived(self, z: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Chance to be hit between s and t and to stand at z then, whatever stood at s < t: ``[B, L]`` float64."""
        alpha_t, alpha_s, hit_s = self.alpha(t), self.alpha(s), self.noise_fraction(s)
        fallen = torch.where(
            hit_s < 0.5, self.noise_fraction(t) - hit_s, alpha_s - alpha_t
        )  # from what is small, with its digits
        return fallen / alpha_s * self.mass(z)

    def inflow(self, z: Tensor, t: Tensor) -> Tensor:
        """Jumps per unit t into z from any one other state: ``[B, L]`` float64."""
        return self.rate(t) * self.mass(z)

    def token_noise(self, t: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """(1 − α) π over the tokens, as a number per level (shaped as t) times a number per token ``[V]``, float64."""
        return self.noise_fraction(t), self.pi(device)[: self.num_tokens]

    def add_noise(self, table: Tensor, t: Tensor, scale: Tensor) -> None:
        """``table += scale (1 − α) π`` in place: ``[..., S]``, t and scale ``[...]``."""
        table.addcmul_((scale * self.noise_fraction(t)).to(table).unsqueeze(-1), self.pi(table.device).to(table))

    # --- forward ----------------------------------------------------------------------------------------------------

    def corrupt(self, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        kept = noise.uniform(x.shape[-1], dtype=torch.float64) < self.alpha(t)
        return torch.where(kept, x, self.sample_prior(noise, x.shape[-1]))

    def noise_on(self, z: Tensor, t: Tensor, u: Tensor, noise: Noise) -> Tensor:
        stays = noise.uniform(z.shape[-1], dtype=torch.float64) * self.alpha(t) < self.alpha(u)
        return torch.where(stays | (t == u), z, self.drawn_between(t, u, noise, z.shape[-1]))

    def drawn_between(self, t: Tensor, u: Tensor, noise: Noise, length: int) -> Tensor:
        """What a position holds that noise has hit between levels t and u, ``[B, length]``."""
        return self.sample_prior(noise, length)

    def sample_prior(self, noise: Noise, length: int) -> Tensor:
        # As ``draw_categorical`` inverts a cumulative distribution, which all positions share here.
        uniform = noise.uniform(length, dtype=torch.float64)
        cumulative = self.pi(uniform.device).cumsum(-1)
        return torch.searchsorted(cumulative, uniform * cumulative[-1], right=True)

    def marginal(self, p: Tensor, t: Tensor) -> Tensor:
        table = self.alpha(t).unsqueeze(-1).to(p.dtype) * p
        self.add_noise(table, t, torch.ones_like(t))
        return table

    def transition(self, z: Tensor, t: Tensor, s: Tensor) -> Tensor:
        survived = (self.alpha(t) / self.alpha(s)).expand(z.shape)
        table = self.arrived(z, t, s).unsqueeze(-1).repeat(1, 1, self.num_states)
        put_add(table, z, survived)
        return table

    def jump_rates(self, z: Tensor, t: Tensor) -> Tensor:
        return self.inflow(z, t).unsqueeze(-1).expand(*z.shape, self.num_states)

    def likelihood(self, z: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return self.alpha(t) * (z == x) + self.arrived(z, t, torch.zeros_like(t))

    def log_evidence(self, z: Tensor, t: Tensor) -> Tensor:
        # Over x, q_t(z|x) is (1 − α) π(z) but for x = z; where π(z) is nothing, only x = z can have led to z.
        by_noise = self.arrived(z, t, torch.zeros_like(t))
        own = torch.where(by_noise > 0, (self.alpha(t) / by_noise).log1p(), 0.0)
        others = torch.where(by_noise > 0, 0.0, -torch.inf).to(own)
        table = others.unsqueeze(-1).repeat(1, 1, self.num_states)
        return table.scatter_(-1, z.unsqueeze(-1), own.unsqueeze(-1))

    def belief(self, logits: Tensor, z: Tensor, t: Tensor, token: Tensor) -> Tensor:
        # The evidence for every token but z is the same, so one sum over the tokens is enough.
        total = self.log_total(logits)

        def predicted(state: Tensor) -> Tensor:
            score = pick(logits, state.clamp(max=self.num_tokens - 1)).to(total)
            return torch.where(state < self.num_tokens, (score - total).double().exp(), 0.0)

        by_noise = self.arrived(z, t, torch.zeros_like(t))
        odds, stands = self.alpha(t) / by_noise, token == z
        joined = predicted(token) * (1 + stands * odds) / (1 + predicted(z) * odds)
        return torch.where(by_noise > 0, joined, stands.to(joined))

    def noise_chance(self, p: Tensor, z: Tensor, t: Tensor) -> Tensor:
        by_noise = self.arrived(z, t, torch.zeros_like(t))  # (1 − α) π(z), with its digits where it is small
        standing = self.alpha(t) * pick(p, z).double() + by_noise
        return torch.where(by_noise > 0, by_noise / standing, 0.0)

    def log_joint(self, logits: Tensor, z: Tensor, t: Tensor) -> Tensor:
        by_noise = self.arrived(z, t, torch.zeros_like(t))
        if not bool((by_noise > 0).all()):
            return super().log_joint(logits, z, t)
        table = self.token_logits(logits).to(torch.float64, copy=True)  # the evidence is 0 but at z
        put_add(table, z, (self.alpha(t) / by_noise).log1p())
        return table

    # --- the bound --------------------------------------------------------------------------------------------------

    def weight(self, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """inflow(z) / q_t(z|x), what multiplies the divergences of ``bound_integrand``: ``[B, L]`` float64."""
        return self.inflow(z, t) / self.likelihood(z, x, t)

    def supervised(self, z: Tensor, t: Tensor) -> Tensor:
        """Where noise can have made the state: any other stands for itself, whatever is predicted."""
        return self.inflow(z, t) > 0

    def leave_one_out_loss(self, x: Tensor, z: Tensor, t: Tensor) -> RowLoss:
        """weight · [KL(q_t(·|x) ‖ q_θ) + ρ − log ρ − 1],  ρ = q_t(z|x) / q_θ(z)  (GIDD, Thm. 1; docs/mathematics.md 1).

        Where nothing jumps into z the weight is 0: there is nothing to pay, however wrong the denoiser."""
        start = torch.zeros_like(t)
        share, pi = self.token_noise(t, x.device)
        divergence = MixingDivergence(
            x=x.reshape(-1),
            z=z.reshape(-1),
            alpha=self.alpha(t).expand(x.shape).reshape(-1),
            share=share.expand(x.shape).reshape(-1),
            noise_x=self.arrived(x, t, start).reshape(-1),
            noise_z=self.arrived(z, t, start).reshape(-1),
            pi=pi,
            width=self.num_tokens,
        )
        # Only 0 / 0 becomes 0: any other NaN is a mistake that must reach the loss.
        return divergence.times(torch.where(self.inflow(z, t) == 0, 0.0, self.weight(x, z, t)))

    def reconstruction(self, logits: Tensor, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
        log_p = self.log_denoiser(logits)
        by_noise = self.arrived(z, t, torch.zeros_like(t))
        at_z = self.alpha(t) * pick(log_p, z).double().exp() + by_noise  # q_θ(z)
        nats = at_z.log() - self.log_likelihood(z, x, t) - pick(log_p, x).double()
        return torch.where(by_noise > 0, nats, 0.0).to(log_p.dtype)  # no noise leads to z: it is the token itself

    def prior(self, x: Tensor, t: Tensor) -> Tensor:
        # The divergence of the bound, from a guess of 1/V, whose sum over y is the same for all x of a level.
        alpha, by_noise = self.alpha(t), self.arrived(x, t, torch.zeros_like(t))
        share, pi = self.token_noise(t, x.device)
        noise = share.unsqueeze(-1) * pi
        spread = torch.where(noise > 0, noise * (alpha.unsqueeze(-1) / (self.num_tokens * noise)).log1p(), 0.0).sum(-1)
        guess = torch.full_like(by_noise, 1 / self.num_tokens).log()
        return own_divergence(alpha, by_noise, guess) - spread

    # --- reverse ----------------------------------------------------------------------------------------------------

    def between(self, x: Tensor, z: Tensor, t: Tensor, s: Tensor) -> Tensor:
        # One table, of which only the entries at x and z are more than noise.
        alpha_s, arrived = self.alpha(s).expand(z.shape), self.arrived(z, t, s)
        table = torch.zeros(*z.shape, self.num_states, dtype=torch.float64, device=z.device)
        put_add(table, x, alpha_s)
        self.add_noise(table, s, torch.ones_like(s))
        at_z = pick(table, z) * (arrived + self.alpha(t) / alpha_s)
        table.mul_(arrived.unsqueeze(-1))
        return table.scatter_(-1, z.unsqueeze(-1), at_z.unsqueeze(-1))

    def reverse(self, logits: Tensor, z: Tensor, t: Tensor, s: Tensor) -> Tensor:
        # q_{t|s}(z|y) = arrived + survived·1[y = z] times q_s^θ(y) = α_s x_θ(y) + (1 − α_s) π(y), in one table:
        # at large V this is what a sampling step costs beside the network.
        alpha_s = self.alpha(s).expand(z.shape)
        survived, arrived = self.alpha(t) / alpha_s, self.arrived(z, t, s)
        table = self.denoiser(logits.double())
        at_z = survived * (alpha_s * pick(table, z) + self.arrived(z, s, torch.zeros_like(s)))
        table.mul_((arrived * alpha_s).unsqueeze(-1))
        self.add_noise(table, s, arrived)
        put_add(table, z, at_z)
        total = table.sum(-1)
        # Nothing arrives at z and the denoiser rules it out: it stands since t = 0 and stays (0/0 in the formula).
        put_add(table, z, (total == 0).to(table))
        return table.div_(torch.where(total > 0, total, 1.0).unsqueeze(-1))


class WithMask(Interpolating):
    """One more state than tokens: the mask, id V, S = V + 1."""

    description = (
        "replaces tokens by a mask, or by other tokens, until only noise is left; the model fills masks in, reads text "
        "in which any other token may be wrong too, and can change every token at every step"
    )
    mask_id: int

    def __init__(self, options: Any, **context: Any) -> None:
        super().__init__(options, **context)
        self.mask_id = self.num_tokens

    @property
    def num_states(self) -> int:
        return self.num_tokens + 1


def own_divergence(alpha: Tensor, noise: Tensor, log_p: Tensor) -> Tensor:
    """(α+b) log[(α+b)/(αp+b)] − b log[b/(αp+b)], what state x adds to KL(q_t(·|x) ‖ q_θ) beyond Σ_y b_y log(b_y/q_θ).

    alpha: α. noise: b = (1−α) π(x), 0 included. log_p: log p(x). All float64 of one shape. Written without differences
    of logarithms: exact where α is small and where b or p is.
    """
    p = log_p.exp()
    mixed = ((alpha * -log_p.expm1()) / (alpha * p + noise)).log1p() * alpha + noise * (alpha / noise).log1p()
    return torch.where(noise > 0, mixed, -alpha * log_p)


# Below any frequency that a corpus can have; keeps 1/π and α/share apart and multiplied within float32.
_TINY_PI, _MOST_SIGNAL = 1e-20, 1e18


@dataclass
class MixingDivergence(RowLoss):
    """KL(q_t(·|x) ‖ q_θ) + ρ − log ρ − 1 for any π, quantities ``[N]`` float64 (docs/mathematics.md 8).

    With b_y = (1−α) π(y) = share · pi_y, which may be 0, p = softmax(logits) and q_θ = αp + b:
        KL = own_divergence(x) − Σ_y b_y log(1 + αp_y/b_y)
        ρ − 1 = α (1[z=x] − p_z) / (αp_z + b_z)
    No difference of logarithms of unequal size is left: near pure noise, where the bound's weight is 1/α, all terms
    are O(α). What is one number per row is computed in float64; only the sum over y is in the type of the logits.

    x, z: int64. share: of the tokens' noise. noise_x, noise_z: b at x and at z, which may be a mask outside of ``pi``:
    there the denoiser has no p, ρ = 1. pi: ``[W]`` float64.
    Where noise_z is 0, and with it the bound's weight, ρ is taken for 1.
    """

    x: Tensor
    z: Tensor
    alpha: Tensor
    share: Tensor
    noise_x: Tensor
    noise_z: Tensor
    pi: Tensor
    width: int | None = None

    def __post_init__(self) -> None:
        signal = torch.where(self.share > 0, self.alpha / self.share, 0.0)  # no noise on tokens: nothing to sum
        self.signal = signal.clamp(max=_MOST_SIGNAL)

    def _noise(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """pi and its inverse in the type of the computation."""
        pi = self.pi.to(like)
        return pi, 1 / pi.clamp(min=_TINY_PI)  # where pi is 0 it is multiplied by it again

    def value(self, chunk: Tensor, rows: Rows) -> Tensor:
        log_p = chunk.log_softmax(-1)
        log_p_x, p_z = pick(log_p, self.x[rows]).double(), self._at_z(log_p, rows, -torch.inf).double().exp()
        pi, inverse = self._noise(chunk)
        summed = log_p.exp_().mul_(self.signal[rows, None].to(chunk)).mul_(inverse).log1p_() @ pi
        kl = own_divergence(self.alpha[rows], self.noise_x[rows], log_p_x) - self.share[rows] * summed
        excess = self._excess(p_z, rows)
        # −log ρ of a noise token is log(1 + αp_z/b_z); by way of ρ − 1, all but −1, it would be lost.
        alpha, noise = self.alpha[rows], self.noise_z[rows]
        of_noise = -torch.where(noise > 0, alpha * p_z / noise, 0.0).log1p()
        log_ratio = torch.where(self.x[rows] == self.z[rows], excess.log1p(), of_noise)
        return (kl + excess - log_ratio).to(chunk.dtype)

    def gradient(self, chunk: Tensor, rows: Rows, scale: Tensor) -> Tensor:
        # With w = αp/q_θ and e = ρ − 1:  p_j (α w_x + Σ b w + e w_z) − b_j w_j − α w_x δ_jx − e w_z δ_jz
        alpha, scale = self.alpha[rows], scale.double()
        p = chunk.softmax(-1)
        p_x, p_z = pick(p, self.x[rows]).double(), self._at_z(p, rows, 0.0).double()
        noise_x = self.noise_x[rows]
        w_x = torch.where(noise_x > 0, alpha * p_x / (alpha * p_x + noise_x), 1.0)
        w_z = alpha * p_z / (alpha * p_z + self.noise_z[rows]).clamp(min=torch.finfo(torch.float64).tiny)
        at_x, at_z = (scale * alpha * w_x).to(p), (scale * self._excess(p_z, rows) * w_z).to(p)
        pi, inverse = self._noise(chunk)
        spread = (p * self.signal[rows, None].to(p)).mul_(inverse)
        spread.div_(spread + 1).mul_(pi).mul_((scale * self.share[rows]).to(p)[:, None])
        p.mul_((at_x + at_z + spread.sum(-1))[:, None]).sub_(spread)
        put_add(p, self.x[rows], -at_x)
        put_add(p, self.z[rows].clamp(max=p.shape[-1] - 1), -at_z)  # at a mask e = 0
        return p

    def _at_z(self, table: Tensor, rows: Rows, of_mask: float) -> Tensor:
        z, width = self.z[rows], table.shape[-1]
        return torch.where(z < width, pick(table, z.clamp(max=width - 1)), of_mask)

    def _excess(self, p_z: Tensor, rows: Rows) -> Tensor:
        alpha, same = self.alpha[rows], (self.x[rows] == self.z[rows]).double()
        noise = self.noise_z[rows]
        return torch.where(noise > 0, alpha * (same - p_z) / (alpha * p_z + noise), 0.0)
