"""One bound, many ways to write it: the shipped forms against the general ones and against the literature's.

peers: GIDD 2503.04482, UDLM 2412.10193, Duo 2506.10892, MDLM 2406.07524, and the SNR form of 2512.10858 that Sumi
(2606.19005) trains with. The formulas below are typed from the papers and share nothing with the code under test.
"""

import pytest
import torch

from sumi_core.corruption.interpolating import Interpolating
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.noise import Noise
from tests.corruption.enumerable import CASES, build_process

V, B, L = 11, 5, 7  # all different, so that a wrong broadcast cannot go unseen
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def draw(process, seed=0, per_position=False):
    """x, z, logits and t, with levels from nearly clean to nearly pure noise."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(process.num_tokens, (B, L), generator=generator)
    t = torch.tensor([0.01, 0.2, 0.5, 0.9, 0.995], dtype=torch.float64)[:, None]
    if per_position:
        t = torch.rand(B, L, generator=generator, dtype=torch.float64) * 0.98 + 0.01
    z = process.corrupt(x, t, Noise(seed, "corrupt", 0, range(B)))
    logits = 2 * torch.randn(B, L, process.num_states, generator=generator, dtype=torch.float64)
    return logits, x, z, t


@pytest.mark.parametrize("per_position", [False, True])
@pytest.mark.parametrize(("process", "schedule"), CASES)
def test_shipped_interpolating_and_generator_forms_agree(process, schedule, per_position):
    """The closed form, GIDD's form for any π, and the KL divergence between reverse rates, which knows no π."""
    process = build_process(process, schedule, V)
    logits, x, z, t = draw(process, per_position=per_position)
    shipped = process.bound_integrand(logits, x, z, t)
    assert shipped.shape == (B, L)
    torch.testing.assert_close(shipped, Interpolating.bound_integrand(process, logits, x, z, t), **CLOSE)
    torch.testing.assert_close(shipped, ForwardProcess.bound_integrand(process, logits, x, z, t), **CLOSE)


@pytest.mark.parametrize("per_position", [False, True])
@pytest.mark.parametrize(("process", "schedule"), CASES)
def test_end_terms_and_likelihood_agree_with_the_general_forms(process, schedule, per_position):
    process = build_process(process, schedule, V)
    logits, x, z, t = draw(process, per_position=per_position)
    for name, arguments in [
        ("reconstruction", (logits, x, z, t)),
        ("prior", (x, t)),
        ("likelihood", (z, x, t)),
    ]:
        shipped = getattr(process, name)(*arguments)
        assert shipped.shape == (B, L)
        torch.testing.assert_close(shipped, getattr(ForwardProcess, name)(process, *arguments), **CLOSE)
        if name != "likelihood":
            torch.testing.assert_close(shipped, getattr(Interpolating, name)(process, *arguments), **CLOSE)


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


def test_per_token_levels_equal_separate_sequences():
    """A level per position is what each position would get on its own: the broadcast is over positions, not states."""
    process = build_process("uniform", "cosine", V)
    logits, x, z, t = draw(process, per_position=True)
    together = process.bound_integrand(logits, x, z, t)
    for i in range(B):
        for j in range(L):
            alone = process.bound_integrand(
                logits[i, j][None, None], x[i, j][None, None], z[i, j][None, None], t[i, j][None, None]
            )
            torch.testing.assert_close(alone.squeeze(), together[i, j], rtol=1e-12, atol=1e-12)


def test_square_shapes_do_not_mix_batch_and_position():
    """B = L = V, where [B, 1] against [L] would broadcast silently: rows must not see each other's level."""
    n = 5
    process = build_process("uniform", "linear", n)
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(n, n, n, generator=generator, dtype=torch.float64)
    x, z = (torch.randint(n, (n, n), generator=generator) for _ in range(2))
    t = torch.linspace(0.1, 0.9, n, dtype=torch.float64)[:, None]
    for function in (process.bound_integrand, process.reconstruction):
        alone = torch.cat([function(logits[i : i + 1], x[i : i + 1], z[i : i + 1], t[i : i + 1]) for i in range(n)])
        torch.testing.assert_close(function(logits, x, z, t), alone)
    alone = torch.cat(
        [process.reverse(logits[i : i + 1], z[i : i + 1], t[i : i + 1], t[i : i + 1] / 2) for i in range(n)]
    )
    torch.testing.assert_close(process.reverse(logits, z, t, t / 2), alone)
