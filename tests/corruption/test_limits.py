"""Processes that contain others: at the ends of their options they must be those, state for state."""

import pytest
import torch

from sumi_core.corruption import PROCESSES, SCHEDULES
from sumi_core.corruption.interpolating import Interpolating
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.noise import Noise
from sumi_core.data.vocabulary import Vocabulary, VocabularyError
from tests.corruption.enumerable import build_process, token_clusters, vocabulary_of

V, B, L = 7, 5, 6
CLOSE = {"rtol": 1e-9, "atol": 1e-10}


def build(name, options=None, schedule="cosine", **tables):
    context = {"vocabulary": vocabulary_of(V, **tables), "schedule": SCHEDULES.build(schedule, {})}
    return PROCESSES.build(name, options or {}, **context)


def same(one, other, level=lambda t: t, pace=lambda t: 1.0, first=1e-6):
    """Everything that a process says, of two processes: z is drawn by the first, which may have an unused mask.

    level: where the other stands when the first is at t. pace: d level/dt. first: the smallest t.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(V, (B, L), generator=generator)
    t = torch.tensor([first, 0.05, 0.5, 0.95, 1 - 1e-6], dtype=torch.float64)[:, None]
    s = torch.tensor([0.0, 0.01, 0.3, 0.9, 0.5], dtype=torch.float64)[:, None]
    z = one.corrupt(x, t, Noise(0, "corrupt", 0, range(B)))
    logits = 2 * torch.randn(B, L, one.num_states, generator=generator, dtype=torch.float64)
    n = other.num_states
    assert (z < n).all()
    bounds = one.bound_integrand(logits, x, z, t), pace(t) * other.bound_integrand(logits[..., :n], x, z, level(t))
    scale = 1 + bounds[1].abs()  # at t = 1e-6 the integrand is 1e6, and rounding with it
    torch.testing.assert_close(bounds[0] / scale, bounds[1] / scale, **CLOSE)
    torch.testing.assert_close(one.prior(x, t), other.prior(x, level(t)), rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(one.likelihood(z, x, t), other.likelihood(z, x, level(t)), rtol=1e-9, atol=0)
    read = one.reconstruction(logits, x, z, t), other.reconstruction(logits[..., :n], x, z, level(t))
    torch.testing.assert_close(*read, **CLOSE)
    step = one.reverse(logits, z, t, s)
    assert (step[..., n:] == 0).all()
    torch.testing.assert_close(step[..., :n], other.reverse(logits[..., :n], z, level(t), level(s)), **CLOSE)
    assert one.stationary()[:n].allclose(other.stationary())


@pytest.mark.parametrize("count", [0, 1, 12345])
def test_unigram_of_equal_counts_is_uniform(count):
    flat = build("unigram", token_counts=torch.full((V,), count))
    assert flat.stationary().equal(torch.full((V,), 1 / V, dtype=torch.float64))
    same(flat, build("uniform"))


def test_mixture_ends_are_absorbing_and_uniform():
    same(build("mixture", {"share": 0.0}), build("absorbing"))
    same(build("mixture", {"share": 1.0}), build("uniform"))


def test_hybrid_without_random_tokens_is_absorbing():
    same(build("hybrid", {"p_uniform": 0.0}), build("absorbing"))


def test_hybrid_tends_to_absorbing():
    """On what both can draw, the bound differs by O(p_uniform log): no jump at 0."""
    x = torch.arange(V)[None]
    z = torch.where(torch.arange(V) % 2 > 0, V, x)
    logits = torch.randn(1, V, V + 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.full((1, 1), 0.4, dtype=torch.float64)
    absorbing = build("absorbing").bound_integrand(logits, x, z, t)
    gaps = [
        float((build("hybrid", {"p_uniform": p}).bound_integrand(logits, x, z, t) - absorbing).abs().max())
        for p in (1e-2, 1e-4, 1e-6, 1e-12)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-9 < 1e-3 < gaps[0]


@pytest.mark.parametrize("late", [0.0, 0.5, 4.0])
def test_one_cluster_in_all_is_uniform(late):
    same(build("clustered", {"late": late}, token_clusters=torch.full((V,), 3)), build("uniform"))


@pytest.mark.parametrize("clusters", [token_clusters(V), torch.arange(V)])
def test_clusters_left_at_once_are_uniform(clusters):
    same(build("clustered", {"late": 0.0}, token_clusters=clusters), build("uniform"))


@pytest.mark.parametrize("late", [0.5, 2.0])
def test_one_cluster_per_token_is_uniform_at_the_survival_of_global_jumps(late):
    """A jump within a cluster of one leads nowhere: what is left is uniform noise at α = g = 1 − (1 − α)^(1 + late)."""
    own = build("clustered", {"late": late}, "linear", token_clusters=torch.tensor([3, 1, 4, 15, 9, 2, 6]))
    same(
        own,
        build("uniform", schedule="linear"),
        level=lambda t: t ** (1 + late),  # linear: 1 − α = t
        pace=lambda t: (1 + late) * t**late,
        first=0.02,  # α is 1 to the last digit where the other stands at t³ = 1e-18
    )


def test_clusters_are_what_ids_say_whatever_their_names_and_order():
    """Tokens renamed: the same permutation of everything permutes the bound's tokens and nothing else."""
    order = torch.tensor([4, 2, 6, 0, 1, 5, 3])
    place = order.argsort()
    one = build("clustered", {"late": 1.5}, token_clusters=token_clusters(V))
    other = build("clustered", {"late": 1.5}, token_clusters=100 - 3 * token_clusters(V)[order])
    generator = torch.Generator().manual_seed(0)
    x, z = (torch.randint(V, (B, L), generator=generator) for _ in range(2))
    logits = torch.randn(B, L, V, generator=generator, dtype=torch.float64)
    t = torch.full((B, 1), 0.3, dtype=torch.float64)
    arguments = logits[..., order], place[x], place[z], t
    torch.testing.assert_close(one.bound_integrand(logits, x, z, t), other.bound_integrand(*arguments))


