"""Clustered noise: a token is first replaced by one of its own cluster, later by any (docs/mathematics.md 4).

Tokens carry a cluster c(·) of n_c members. Two clocks run: jumps within the cluster, survived with probability s(t),
and jumps anywhere, survived with g(t); a = g s survives both and is the schedule's α.

    q_t(y|x) = a δ_{xy} + w 1[c(y)=c(x)]/n_{c(x)} + (1 − g)/V,    w = g − a
    jump rate y→z:  r_u/V + (r_c/n_{c(z)}) 1[c(y)=c(z)],    r_u = −g′/g,  r_c = −s′/s
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.noise import Noise
from sumi_core.kernels.chunks import slices_of
from sumi_core.kernels.row_loss import RowLoss, Rows, pick, put_add

if TYPE_CHECKING:
    from torch import Tensor


class Clustered(ForwardProcess):
    """Jumps within the cluster come before jumps anywhere.

    late: of the tokens that noise has hit, the share (1 − α)^late has left its cluster; 0 is uniform noise. So
    1 − g = (1 − α)^(1+late): g falls from 1 to 0 with α, and s = α/g from 1 to 1/(1+late), whatever the schedule, so
    no rate is negative. One cluster in all is uniform noise, and so is one per token, at survival g.
    """

    tables = ("token_clusters",)
    description = (
        "replaces tokens first by others of their cluster and later by any, until only noise is left; the model reads "
        "text in which any token may be wrong, and can change every token at every step"
    )

    @dataclass
    class Options(Part.Options):
        late: Annotated[
            float,
            Field(
                ge=0.0,
                le=4.0,
                description="of the tokens that noise has hit, (1 − α)^late have left their cluster; 0: uniform noise",
            ),
        ] = 1.0

    def __init__(self, options: Options, **context: Any) -> None:
        super().__init__(options, **context)
        self.late = options.late
        # Ids are names: any integers will do.
        self.cluster = context["vocabulary"].table("token_clusters").unique(return_inverse=True)[1]
        self.size = self.cluster.bincount()
        self.members = self.cluster.argsort(stable=True)  # cluster after cluster, each beginning at its first
        self.first = self.size.cumsum(0) - self.size

    def stationary(self) -> Tensor:
        return torch.full((self.num_tokens,), 1 / self.num_tokens, dtype=torch.float64)

    # --- the two clocks ---------------------------------------------------------------------------------------------

    def shares(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """a, w and 1 − g at level t: never hit, hit within the cluster alone, hit from anywhere. float64, sum 1."""
        hit, left = self.noise_fraction(t), self._log_left(t)
        return self.alpha(t), hit * -left.expm1(), hit * left.exp()

    def shares_between(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same for what happens between s and t: a_t/a_s, g_t/g_s − a_t/a_s, 1 − g_t/g_s, without cancellation."""
        (a_t, w_t, far_t), (a_s, w_s, far_s) = self.shares(t), self.shares(s)
        g_s = a_s + w_s
        near = (a_s * w_t - a_t * w_s) / (a_s * g_s)
        return a_t / a_s, near.clamp(min=0), ((far_t - far_s) / g_s).clamp(min=0)

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """r_u and r_c, jumps per unit t anywhere and within the cluster. float64."""
        alpha, near, _ = self.shares(t)
        left = self._log_left(t)
        stay = -left.expm1()
        anywhere = (1 + self.late) * left.exp() / (alpha + near)  # per unit of α
        within = (near - self.late * alpha + (1 + self.late) * alpha * stay) / (alpha * (alpha + near))
        return -self.dalpha(t) * anywhere, -self.dalpha(t) * within.clamp(min=0)

    # --- forward ----------------------------------------------------------------------------------------------------

    def corrupt(self, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        return self._hit(x, self.shares(t), noise)

    def noise_on(self, z: Tensor, t: Tensor, u: Tensor, noise: Noise) -> Tensor:
        return self._hit(z, self.shares_between(u, t), noise)

    def _hit(self, x: Tensor, shares: tuple[Tensor, Tensor, Tensor], noise: Noise) -> Tensor:
        kept, near, _ = shares
        fate, which = (noise.uniform(x.shape[-1], dtype=torch.float64) for _ in range(2))
        self._to(x.device)
        own = self.cluster[x]
        inside = self.members[self.first[own] + (which * self.size[own]).long()]
        anywhere = (which * self.num_tokens).long()
        return torch.where(fate < kept, x, torch.where(fate < kept + near, inside, anywhere))

    def sample_prior(self, noise: Noise, length: int) -> Tensor:
        return noise.integers(self.num_tokens, length)

    def marginal(self, p: Tensor, t: Tensor) -> Tensor:
        self._to(p.device)
        kept, near, far = (share.to(p).unsqueeze(-1) for share in self.shares(t))
        per_member = near * cluster_sums(p, self.cluster, len(self.size)) / self.size.to(p)
        total = p.sum(-1, keepdim=True)
        table = kept * p
        table += of_tokens(per_member, self.cluster)
        table += far * total / self.num_tokens
        return table

    def transition(self, z: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return self._table(z, *self._reached(z, t, s))

    def _reached(self, z: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q_{t|s}(z | y) of y = z, of another y in its cluster, and of any other: ``[B, L]`` float64."""
        kept, near, far = (share.expand(z.shape) for share in self.shares_between(t, s))
        elsewhere = far / self.num_tokens
        inside = near / self._members_of(z) + elsewhere
        return inside + kept, inside, elsewhere

    def jump_rates(self, z: Tensor, t: Tensor) -> Tensor:
        anywhere, within = self.rates(t)
        inside = self._same_cluster(z) * (within / self._members_of(z)).unsqueeze(-1)
        return inside + (anywhere / self.num_tokens).unsqueeze(-1)

    def likelihood(self, z: Tensor, x: Tensor, t: Tensor) -> Tensor:
        kept, near, far = self.shares(t)
        self._to(z.device)
        inside = self.cluster[z] == self.cluster[x]
        return kept * (z == x) + near * inside / self._members_of(z) + far / self.num_tokens

    def log_evidence(self, z: Tensor, t: Tensor) -> Tensor:
        # Of three values, so three logarithms and not one of every state.
        return self._table(z, *(chance.log() for chance in self._reached(z, t, torch.zeros_like(t))))

    def belief(self, logits: Tensor, z: Tensor, t: Tensor, token: Tensor) -> Tensor:
        # The evidence has three values, so the sums over all tokens and over z's cluster are enough.
        total = self.log_total(logits)
        together = self._of_cluster(logits, z, total)
        p_z, p = ((pick(logits, state).to(total) - total).double().exp() for state in (z, token))
        kept, near, far = self.shares(t)
        inside, far = near / self._members_of(z), far / self.num_tokens
        own = far + inside * (self.cluster[token] == self.cluster[z]) + kept * (token == z)
        standing = far + inside * together + kept * p_z
        return torch.where(standing > 0, p * own / standing, (token == z).double())

    # --- the bound --------------------------------------------------------------------------------------------------

    def leave_one_out_loss(self, x: Tensor, z: Tensor, t: Tensor) -> RowLoss:
        """Global jumps pay the divergence of all tokens, jumps within the cluster that of z's cluster
        (docs/mathematics.md 4)."""
        self._to(x.device)
        (kept, near, far), (anywhere, within) = self.shares(t), self.rates(t)
        at_z = self.likelihood(z, x, t)
        rows = {
            "alpha": kept,
            "near": near,
            "far": far / self.num_tokens,
            "anywhere": anywhere / self.num_tokens / at_z,
            "within": within / self._members_of(z) / at_z,
        }
        return ClusteredDivergence(
            x=x.reshape(-1),
            z=z.reshape(-1),
            cluster=self.cluster,
            size=self.size.double(),
            **{name: value.expand(x.shape).reshape(-1) for name, value in rows.items()},
        )

    def prior(self, x: Tensor, t: Tensor) -> Tensor:
        # A uniform guess is uniform at every level, so this is KL(q_t(·|x) ‖ 1/V), and q_t(·|x) has three values:
        # at x, at the n − 1 others of its cluster, elsewhere. Where V q = 1 + d: Σ [(1 + d) log(1 + d) − d] / V.
        kept, near, far = self.shares(t)
        size = self._members_of(x)
        beside = self.num_tokens * near / size - (1 - far)
        above = torch.stack(torch.broadcast_tensors(self.num_tokens * kept + beside, beside, far - 1))
        count = torch.stack([torch.ones_like(size), size - 1, self.num_tokens - size])
        return (count * (torch.special.xlog1py(1 + above, above) - above)).sum(0) / self.num_tokens

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _log_left(self, t: Tensor) -> Tensor:
        """log (1 − α)^late, 0 for late = 0 even where α = 1, from whichever of α and 1 − α is small."""
        alpha, hit = self.alpha(t), self.noise_fraction(t)
        return torch.where(hit < 0.5, torch.special.xlogy(self.late, hit), torch.special.xlog1py(self.late, -alpha))

    def _to(self, device: torch.device) -> None:
        if self.cluster.device != device:
            self.cluster, self.size = self.cluster.to(device), self.size.to(device)
            self.members, self.first = self.members.to(device), self.first.to(device)

    def _members_of(self, z: Tensor) -> Tensor:
        """n_{c(z)}, float64."""
        self._to(z.device)
        return self.size[self.cluster[z]].double()

    def _table(self, z: Tensor, itself: Tensor, inside: Tensor, elsewhere: Tensor) -> Tensor:
        """What z, the others of its cluster, and those elsewhere have, each ``[B, L]``, for every token: ``[B, L, V]``,
        written where it differs, since comparing all tokens is much of what a sampling step costs."""
        place, mates, count = self._mates(z)
        table = elsewhere.unsqueeze(-1).repeat(1, 1, self.num_tokens)
        table.view(-1)[place * self.num_tokens + mates] = inside.reshape(-1).repeat_interleave(count)
        return table.scatter_(-1, z.unsqueeze(-1), itself.unsqueeze(-1))

    def _mates(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each token that is in a cluster with z ``[B, L]``: its place in ``[B · L]``, its id, and how many there are
        at each place, in order."""
        self._to(z.device)
        own = self.cluster[z].reshape(-1)
        count = self.size[own]
        number = torch.arange(int(count.sum()), device=z.device) - (count.cumsum(0) - count).repeat_interleave(count)
        mates = self.members[self.first[own].repeat_interleave(count) + number]
        return torch.arange(len(own), device=z.device).repeat_interleave(count), mates, count

    def _of_cluster(self, logits: Tensor, z: Tensor, total: Tensor) -> Tensor:
        """Σ p(y) over the tokens y in z's cluster, float64 ``[B, L]``. total: log Σ exp of the logits, ``[B, L]``."""
        rows, log_sum, states = logits.reshape(-1, logits.shape[-1]), total.reshape(-1), z.reshape(-1)
        together = torch.zeros(z.numel(), dtype=torch.float64, device=z.device)
        for part in slices_of(z.numel(), int(self.size.max()), z.device):
            place, mates, _ = self._mates(states[part])
            place += part.start
            together.index_add_(0, place, (rows[place, mates].to(total) - log_sum[place]).double().exp())
        return together.view(z.shape)

    def _same_cluster(self, z: Tensor) -> Tensor:
        """1[c(y) = c(z)] for every y: ``[B, L, V]``."""
        self._to(z.device)
        return self.cluster == self.cluster[z].unsqueeze(-1)


def cluster_sums(table: Tensor, cluster: Tensor, num_clusters: int) -> Tensor:
    """Sums over the members of each cluster: ``[..., V]`` → ``[..., C]``."""
    sums = table.new_zeros(*table.shape[:-1], num_clusters)
    return sums.scatter_add(-1, cluster.expand(table.shape), table)


def of_tokens(table: Tensor, cluster: Tensor) -> Tensor:
    """Each token's entry of its cluster: ``[..., C]`` → ``[..., V]``."""
    return table.gather(-1, cluster.expand(*table.shape[:-1], -1))


@dataclass
class ClusteredDivergence(RowLoss):
    """The generalised KL between reverse rates of a clustered process, quantities ``[N]`` float64.

    With p = softmax(logits), P_c its sum over a cluster, e = (1 − g)/V and v_c = w/n_c:
        q(y|x) = a 1[y=x] + b_c,  b_c = e + v_c 1[c = c(x)],      q_θ(y) = a p_y + m_c,  m_c = e + v_c P_c,  c = c(y)
    A set M of origins y that jump to z at equal rates pays, per rate/q(z|x) and with ρ = q(z|x)/q_θ(z),
        D_M = Σ_{y∈M} q log(q/q_θ) + q_θ(M) ρ − q(M) (1 + log ρ)        (y = z adds nothing),
    and the value is anywhere · D_all + within · D_{c(z)}. The sums over M need two sums per cluster, P_c and
    T_c = Σ_{y∈c} log(1 + a p_y/m_c):
        Σ_{y∈c} q log(q/q_θ) = n_c b_c log(b_c/m_c) − b_c T_c + 1[c = c(x)] (a log[(a+b_c)/q_θ(x)] + b_c log(1 + a/b_c))
    As in ``MixingDivergence``, every logarithm is of one plus what is small near pure noise, and what is one number per
    row or cluster is float64.

    x, z: int64. cluster: ``[V]``. size: n_c, ``[C]`` float64. alpha: a. near: w. far: e. anywhere,
    within: rates of jumps into z from one token, over q(z|x).
    """

    x: Tensor
    z: Tensor
    cluster: Tensor
    size: Tensor
    alpha: Tensor
    near: Tensor
    far: Tensor
    anywhere: Tensor
    within: Tensor

    def value(self, chunk: Tensor, rows: Rows) -> Tensor:
        p = chunk.softmax(-1)
        at = _AtPoints.of(self, p, rows)
        alpha, far = self.alpha[rows], self.far[rows]
        log_sums = cluster_sums(p.mul_(self._signal(at, chunk, rows)).log1p_(), self.cluster, len(self.size)).double()

        # Σ_{y∈c} q log(q/q_θ) with b_c = e, for every cluster; then x's own with what it has beyond e.
        shift = self.size * (at.per_member * at.sums / far[:, None]).log1p()
        divergence = -far[:, None] * (shift + log_sums)
        own, noise, model = self.cluster[self.x[rows]], at.noise_x, at.model_x
        moved = noise - model
        beyond = far * pick(shift, own) + self.size[own] * noise * (moved / model).log1p()
        beyond -= pick(at.per_member, own) * pick(log_sums, own)
        lost = (alpha * (1 - at.p_x) + moved).clamp(min=0) / (alpha * at.p_x + model)
        put_add(divergence, own, beyond + alpha * lost.log1p() + noise * (alpha / noise).log1p())

        surplus = at.excess - at.log_ratio  # ρ − 1 − log ρ
        everywhere = divergence.sum(-1) + surplus
        inside = pick(divergence, self.cluster[self.z[rows]]) + at.true_mass * surplus
        inside += (at.model_mass - at.true_mass) * (1 + at.excess)
        return (self.anywhere[rows] * everywhere + self.within[rows] * inside).to(chunk.dtype)

    def gradient(self, chunk: Tensor, rows: Rows, scale: Tensor) -> Tensor:
        # With k_c the rate from c into z, over q(z|x), and ∂value/∂p_y = a h_y + v_c Σ_{y'∈c} h_y':
        #   h_y = ∂value/∂q_θ(y) = −k_c q(y|x)/q_θ(y) + within 1[c = c(z)] ρ + 1[y = z] jump_z
        p = chunk.softmax(-1)
        at = _AtPoints.of(self, p, rows)
        x, z, scale = self.x[rows], self.z[rows], scale.double()
        alpha, anywhere, within = self.alpha[rows], scale * self.anywhere[rows], scale * self.within[rows]
        own, origin = self.cluster[x], self.cluster[z]

        model = self.far[rows, None] + at.per_member * at.sums
        pull = anywhere[:, None].repeat(1, len(self.size))  # k, and then k b
        put_add(pull, origin, within)
        jump_x = -pick(pull, own) * alpha / (alpha * at.p_x + at.model_x)
        own_pull = pick(pull, own) * pick(at.per_member, own)
        pull.mul_(self.far[rows, None])
        put_add(pull, own, own_pull)
        balance = within * (at.true_mass - at.model_mass * (1 + at.excess)) - anywhere * at.excess
        jump_z = balance / (alpha * at.p_z + at.model_z)

        share = p * self._signal(at, chunk, rows)
        share.div_(share + 1)  # a p_y / q_θ(y)
        rest = self.size - cluster_sums(share, self.cluster, len(self.size)).double()  # Σ_{y∈c} m_c / q_θ(y)
        slopes = -pull * rest / model  # Σ_{y∈c} h_y
        ratio = within * (1 + at.excess)
        put_add(slopes, origin, ratio * self.size[origin] + jump_z)
        put_add(slopes, own, jump_x)
        flat = at.per_member * slopes  # what p_y is multiplied by in all of a cluster
        put_add(flat, origin, alpha * ratio)

        result = share.mul_(self._tokens(-pull, p)).addcmul_(p, self._tokens(flat, p))
        put_add(result, x, (alpha * at.p_x * jump_x).to(p))
        put_add(result, z, (alpha * at.p_z * jump_z).to(p))
        return result.sub_(p.mul_(result.sum(-1, keepdim=True)))

    def _signal(self, at: _AtPoints, chunk: Tensor, rows: Rows) -> Tensor:
        """a/m_c of every token."""
        model = self.far[rows, None] + at.per_member * at.sums
        return self._tokens(self.alpha[rows, None] / model, chunk)

    def _tokens(self, table: Tensor, like: Tensor) -> Tensor:
        """``[n, C]`` float64 → ``[n, V]``; what the type cannot hold belongs to a p that it cannot hold."""
        most = torch.finfo(like.dtype).max / 16
        return of_tokens(table.clamp(-most, most).to(like), self.cluster)


@dataclass
class _AtPoints:
    """What rows say of x, z and their clusters: ``[n]``, but ``per_member`` and ``sums`` ``[n, C]``, float64."""

    per_member: Tensor  # v_c
    sums: Tensor  # P_c
    p_x: Tensor
    p_z: Tensor
    noise_x: Tensor  # b at x
    model_x: Tensor  # m at x and at z
    model_z: Tensor
    excess: Tensor  # ρ − 1
    log_ratio: Tensor  # log ρ
    true_mass: Tensor  # q and q_θ of z's cluster
    model_mass: Tensor

    @classmethod
    def of(cls, term: ClusteredDivergence, p: Tensor, rows: Rows) -> _AtPoints:
        x, z = term.x[rows], term.z[rows]
        alpha, near, far = term.alpha[rows], term.near[rows], term.far[rows]
        own, origin = term.cluster[x], term.cluster[z]
        per_member = near[:, None] / term.size
        sums = cluster_sums(p, term.cluster, len(term.size)).double()
        p_x, p_z, sum_z = pick(p, x).double(), pick(p, z).double(), pick(sums, origin)
        beside, together = pick(per_member, origin), (own == origin).double()
        model_z = far + beside * sum_z
        lacking = alpha * ((x == z).double() - p_z) + beside * (together - sum_z)  # q(z|x) − q_θ(z)
        elsewhere = term.size[origin] * far
        mixed = alpha * p_z + model_z  # q_θ(z)
        excess = lacking / mixed
        # Where ρ is small ρ − 1 has none of its digits, but then ρ is the quotient of two that are far apart.
        quotient = (alpha * (x == z).double() + far + beside * together) / mixed
        return cls(
            per_member=per_member,
            sums=sums,
            p_x=p_x,
            p_z=p_z,
            noise_x=far + pick(per_member, own),
            model_x=far + pick(per_member * sums, own),
            model_z=model_z,
            excess=excess,
            log_ratio=torch.where(excess < -0.5, quotient.log(), excess.log1p()),
            true_mass=(alpha + near) * together + elsewhere,
            model_mass=(alpha + near) * sum_z + elsewhere,
        )
