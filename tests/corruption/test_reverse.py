"""The reverse step against Bayes' rule by brute force."""

import pytest
import torch

from sumi_core.corruption.process import ForwardProcess
from tests.corruption.enumerable import CASES, NAMES, build_process, kernel_of

V = 5
LEVELS = [(1.0, 0.6), (0.9, 0.899), (0.5, 0.1), (0.3, 0.0), (1.0, 0.0), (1e-3, 1e-6)]


def level(value):
    return torch.full((1, 1), value, dtype=torch.float64)


def every_state(process, seed=0):
    z = torch.arange(process.num_states)[None]
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, process.num_states, process.num_states, generator=generator, dtype=torch.float64), z


@pytest.mark.parametrize(("t", "s"), LEVELS)
@pytest.mark.parametrize(("name", "schedule"), CASES)
def test_reverse_is_bayes_rule(name, schedule, t, s):
    """p(z_s = y | z_t = z) from the joint Σ_x p(x) q_s(y|x) q_{t|s}(z|y), every kernel written out."""
    process = build_process(name, schedule, V)
    logits, z = every_state(process)
    alpha_t, alpha_s = (process.schedule.alpha(level(v)).squeeze() for v in (t, s))
    to_s, s_to_t = kernel_of(name, V, alpha_s), kernel_of(name, V, alpha_t, alpha_s)  # [x, y], [y, z]
    p = torch.zeros_like(logits[0])
    p[:, :V] = logits[0, :, :V].softmax(-1)
    joint = torch.stack([(p[i] @ to_s) * s_to_t[:, i] for i in range(process.num_states)])
    probs = process.reverse(logits, z, level(t), level(s))
    assert probs.dtype == torch.float64
    torch.testing.assert_close(probs.sum(-1), torch.ones(1, process.num_states, dtype=torch.float64))
    assert (probs >= 0).all()
    possible = joint.sum(-1) > 0  # an absorbing process at t = 1 holds nothing but masks
    expected = joint[possible] / joint[possible].sum(-1, keepdim=True)
    torch.testing.assert_close(probs[0][possible], expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("t", "s"), LEVELS[1:4])
@pytest.mark.parametrize(("process", "schedule"), CASES)
def test_general_reverse_step_agrees(process, schedule, t, s):
    process = build_process(process, schedule, V)
    logits, z = every_state(process)
    arguments = (logits, z, level(t), level(s))
    torch.testing.assert_close(process.reverse(*arguments), ForwardProcess.reverse(process, *arguments))


def test_tokens_stay_under_absorbing_noise_whatever_the_denoiser_thinks():
    """Even where the denoiser gives the standing token no probability at all (0/0 in the general formula)."""
    process = build_process("absorbing", "linear", V)
    logits = torch.zeros(1, 3, V + 1, dtype=torch.float64)
    logits[0, 0, 2] = -torch.inf
    probs = process.reverse(logits, torch.tensor([[2, V, 0]]), level(0.5), level(0.2))
    assert probs[0, 0].tolist() == [0, 0, 1, 0, 0, 0]
    assert float(probs[0, 1, V]) == pytest.approx(0.2 / 0.5)


@pytest.mark.parametrize("name", NAMES)
def test_levels_per_position_match_each_alone(name):
    process = build_process(name, "linear", V)
    logits, z = every_state(process)
    t = torch.linspace(0.5, 0.9, process.num_states, dtype=torch.float64)[None]
    together = process.reverse(logits, z, t, t / 2)
    for i in range(process.num_states):
        alone = process.reverse(logits[:, i : i + 1], z[:, i : i + 1], t[:, i : i + 1], t[:, i : i + 1] / 2)
        torch.testing.assert_close(alone, together[:, i : i + 1])


@pytest.mark.parametrize("name", NAMES)
def test_reverse_is_exact_in_float64_from_float32_logits(name):
    process = build_process(name, "linear", V)
    logits, z = every_state(process)
    arguments = (z, level(0.5), level(0.4))
    torch.testing.assert_close(
        process.reverse(logits.float(), *arguments),
        process.reverse(logits.float().double(), *arguments),
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name != "mixture-0"])
def test_the_model_card_says_whether_tokens_may_change(name):
    process = build_process(name, "linear", V)
    logits, z = every_state(process)
    stays = process.reverse(logits, z, level(0.5), level(0.4))[0, :V].diagonal()[:V]
    assert ("once written stays" in process.description) == bool((stays == 1).all())
    assert ("mask" in process.description) == (process.mask_id is not None)
