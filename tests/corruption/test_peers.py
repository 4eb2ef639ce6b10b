"""The published bounds and posteriors, typed from the papers: they share nothing with the code under test.

GIDD 2503.04482, its SNR form 2512.10858 that Sumi (2606.19005) trains with, UDLM 2412.10193, Duo 2506.10892, MDLM
2406.07524, XDLM 2602.01362. All on the same kind of random logits, in float64.
"""

import pytest
import torch

from sumi_core.corruption import PROCESSES, SCHEDULES
from sumi_core.corruption.schedules import NoiseSchedule
from sumi_core.data.noise import Noise
from tests.corruption.enumerable import build_process, gidd_time, pi_of, vocabulary_of

V, B, L = 11, 5, 7  # all different, so that a wrong broadcast cannot go unseen
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def draw(process, seed=0):
    """x, z, logits and t, with levels from nearly clean to nearly pure noise."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(process.num_tokens, (B, L), generator=generator)
    t = torch.tensor([0.01, 0.2, 0.5, 0.9, 0.995], dtype=torch.float64)[:, None]
    z = process.corrupt(x, t, Noise(seed, "corrupt", 0, range(B)))
    logits = 2 * torch.randn(B, L, process.num_states, generator=generator, dtype=torch.float64)
    return logits, x, z, t


def divergences(true, model, z):
    """KL(true ‖ model) and Itakura–Saito at z, ``[B, L]`` from ``[B, L, S]``."""
    kl = (torch.xlogy(true, true) - torch.xlogy(true, model)).sum(-1)
    ratio = true.gather(-1, z[..., None])[..., 0] / model.gather(-1, z[..., None])[..., 0]
    return kl, ratio - ratio.log() - 1


def with_mask(table):
    """A column of zeros for the mask: ``[..., V]`` → ``[..., V + 1]``."""
    return torch.cat([table, torch.zeros_like(table[..., :1])], -1)


def uniform_quantities(process, logits, x, z, t):
    alpha, slope = process.schedule.alpha(t), process.schedule.dalpha(t)
    return logits.softmax(-1), alpha.expand(B, L), slope.expand(B, L)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_udlm(schedule):
    """UDLM, Eq. 18: L = α′/(Vα) [V/x̄_z − V/x̄θ_z − Σ_j (x̄_j/x̄_z) log(x̄θ_z x̄_j / (x̄θ_j x̄_z))]."""
    process = build_process("uniform", schedule, V)
    logits, x, z, t = draw(process)
    p, alpha, slope = uniform_quantities(process, logits, x, z, t)
    a = alpha[..., None]
    true = V * a * torch.nn.functional.one_hot(x, V) + 1 - a
    model = V * a * p + 1 - a
    true_z, model_z = true.gather(-1, z[..., None]), model.gather(-1, z[..., None])
    inner = V / true_z[..., 0] - V / model_z[..., 0]
    inner = inner - (true / true_z * torch.log(model_z * true / (model * true_z))).sum(-1)
    torch.testing.assert_close(process.bound_integrand(logits, x, z, t), slope / (V * alpha) * inner, **CLOSE)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_duo(schedule):
    """Duo's Rao-Blackwellised form: two gathers and one Σ log."""
    process = build_process("uniform", schedule, V)
    logits, x, z, t = draw(process)
    p, alpha, slope = uniform_quantities(process, logits, x, z, t)
    model = V * alpha[..., None] * p + 1 - alpha[..., None]
    model_z = model.gather(-1, z[..., None])[..., 0]
    model_x = model.gather(-1, x[..., None])[..., 0]
    a, b = V * alpha + 1 - alpha, 1 - alpha
    true_z = torch.where(z == x, a, b)
    braces = V * true_z / model_z - V + a * a.log() + (V - 1) * b * b.log()
    braces = braces - V * true_z.log() + V * model_z.log() - b * model.log().sum(-1) - V * alpha * model_x.log()
    expected = -slope / (V * alpha * true_z) * braces
    torch.testing.assert_close(process.bound_integrand(logits, x, z, t), expected, **CLOSE)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_gidd_snr_form(schedule):
    """2512.10858, Sumi: weight 1 where z ≠ x and 1/(1 + V e^λ) where z = x, λ = log(α/(1−α)), times −dλ/dt."""
    process = build_process("uniform", schedule, V)
    logits, x, z, t = draw(process)
    p, alpha, slope = uniform_quantities(process, logits, x, z, t)
    per_state = (1 - alpha) / V
    model = alpha[..., None] * p + per_state[..., None]
    on = z == x
    weight = torch.where(on, 1 / (1 + V * alpha / (1 - alpha)), 1.0)
    model_x, model_z = (model.gather(-1, y[..., None])[..., 0] for y in (x, z))
    kl = -alpha * model_x.log() - per_state * model.log().sum(-1)
    kl = kl + (alpha + per_state) * (alpha + per_state).log() + (V - 1) * per_state * per_state.log()
    ratio = (alpha * on + per_state) / model_z
    loss = weight * (kl + ratio - ratio.log() - 1)
    speed = -slope / (alpha * (1 - alpha))
    torch.testing.assert_close(process.bound_integrand(logits, x, z, t), speed * loss, **CLOSE)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_mdlm(schedule):
    """MDLM, Eq. 10: −α′/(1−α) times the cross-entropy of the masked positions; 1/t for α = 1 − t."""
    process = build_process("absorbing", schedule, V)
    logits, x, z, t = draw(process)
    nats = torch.nn.functional.cross_entropy(logits[..., :V].reshape(-1, V), x.reshape(-1), reduction="none").view(B, L)
    weight = -process.schedule.dalpha(t) / (1 - process.schedule.alpha(t))
    if schedule == "linear":
        torch.testing.assert_close(weight, 1 / t, rtol=1e-12, atol=0)
    expected = weight * nats * (z == V)
    assert 0 < int((z == V).sum()) < z.numel()
    torch.testing.assert_close(process.bound_integrand(logits, x, z, t), expected, **CLOSE)


