import itertools
import math

import numpy as np
import pytest
import torch

from sumi_core.base.options import ConfigError, component
from sumi_core.corruption import PROCESSES, SCHEDULES
from sumi_core.corruption.fitted import Density
from sumi_core.corruption.process import ForwardProcess
from sumi_core.corruption.schedules import NoiseSchedule
from tests.corruption.enumerable import NAMES, SETTINGS, World, end_gaps, expected_bound, vocabulary_of

KNOTS = {"noise": [0.05, 0.3, 0.6, 1.0], "weight": [4.0, 1.0, 0.5, 3.0]}
CASES = {
    "linear": {},
    "cosine": {},
    "sqrt": {},
    "polynomial": {"exponent": 3.0},
    "log_snr": {},
    "fitted": KNOTS,
}
each = pytest.mark.parametrize("name", CASES)
GRID = torch.cat([torch.tensor([1e-9, 1e-6, 1e-3]), torch.linspace(0.01, 0.99, 41), torch.tensor([0.999])]).double()


def build(name: str) -> NoiseSchedule:
    return SCHEDULES.build(name, CASES[name])


def test_every_schedule_is_tested():
    assert set(CASES) == set(SCHEDULES.names()) - {"squared"}


@each
def test_ends_are_exact(name):
    """Exactly 1 and 0, so that level 0 leaves a text untouched and level 1 remembers nothing of it."""
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert build(name).alpha(ends).tolist() == [1.0, 0.0]
    assert build(name).noise_fraction(ends).tolist() == [0.0, 1.0]
    assert build(name).time_of_alpha(ends).tolist() == [1.0, 0.0]
    assert build(name).log_snr(ends).tolist() == [math.inf, -math.inf]


@each
def test_alpha_falls_without_a_jump(name):
    alpha = build(name).alpha(torch.linspace(0, 1, 100_001, dtype=torch.float64))
    assert (alpha.diff() < 0).all()
    assert float(-alpha.diff().min()) < 4e-3  # √t makes the largest step, 1e-5 ** 0.5, at the clean end


@each
def test_derivative_against_finite_differences(name):
    schedule, step = build(name), 1e-6
    t = GRID[GRID > 1e-5]
    t = t[t < 1 - 1e-5]
    finite = (schedule.alpha(t + step) - schedule.alpha(t - step)) / (2 * step)
    torch.testing.assert_close(schedule.dalpha(t), finite, rtol=1e-6, atol=1e-9)


@each
def test_log_snr_rate_against_finite_differences(name):
    schedule, step = build(name), 1e-6
    t = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    finite = (schedule.log_snr(t + step) - schedule.log_snr(t - step)) / (2 * step)
    torch.testing.assert_close(schedule.log_snr_rate(t), finite, rtol=2e-7, atol=0)


@each
def test_rate_is_the_rate_of_survival(name):
    """exp(−∫_s^t rate) = α_t / α_s."""
    schedule = build(name)
    t = torch.linspace(0.1, 0.7, 20001, dtype=torch.float64)
    survived = torch.exp(-torch.trapezoid(schedule.rate(t), t))
    expected = schedule.alpha(t[-1]) / schedule.alpha(t[0])
    torch.testing.assert_close(survived, expected, rtol=1e-7, atol=0)


@each
def test_time_of_alpha_inverts(name):
    schedule = build(name)
    # α near 1 holds t^exponent to 1e-16, and so t itself to the exponent's root of that: asked where it can be known.
    t = GRID[schedule.noise_fraction(GRID) > 1e-8]
    torch.testing.assert_close(schedule.time_of_alpha(schedule.alpha(t)), t, rtol=0, atol=1e-8)
    alpha = torch.tensor([0.0, 1e-12, 1e-5, 1e-4, 0.29, 0.31, 0.7, 1 - 1e-6, 1.0], dtype=torch.float64)
    torch.testing.assert_close(schedule.alpha(schedule.time_of_alpha(alpha)), alpha, rtol=1e-4, atol=1e-15)
    middle = alpha[3:7]
    torch.testing.assert_close(schedule.alpha(schedule.time_of_alpha(middle)), middle, rtol=1e-10, atol=0)


def leading(name: str, h: float) -> tuple[float, float]:
    """α(1 − h) and 1 − α(h) for small h, to leading order, by hand."""
    if name == "log_snr":
        s = 1 / (1 + math.exp(-9))
        slope = 2 * (1 - s) * (1 + 9 * s)
        return slope * h, slope * h
    if name == "fitted":  # in √u the density is 3/area at 1 and 4/area at 0
        place, weight = [0.0, *np.sqrt(KNOTS["noise"])], [4.0, *KNOTS["weight"]]
        area = np.trapezoid(weight, place)
        return 2 * h * area / 3, (h * area / 4) ** 2
    return {
        "linear": (h, h),
        "cosine": (math.pi**2 / 8 * h**2, math.pi / 2 * h),
        "sqrt": (h / 2, h**0.5),
        "polynomial": (3 * h, h**3),
    }[name]


