"""The forward process draws with the probabilities that the bound assumes; addresses, not batches, decide the draw."""

import pytest
import torch

from sumi_core.corruption import PROCESSES, SCHEDULES
from sumi_core.corruption.categorical import draw_categorical
from sumi_core.corruption.interpolating import Interpolating
from sumi_core.corruption.process import ForwardProcess
from sumi_core.corruption.schedules import NoiseSchedule
from sumi_core.data.noise import Noise
from sumi_core.data.vocabulary import Vocabulary
from tests.corruption.enumerable import (
    CASES,
    NAMES,
    World,
    build_process,
    chi_square,
    kernel_of,
    pi_of,
    rates_of,
)

V = 6


def noise(rows, step=0):
    return Noise(7, "corrupt", step, rows)


@pytest.mark.parametrize("level", [0.03, 0.5, 0.97])
@pytest.mark.parametrize(("process", "schedule"), CASES)
def test_corruption_follows_the_marginal(process, schedule, level):
    """χ² of 40,000 draws at one level against q_t(·|x) from the definition, with the bound's own α.

    A published code corrupted with another α than its loss assumed.
    """
    built = build_process(process, schedule, V)
    alpha = built.schedule.alpha(torch.tensor(level, dtype=torch.float64))
    z = built.corrupt(torch.full((200, 200), 1), torch.full((1, 1), level, dtype=torch.float64), noise(range(200)))
    assert chi_square(z, kernel_of(process, V, alpha)[1]) > 1e-3
    slightly_off = alpha + 0.03 if alpha < 0.5 else alpha - 0.03
    assert chi_square(z, kernel_of(process, V, slightly_off)[1]) < 1e-6


@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("process", NAMES)
def test_noise_on_top_of_noise_follows_the_kernel_between_both_levels(process, general):
    """χ² of draws of z_u given z_t against q_{u|t} from the definition, from a token and from a mask; and nothing
    happens between a level and itself."""
    built = build_process(process, "cosine", V)
    t, u = (torch.full((1, 1), level, dtype=torch.float64) for level in (0.35, 0.6))
    alphas = [built.schedule.alpha(level)[0, 0] for level in (u, t)]
    draw = ForwardProcess.noise_on if general else type(built).noise_on
    for state in (1, built.num_states - 1):
        z = torch.full((200, 100), state)
        assert chi_square(draw(built, z, t, u, noise(range(200))), kernel_of(process, V, *alphas)[state]) > 1e-3
        assert torch.equal(draw(built, z, t, t, noise(range(200))), z)


@pytest.mark.parametrize("name", NAMES)
def test_levels_per_position(name):
    """Every position is corrupted to its own level."""
    process = build_process(name, "linear", V)
    levels = torch.tensor([0.0, 0.25, 0.75, 1.0], dtype=torch.float64)
    x = torch.full((20_000, 4), 1)
    z = process.corrupt(x, levels.expand(20_000, 4), noise(range(20_000)))
    kept = (z == x).double().mean(0)
    expected = kernel_of(name, V, 1 - levels)[:, 1, 1]
    torch.testing.assert_close(kept, expected, rtol=0, atol=4 * 0.5 / 20_000**0.5)
    assert kept[0] == 1


@pytest.mark.parametrize("process", NAMES)
def test_prior_sample_is_pi(process):
    z = build_process(process, "linear", V).sample_prior(noise(range(200)), 100)
    assert z.shape == (200, 100)
    assert z.dtype == torch.int64
    assert chi_square(z, pi_of(process, V)) > 1e-3


@pytest.mark.parametrize("process", NAMES)
def test_the_general_draw_has_the_same_distribution(process):
    """ForwardProcess.corrupt, which any new process inherits, draws from the marginal too."""
    built = build_process(process, "linear", V)
    t = torch.full((1, 1), 0.6, dtype=torch.float64)
    z = ForwardProcess.corrupt(built, torch.full((200, 100), 3), t, noise(range(200)))
    assert chi_square(z, kernel_of(process, V, torch.tensor(0.4, dtype=torch.float64))[3]) > 1e-3
    assert chi_square(ForwardProcess.sample_prior(built, noise(range(200)), 100), pi_of(process, V)) > 1e-3


@pytest.mark.parametrize("process", ["mixture", "unigram", "unseen"])
def test_the_short_prior_draw_is_the_general_one(process):
    """One cumulative distribution for all positions draws what a table per position would, number for number."""
    built = build_process(process, "linear", 50)
    drawn = Interpolating.sample_prior(built, noise(range(20)), 30)
    assert drawn.equal(ForwardProcess.sample_prior(built, noise(range(20)), 30))