def test_jumps_within_the_cluster_come_first():
    """Nearly clean, nearly all that changed is in its cluster; at pure noise nothing is left of it."""
    process = build("clustered", {"late": 2.0}, "linear")
    for level, left in ((0.01, 1e-4), (0.5, 0.25), (0.99, 0.99**2)):
        kept, near, far = process.shares(torch.tensor(level, dtype=torch.float64))
        assert float(kept + near + far) == pytest.approx(1, abs=1e-15)
        assert float(far / (near + far)) == pytest.approx(left)


@pytest.mark.parametrize("smoothing", [0.0, 0.5, 3.0])
def test_unigram_is_the_smoothed_frequencies(smoothing):
    process = build("unigram", {"smoothing": smoothing}, token_counts=torch.tensor([0, 1, 2, 3, 4, 0, 10]))
    expected = (torch.tensor([0, 1, 2, 3, 4, 0, 10]) + smoothing) / (20 + 7 * smoothing)
    torch.testing.assert_close(process.stationary(), expected.double())


def test_no_counts_at_all_are_refused():
    with pytest.raises(VocabularyError, match=r"holds no token; set process\.smoothing above 0"):
        build("unigram", {"smoothing": 0.0}, token_counts=torch.zeros(V, dtype=torch.int64))
    for name in ("unigram", "clustered"):
        with pytest.raises(VocabularyError, match="no table 'token_"):
            PROCESSES.build(name, {}, vocabulary=Vocabulary(V, 0), schedule=SCHEDULES.build("linear", {}))


# --- where π is nothing -----------------------------------------------------------------------------------------------


class Absorbing(Interpolating):
    """δ_mask through the forms for any π, none of them written for absorbing noise."""

    @property
    def num_states(self):
        return self.num_tokens + 1

    def stationary(self):
        return (torch.arange(self.num_states) == self.num_tokens).double()


def test_the_forms_for_any_pi_hold_for_a_pi_that_is_a_point():
    shaped = {"vocabulary": vocabulary_of(V), "schedule": SCHEDULES.build("cosine", {})}
    same(Absorbing(ForwardProcess.Options(), **shaped), build("absorbing"))


@pytest.mark.parametrize("name", ["unseen", "general absorbing"])
def test_a_denoiser_that_rules_out_what_noise_cannot_bring(name):
    """Token 1 is never noise. Where it stands it is certain, whatever is predicted: nothing to pay, nothing to move, no
    0 · ∞ in value, gradient or step. Where it was and is gone, ruling it out costs infinitely much, and says so."""
    if name == "unseen":
        process, gone = build_process("unseen", "linear", V), 0
    else:
        shaped = {"vocabulary": vocabulary_of(V), "schedule": SCHEDULES.build("linear", {})}
        process, gone = Absorbing(ForwardProcess.Options(), **shaped), V
    logits = torch.zeros(1, 3, process.num_states, dtype=torch.float64)
    logits[..., 1] = -torch.inf
    logits.requires_grad_()
    x, z = torch.tensor([[1, 2, 1]]), torch.tensor([[1, gone, gone]])
    t = torch.full((1, 1), 0.6, dtype=torch.float64)
    bound = process.bound_integrand(logits, x, z, t)[0]
    (slope,) = torch.autograd.grad(bound[:2].sum(), logits)
    assert slope.isfinite().all()
    assert (slope[0, 0] == 0).all()
    assert (slope[0, 1] != 0).any()
    logits, bound = logits.detach(), bound.detach()
    assert (float(bound[0]), bool(bound[1].isfinite()), float(bound[2])) == (0.0, True, torch.inf)
    clean = process.reconstruction(logits, x, z, t)[0]
    assert (float(clean[0]), float(clean[2])) == (0.0, torch.inf)
    for s in (0.3, 0.0):
        step = process.reverse(logits, z, t, torch.full((1, 1), s, dtype=torch.float64))[0]
        assert step[0].tolist() == [0, 1] + [0] * (process.num_states - 2)
        torch.testing.assert_close(step.sum(-1), torch.ones(3, dtype=torch.float64))


def test_the_start_of_a_text_that_noise_cannot_bring():
    """KL(q_1(·|x) ‖ p_1) is 0 at pure noise even for a token of no mass; before, it is finite and falls."""
    for process in (build_process("unseen", "linear", V), build("mixture", {"share": 1.0}, "linear")):
        levels = torch.tensor([0.9, 0.99, 1.0], dtype=torch.float64)[:, None]
        prior = process.prior(torch.arange(V).expand(3, V), levels)
        assert prior.isfinite().all()
        assert (prior.diff(dim=0) < 0).all()
        assert (prior[2] == 0).all()