@each
def test_the_ends_do_not_cancel(name):
    """α(1 − h) and 1 − α(h) for tiny h against their leading terms; a form that cancels would give 0 and an infinite
    rate, or a log-SNR that stands still."""
    h, schedule = 2.0**-30, build(name)
    near_noise, near_clean = leading(name, h)
    noisy, clean = torch.tensor(1 - h, dtype=torch.float64), torch.tensor(h, dtype=torch.float64)
    assert float(schedule.alpha(noisy)) == pytest.approx(near_noise, rel=1e-8)
    assert float(schedule.noise_fraction(clean)) == pytest.approx(near_clean, rel=1e-8)
    power = 2 if name == "cosine" else 1
    assert float(schedule.rate(noisy)) == pytest.approx(power / h, rel=1e-8)
    assert float(schedule.log_snr(noisy)) == pytest.approx(math.log(near_noise), rel=1e-8)
    assert float(schedule.log_snr(clean)) == pytest.approx(-math.log(near_clean), rel=1e-5)


@each
@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_the_bound_does_not_depend_on_the_schedule(process, name, monkeypatch):
    """The entropy identity with every schedule, integrated over t itself: a wrong α′ or end would show."""
    world = World(process)
    world.process.schedule = build(name)
    monkeypatch.setattr("tests.corruption.enumerable.log_odds_quadrature", pieces(name))
    total = sum(expected_bound(world, world.denoiser, 1e-3).values())
    assert total == pytest.approx(world.entropy + sum(end_gaps(world, 1e-3).values()), abs=1e-7)


def pieces(name: str):
    """A quadrature over t that knows where the schedule changes its form, in the variable log(t / (1 − t))."""

    def quadrature(epsilon: float, points: int):
        schedule = build(name)
        inner = {
            "log_snr": [schedule.tail, 1 - schedule.tail] if name == "log_snr" else [],
            "fitted": schedule.time_of_alpha(1 - torch.tensor(KNOTS["noise"][:-1], dtype=torch.float64)).tolist(),
        }.get(name, [])
        edges = [epsilon, *inner, 1 - epsilon]
        nodes, weights = np.polynomial.legendre.leggauss(60)
        t, w = [], []
        for low, high in itertools.pairwise(edges):
            a, b = (math.log(x / (1 - x)) for x in (low, high))
            piece = 1 / (1 + np.exp(-((a + b) / 2 + (b - a) / 2 * nodes)))
            t.append(piece)
            w.append(weights * (b - a) / 2 * piece * (1 - piece))
        return torch.from_numpy(np.concatenate(t)), torch.from_numpy(np.concatenate(w))

    return quadrature


def test_cosine_is_the_published_one():
    """MD4 (2406.04329), Table 1: α = 1 − cos(π/2 (1 − t))."""
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    torch.testing.assert_close(build("cosine").alpha(t), 1 - torch.cos(torch.pi / 2 * (1 - t)), rtol=0, atol=1e-15)


@pytest.mark.parametrize(("exponent", "same"), [(0.5, "sqrt"), (1.0, "linear")])
def test_polynomial_has_the_others_among_it(exponent, same):
    made = SCHEDULES.build("polynomial", {"exponent": exponent})
    for part in ("alpha", "noise_fraction", "dalpha", "log_snr_rate"):
        torch.testing.assert_close(getattr(made, part)(GRID), getattr(build(same), part)(GRID), rtol=1e-9, atol=1e-12)


def test_log_snr_is_a_line_up_to_its_limit():
    """Even steps of λ between ±9, which take 90 % of t."""
    schedule = build("log_snr")
    t = torch.linspace(0.0501, 0.9499, 1001, dtype=torch.float64)
    log_snr = schedule.log_snr(t)
    torch.testing.assert_close(log_snr.diff(), log_snr.diff().mean().expand(1000), rtol=1e-8, atol=0)
    ends = schedule.time_of_alpha(torch.sigmoid(torch.tensor([9.0, -9.0], dtype=torch.float64)))
    torch.testing.assert_close(schedule.log_snr(ends), torch.tensor([9.0, -9.0], dtype=torch.float64))
    assert float(ends[1] - ends[0]) == pytest.approx(0.9, abs=1e-4)


# --- fitted ---------------------------------------------------------------------------------------------------------