def test_the_prior_draw_never_gives_a_state_of_no_mass():
    """Not even at the edges of the cumulative distribution, where one more state of no mass stands on either side."""

    class Edges(Noise):
        def uniform(self, *shape, dtype=torch.float64):
            return torch.tensor([[0.0, 0.2, 0.5, 1 - 2**-53]], dtype=dtype)

    vocabulary = Vocabulary(6, 0, {"token_counts": torch.tensor([0, 2, 0, 0, 2, 0])})
    options = {"vocabulary": vocabulary, "schedule": SCHEDULES.build("linear", {})}
    process = PROCESSES.build("unigram", {"smoothing": 0.0}, **options)
    assert process.sample_prior(Edges(0, "sample", 0, [0]), 4).tolist() == [[1, 1, 4, 4]]


@pytest.mark.parametrize("process", NAMES)
def test_a_row_is_corrupted_alike_in_any_batch(process):
    process = build_process(process, "linear", V)
    x = torch.arange(40).view(8, 5) % V
    t = torch.linspace(0.2, 0.9, 8, dtype=torch.float64)[:, None]
    together = process.corrupt(x, t, noise(range(8)))
    assert (together != x).any()
    for order in ([3], [7, 0], [2, 5, 1]):
        assert torch.equal(process.corrupt(x[order], t[order], noise(order)), together[order])
    assert not torch.equal(process.corrupt(x, t, noise(range(8), step=1)), together)


@pytest.mark.parametrize(("name", "schedule"), CASES)
def test_marginal_likelihood_and_transition_are_one_kernel(name, schedule):
    process = build_process(name, schedule, V)
    S = process.num_states
    kernel = kernel_of(name, V, process.schedule.alpha(torch.tensor(0.4, dtype=torch.float64)))
    t = torch.full((1, 1), 0.4, dtype=torch.float64)
    x, z = torch.meshgrid(torch.arange(V), torch.arange(S), indexing="ij")
    torch.testing.assert_close(process.likelihood(z, x, t), kernel[:V])
    torch.testing.assert_close(process.log_likelihood(z, x, t).exp(), kernel[:V])
    torch.testing.assert_close(process.transition(z, t, torch.zeros_like(t)), kernel.T.expand(V, S, S))
    p = torch.rand(3, S, dtype=torch.float64).softmax(-1)
    torch.testing.assert_close(process.marginal(p, t[0].expand(3)), p @ kernel)


@pytest.mark.parametrize("levels", [(0.3, 0.7), (0.6999, 0.7), (1e-6, 1e-3), (0.999, 1 - 1e-6), (0.5, 1.0)])
@pytest.mark.parametrize(("name", "schedule"), CASES)
def test_transitions_are_those_of_the_definition_and_compose(name, schedule, levels):
    """Chapman–Kolmogorov: from 0 to s and on to t is from 0 to t."""
    process = build_process(name, schedule, V)
    s, t = (torch.full((1, 1), level, dtype=torch.float64) for level in levels)
    z = torch.arange(process.num_states)[None]
    first = process.transition(z, s, torch.zeros_like(s))[0]  # [y at s, x]
    then = process.transition(z, t, s)[0]  # [z at t, y at s]
    torch.testing.assert_close(then @ first, process.transition(z, t, torch.zeros_like(t))[0])
    by_hand = kernel_of(name, V, *(process.schedule.alpha(level).squeeze() for level in (t, s)))
    torch.testing.assert_close(then, by_hand.T, rtol=1e-6, atol=1e-12)  # which cancels where s is near t


@pytest.mark.parametrize("level", [1e-6, 0.4, 1 - 1e-6])
@pytest.mark.parametrize(("name", "schedule"), CASES)
def test_jump_rates_are_those_of_the_definition_and_not_negative(name, schedule, level):
    process = build_process(name, schedule, V)
    t = torch.full((1, 1), level, dtype=torch.float64)
    rates = process.jump_rates(torch.arange(process.num_states)[None], t)[0]  # [z, y]
    by_hand = rates_of(name, V, process.schedule.alpha(t).squeeze()).T * -process.schedule.dalpha(t)
    off = ~torch.eye(process.num_states, dtype=torch.bool)
    assert (rates[off] >= 0).all()
    torch.testing.assert_close(rates[off], by_hand[off], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("process", "schedule"), CASES)
