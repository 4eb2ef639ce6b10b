import pytest
import torch

from sumi_core.corruption import SCHEDULES

NAMES = ["linear", "cosine"]
GRID = torch.cat([torch.tensor([1e-9, 1e-6, 1e-3]), torch.linspace(0.01, 0.99, 41), torch.tensor([0.999])]).double()


def build(name):
    return SCHEDULES.build(name, {})


@pytest.mark.parametrize("name", NAMES)
def test_ends_are_exact(name):
    """Exactly 1 and 0, so that level 0 leaves a text untouched and level 1 remembers nothing of it."""
    ends = build(name).alpha(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ends.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("name", NAMES)
def test_alpha_falls(name):
    alpha = build(name).alpha(torch.linspace(0, 1, 10001, dtype=torch.float64))
    assert (alpha.diff() < 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_derivative_against_finite_differences(name):
    schedule, step = build(name), 1e-6
    t = GRID[GRID > 1e-5]
    t = t[t < 1 - 1e-5]
    finite = (schedule.alpha(t + step) - schedule.alpha(t - step)) / (2 * step)
    torch.testing.assert_close(schedule.dalpha(t), finite, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_log_snr_rate_against_finite_differences(name):
    schedule, step = build(name), 1e-6
    t = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    finite = (schedule.log_snr(t + step) - schedule.log_snr(t - step)) / (2 * step)
    torch.testing.assert_close(schedule.log_snr_rate(t), finite, rtol=1e-7, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_rate_is_the_rate_of_survival(name):
    """exp(−∫_s^t rate) = α_t / α_s."""
    schedule = build(name)
    t = torch.linspace(0.1, 0.7, 20001, dtype=torch.float64)
    survived = torch.exp(-torch.trapezoid(schedule.rate(t), t))
    expected = schedule.alpha(t[-1]) / schedule.alpha(t[0])
    torch.testing.assert_close(survived, expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_time_of_alpha_inverts(name):
    schedule = build(name)
    torch.testing.assert_close(schedule.time_of_alpha(schedule.alpha(GRID)), GRID, rtol=0, atol=1e-12)
    alpha = torch.tensor([0.0, 1e-12, 1e-4, 0.29, 0.31, 0.7, 1 - 1e-6, 1.0], dtype=torch.float64)
    torch.testing.assert_close(schedule.alpha(schedule.time_of_alpha(alpha)), alpha, rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_nearly_pure_noise_does_not_cancel(name):
    """α(1 − h) for tiny h against its leading term; a form that cancels would give 0 and an infinite rate."""
    h = 2.0**-30
    t = torch.tensor(1 - h, dtype=torch.float64)
    leading = {"linear": h, "cosine": torch.pi**2 / 8 * h**2}[name]
    assert float(build(name).alpha(t)) == pytest.approx(leading, rel=1e-9)
    assert float(build(name).rate(t)) == pytest.approx({"linear": 1 / h, "cosine": 2 / h}[name], rel=1e-9)


def test_cosine_is_the_published_one():
    """MD4 (2406.04329), Table 1: α = 1 − cos(π/2 (1 − t))."""
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    torch.testing.assert_close(build("cosine").alpha(t), 1 - torch.cos(torch.pi / 2 * (1 - t)), rtol=0, atol=1e-15)