def test_a_density_is_what_its_knots_say():
    """Against the trapezoid rule on a grid, by definition; the quantile inverts it, on both sides of every knot."""
    density = Density(KNOTS["noise"], KNOTS["weight"])
    place = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    by_hand = torch.from_numpy(np.interp(place.numpy(), KNOTS["noise"], KNOTS["weight"])) / 1.75
    torch.testing.assert_close(density.at(place), by_hand)
    integral = torch.cat([place.new_zeros(1), torch.cumulative_trapezoid(by_hand, place)])
    torch.testing.assert_close(density.below(place), integral, rtol=0, atol=1e-9)
    torch.testing.assert_close(density.quantile(density.below(place)), place, rtol=0, atol=1e-12)
    torch.testing.assert_close(density.mirrored().at(place), density.at(1 - place))
    torch.testing.assert_close(density.mirrored().below(place), 1 - density.below(1 - place))


def test_equal_weights_are_even_in_the_root_of_the_noise():
    flat, squared = SCHEDULES.build("fitted", {"noise": [0.5], "weight": [7.0]}), SCHEDULES.build("polynomial", {})
    for part in ("alpha", "noise_fraction", "dalpha"):
        torch.testing.assert_close(getattr(flat, part)(GRID), getattr(squared, part)(GRID), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"noise": [0.1, 0.2], "weight": [1.0]}, "as many weights as noise levels, got 1 and 2"),
        ({"noise": [], "weight": []}, "as many weights as noise levels, got 0 and 0"),
        ({"noise": [0.2, 0.1], "weight": [1.0, 1.0]}, "must rise within"),
        ({"noise": [0.2, 1.1], "weight": [1.0, 1.0]}, "must rise within"),
        ({"noise": [0.2, 0.4], "weight": [1.0, 0.0]}, "must be above 0"),
        ({"noise": [0.2, 0.4]}, r"schedule\.weight: is missing"),
    ],
)
def test_knots_that_are_no_density_are_refused(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        component(SCHEDULES, {"name": "fitted", **options}, "a.yaml", "schedule")


@pytest.mark.parametrize("process", NAMES)
@pytest.mark.parametrize("level", [0.3, 0.02, 0.005])
def test_a_share_of_noise_too_small_for_its_complement_keeps_its_digits(process, level):
    """1 − (1 − 0.005⁸) is 0 in float64. The bound per unit of α is that of a linear schedule at as much noise."""
    context = {"vocabulary": vocabulary_of(4)}
    name, options = SETTINGS[process]
    steep = PROCESSES.build(name, options, schedule=SCHEDULES.build("polynomial", {"exponent": 8.0}), **context)
    plain = PROCESSES.build(name, options, schedule=SCHEDULES.build("linear", {}), **context)
    logits = torch.randn(1, 4, steep.num_states, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x, z = torch.tensor([[0, 2, 3, 2]]), torch.tensor([[0, 2, 2, 3]])
    here, there = (torch.full((1, 1), t, dtype=torch.float64) for t in (level, level**8))
    found = steep.bound_integrand(logits, x, z, here) / steep.dalpha(here)
    assert found.isfinite().all()
    wanted = plain.bound_integrand(logits, x, z, there) / plain.dalpha(there)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0.0)
    reference = ForwardProcess.leave_one_out_loss(plain, x, z, there).of(logits) / plain.dalpha(there)
    torch.testing.assert_close(found, reference, rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("late", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("alpha", [1e-12, 1e-8, 1e-4])
def test_clustered_rates_keep_their_digits_near_pure_noise(late, alpha, monkeypatch):
    """1 − α holds α to 1e-16 only, and of r_c's numerator α² is left; per unit of α the rate tends to late/2."""
    context = {"vocabulary": vocabulary_of(4), "schedule": SCHEDULES.build("linear", {})}
    process = PROCESSES.build("clustered", {"late": late}, **context)
    exact = torch.tensor([[alpha]], dtype=torch.float64)
    monkeypatch.setattr(process.schedule, "alpha", lambda t: exact.expand_as(t))  # of a schedule that cancels nothing
    monkeypatch.setattr(process.schedule, "noise_fraction", lambda t: (1 - exact).expand_as(t))
    _, within = process.rates(torch.full((1, 1), 1 - alpha, dtype=torch.float64))
    assert float(within) == pytest.approx(late / 2, rel=alpha + 1e-15 / alpha)


@each
def test_the_noise_of_one_level_is_that_of_a_tensor(name):
    made = build(name)
    for level in (1e-9, 0.02, 0.3, 0.97):
        expected = float(made.noise_fraction(torch.tensor(level, dtype=torch.float64)))
        assert made.noise_fraction_at(level) == pytest.approx(expected, rel=1e-12)