def test_jump_rates_are_the_slope_of_the_transition(process, schedule):
    process = build_process(process, schedule, V)
    step = 1e-6
    t = torch.full((1, 1), 0.4, dtype=torch.float64)
    z = torch.arange(process.num_states)[None]
    slope = process.transition(z, t + step, t)[0] / step
    off = ~torch.eye(process.num_states, dtype=torch.bool)
    torch.testing.assert_close(process.jump_rates(z, t)[0][off], slope[off], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", ["absorbing", "hybrid", "mixture"])
def test_the_mask_is_no_token(name):
    """No probability on the mask, whatever the logits say, in the denoiser, the posterior and at the clean end."""
    process = build_process(name, "linear", V)
    assert (process.num_tokens, process.num_states, process.mask_id) == (V, V + 1, V)
    logits = torch.zeros(2, 3, V + 1)
    logits[..., V] = 1e4
    z = torch.tensor([[V, 0, 1], [V, V, 2]])
    t = torch.full((2, 1), 0.3)
    for log_p in (process.log_denoiser(logits), process.log_posterior(logits, z, t)):
        assert (log_p[..., V] == -torch.inf).all()
        torch.testing.assert_close(log_p.exp().sum(-1).double(), torch.ones(2, 3, dtype=torch.float64))
    assert (process.reverse(logits, z, t, torch.zeros_like(t))[..., V] == 0).all()
    nats = process.bound_integrand(logits, torch.zeros(2, 3, dtype=torch.int64), z, t)
    without = process.bound_integrand(torch.zeros(2, 3, V + 1), torch.zeros(2, 3, dtype=torch.int64), z, t)
    assert nats.equal(without)
    if name != "absorbing":
        return
    torch.testing.assert_close(nats[z == V], torch.full((3,), float(torch.tensor(V).log() / 0.3)))


@pytest.mark.parametrize("name", ["uniform", "unigram", "clustered"])
def test_processes_without_further_states(name):
    process = build_process(name, "linear", V)
    assert (process.num_tokens, process.num_states, process.mask_id) == (V, V, None)


@pytest.mark.parametrize("process", NAMES)
def test_posterior_is_bayes(process):
    """Joining the leave-one-out prediction with its own token gives p(x_i|z), by brute force."""
    world = World(process, tokens=3, length=2, seed=4)
    t = torch.full((len(world.z),), 0.35, dtype=torch.float64)
    log_p = world.process.log_posterior(world.denoiser(world.z, t), world.z, t[:, None])
    torch.testing.assert_close(log_p.exp()[..., :3], world.posterior(world.z, t))
    clean = world.process.reverse(world.denoiser(world.z, t), world.z, t[:, None], torch.zeros(len(t), 1))
    torch.testing.assert_close(clean[..., :3], world.posterior(world.z, t))


@pytest.mark.parametrize("process", NAMES)
def test_a_foreign_schedule_reaches_corruption_and_bound_alike(process):
    """One source of α: with a schedule nobody planned for, draws and weights follow it together."""

    class Cubic(NoiseSchedule):
        def alpha(self, t):
            return (1 - t) ** 3

        def dalpha(self, t):
            return -3 * (1 - t) ** 2

        def time_of_alpha(self, alpha):
            return 1 - alpha ** (1 / 3)

    built = build_process(process, "linear", V)
    built.schedule = Cubic(Cubic.Options())
    t = torch.full((1, 1), 0.4, dtype=torch.float64)
    z = built.corrupt(torch.full((200, 100), 2), t, noise(range(200)))
    assert chi_square(z, kernel_of(process, V, torch.tensor(0.6**3, dtype=torch.float64))[2]) > 1e-3
    # The bound at level t of one schedule is that of the other at equal α, times the ratio of dα/dt.
    linear = build_process(process, "linear", V)
    x = torch.full((1, 4), 2)
    logits = torch.randn(1, 4, built.num_states, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = built.bound_integrand(logits, x, z[:1, :4], t)
    theirs = linear.bound_integrand(logits, x, z[:1, :4], 1 - built.schedule.alpha(t))
    torch.testing.assert_close(ours, theirs * 3 * 0.6**2)


def test_categorical_draws():
    probs = torch.tensor([0.0, 0.5, 0.0, 2.0, 0.0])  # not normalised, zeros at both ends and in the middle
    edges = torch.tensor([0.0, 0.1999999, 0.2, 1 - 2**-53], dtype=torch.float64)
    assert draw_categorical(probs.expand(4, 5), edges).tolist() == [1, 1, 3, 3]
    uniform = torch.rand(50_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert chi_square(draw_categorical(probs.expand(50_000, 5), uniform), probs.double()) > 1e-3