def test_udlm_posterior():
    """UDLM / Duo, written out: [Vα_t z⊙x + (α_ts−α_t) z + (α_s−α_t) x + (1−α_ts)(1−α_s)/V] / [Vα_t⟨z,x⟩ + 1 − α_t]."""
    process = build_process("uniform", "cosine", V)
    logits, _, z, t = draw(process)
    s = 0.6 * t
    a_t, a_s = process.schedule.alpha(t)[..., None], process.schedule.alpha(s)[..., None]
    a_ts = a_t / a_s
    p, at_z = logits.softmax(-1), torch.nn.functional.one_hot(z, V)
    above = V * a_t * at_z * p + (a_ts - a_t) * at_z + (a_s - a_t) * p + (1 - a_ts) * (1 - a_s) / V
    below = V * a_t * (at_z * p).sum(-1, keepdim=True) + 1 - a_t
    torch.testing.assert_close(process.reverse(logits, z, t, s), above / below)


class GiddSchedule(NoiseSchedule):
    """GIDD's own level: α = (1 − t)/(1 + c), c = B √(t(1 − t))."""

    odds = 1.0

    def alpha(self, t):
        return (1 - t) / (1 + self.odds * (t * (1 - t)).sqrt())

    def dalpha(self, t):
        c = self.odds * (t * (1 - t)).sqrt()
        slope = self.odds * (1 - 2 * t) / (2 * (t * (1 - t)).sqrt())
        return -1 / (1 + c) - (1 - t) * slope / (1 + c) ** 2

    def time_of_alpha(self, alpha):
        return gidd_time(alpha, self.odds)[0]


@pytest.mark.parametrize("p_uniform", [0.0, 0.1, 0.5, 0.9])
def test_gidd_hybrid(p_uniform):
    """Marginal (t m + c u)/C and the weights in closed form: 1/(t(1−t)) on masks, half of it on wrong tokens,
    (c/N)/(1−t+c/N) · 1/(2t(1−t)) on right ones; with the bound of Thm. 1 that is the integrand at GIDD's own t."""
    schedule = GiddSchedule(GiddSchedule.Options())
    schedule.odds = 2 * p_uniform / (1 - p_uniform)
    process = PROCESSES.build("hybrid", {"p_uniform": p_uniform}, vocabulary=vocabulary_of(V), schedule=schedule)
    logits, x, z, t = draw(process)
    c = (schedule.odds * (t * (1 - t)).sqrt())[..., None]
    alpha = (1 - t[..., None]) / (1 + c)
    noise = torch.cat([c.expand(B, 1, V) / V, t[..., None]], -1) / (1 + c)
    true = alpha * torch.nn.functional.one_hot(x, V + 1) + noise
    model = alpha * with_mask(logits[..., :V].softmax(-1)) + noise
    assert float(c[2, 0, 0] / (1 + c[2, 0, 0])) == pytest.approx(p_uniform)  # at t = ½
    torch.testing.assert_close(process.marginal(with_mask(logits[..., :V].softmax(-1)), t), model, **CLOSE)
    per_token = c[..., 0] / V
    weight = torch.where(z == x, per_token / (1 - t + per_token), 1.0) / (2 * t * (1 - t))
    weight = torch.where(z == V, 1 / (t * (1 - t)), weight)
    kl, itakura_saito = divergences(true, model, z)
    if p_uniform > 0:
        assert ((z == x).any(), (z == V).any(), ((z != x) & (z != V)).any()) == (True, True, True)
        expected = weight * (kl + itakura_saito)
    else:
        expected = torch.where(z == V, weight * (kl + itakura_saito), 0.0)  # KL is infinite times no weight elsewhere
    torch.testing.assert_close(process.bound_integrand(logits, x, z, t), expected, **CLOSE)


@pytest.mark.parametrize("p_uniform", [0.02, 0.5])
def test_hybrid_as_a_path_of_the_log_snr(p_uniform):
    """2512.10858: w = (π_λ − dπ_λ/dλ)(z) / (π_λ(z) + e^λ 1[z=x]), π_λ GIDD's, its slope by differences."""
    process = PROCESSES.build(
        "hybrid", {"p_uniform": p_uniform}, vocabulary=vocabulary_of(V), schedule=SCHEDULES.build("cosine", {})
    )
    logits, x, z, t = draw(process)
    odds = 2 * p_uniform / (1 - p_uniform)
    log_snr = process.schedule.log_snr(t)

    def path(log_snr):
        g, rest = gidd_time(log_snr.sigmoid(), odds)
        c = odds * (g * rest).sqrt()
        return torch.cat([(c / (g + c) / V).expand(B, V), g / (g + c)], -1)[:, None, :]

    step = 1e-5
    slope = (path(log_snr + step) - path(log_snr - step)) / (2 * step)
    pi, alpha = path(log_snr), log_snr.sigmoid()[..., None]
    true = alpha * torch.nn.functional.one_hot(x, V + 1) + (1 - alpha) * pi
    model = alpha * with_mask(logits[..., :V].softmax(-1)) + (1 - alpha) * pi
    at_z = [table.expand(B, L, V + 1).gather(-1, z[..., None])[..., 0] for table in (pi - slope, pi)]
    weight = at_z[0] / (at_z[1] + log_snr.exp() * (z == x))
    kl, itakura_saito = divergences(true, model, z)
    expected = -process.log_snr_rate(t) * weight * (kl + itakura_saito)
    torch.testing.assert_close(process.bound_integrand(logits, x, z, t), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["unigram", "mixture", "unseen"])
def test_gidd_for_a_constant_pi(name):
    """Thm. 1: (−α′/α) π(z)/q(z|x) · (KL + IS), paid only where a jump can lead to z."""
    process = build_process(name, "cosine", V)
    logits, x, z, t = draw(process)
    pi = pi_of(name, V)
    p = logits[..., :V].softmax(-1)
    p = with_mask(p) if len(pi) > V else p
    alpha = process.schedule.alpha(t)[..., None]
    true = alpha * torch.nn.functional.one_hot(x, len(pi)) + (1 - alpha) * pi
    model = alpha * p + (1 - alpha) * pi
    weight = process.schedule.rate(t) * pi[z] / true.gather(-1, z[..., None])[..., 0]
    kl, itakura_saito = divergences(true, model, z)
    torch.testing.assert_close(process.bound_integrand(logits, x, z, t), weight * (kl + itakura_saito), **CLOSE)


@pytest.mark.parametrize("k", [0.1, 0.5, V / (V + 1)])
def test_xdlm(k):
    """K = (k/N) J + (1 − k) M over N = V + 1 states, mask included, is the mixture of share k V/(V + 1): the step from
    pure noise to noise, the bound −α′ h, and the posterior of a step."""
    share = k * V / (V + 1)
    process = PROCESSES.build(
        "mixture", {"share": share}, vocabulary=vocabulary_of(V), schedule=SCHEDULES.build("linear", {})
    )
    logits, x, z, t = draw(process)
    mask = torch.nn.functional.one_hot(torch.tensor(V), V + 1).double()
    pi = k / (V + 1) + (1 - k) * mask
    torch.testing.assert_close(process.stationary(), pi)
    a_t, a_s = (1 - level[..., None] for level in (t, 0.6 * t))
    p = with_mask(logits[..., :V].softmax(-1))
    true, model = (a_t * state + (1 - a_t) * pi for state in (torch.nn.functional.one_hot(x, V + 1), p))
    kl, itakura_saito = divergences(true, model, z)
    h = pi[z] / a_t[..., 0] / true.gather(-1, z[..., None])[..., 0] * (kl + itakura_saito)
    torch.testing.assert_close(process.bound_integrand(logits, x, z, t), h, **CLOSE)
    a_ts, at_z = a_t / a_s, torch.nn.functional.one_hot(z, V + 1)
    step = (a_s * p + (1 - a_s) * pi) * (a_ts * at_z + (1 - a_ts) * pi[z][..., None])
    step = step / model.gather(-1, z[..., None])
    torch.testing.assert_close(process.reverse(logits, z, t, 0.6 * t), step, **CLOSE)


def test_udlm_is_xdlm_at_one_and_needs_no_mask():
    """A published code documents k = 1 without a mask and fails on it: here share 1 is uniform noise."""
    mixture = PROCESSES.build(
        "mixture", {"share": 1.0}, vocabulary=vocabulary_of(V), schedule=SCHEDULES.build("linear", {})
    )
    uniform = build_process("uniform", "linear", V)
    logits, x, z, t = draw(mixture)
    assert (z < V).all()
    inside = logits[..., :V]
    for method, arguments in [
        ("bound_integrand", (x, z, t)),
        ("reconstruction", (x, z, t)),
        ("reverse", (z, t, t / 2)),
    ]:
        found = getattr(mixture, method)(logits, *arguments)
        found = found[..., :V] if method == "reverse" else found
        torch.testing.assert_close(found, getattr(uniform, method)(inside, *arguments), **CLOSE)


def test_gidd_gradient():
    """2512.10858: g = α w (−u/q̂ − 1[v=x] α/q̂_x + 1[v=z] (1 − r)/q̂_z), ∂L/∂logit = p ⊙ (g − ⟨g, p⟩)."""
    for name in ("uniform", "unigram"):
        process = build_process(name, "linear", V)
        logits, x, z, t = draw(process)
        logits.requires_grad_()
        (found,) = torch.autograd.grad(process.bound_integrand(logits, x, z, t).sum(), logits)
        p, alpha = logits.detach().softmax(-1), (1 - t)[..., None]
        noise = (1 - alpha) * pi_of(name, V)
        model = alpha * p + noise
        on_x, on_z = (torch.nn.functional.one_hot(state, V) for state in (x, z))
        true = alpha * on_x + noise
        weight = (noise / (1 - alpha) / alpha / true * on_z).sum(-1, keepdim=True)
        ratio = (true / model * on_z).sum(-1, keepdim=True)
        g = alpha * weight * (-noise / model - on_x * alpha / model + on_z * (1 - ratio) / model)
        torch.testing.assert_close(found, p * (g - (g * p).sum(-1, keepdim=True)), **CLOSE)


@pytest.mark.parametrize("name", ["hybrid", "mixture"])
def test_random_tokens_are_tokens(name):
    """A published sampler drew its uniform part with the mask among the tokens, its density without: here both agree
    that what is no mask is spread over V tokens."""
    process = build_process(name, "linear", V)
    x = torch.zeros(100, 300, dtype=torch.int64)
    t = torch.full((1, 1), 0.7, dtype=torch.float64)
    z = process.corrupt(x, t, Noise(5, "corrupt", 0, range(100)))
    masked = float((z == V).double().mean())
    expected = float(process.likelihood(torch.tensor([[V]]), torch.tensor([[0]]), t))
    assert masked == pytest.approx(expected, abs=4 * 0.5 / 30_000**0.5)
    others = torch.bincount(z[(z > 0) & (z < V)], minlength=V)[1:V].double()
    one = float(process.likelihood(torch.tensor([[1]]), torch.tensor([[0]]), t))
    assert float((others / 30_000 - one).abs().max()) < 5 * (one / 30_000) ** 0.5
