"""One bound, many ways to write it: the shipped forms against the general ones and against the definition."""

import pytest
import torch

from sumi_core.corruption.interpolating import Interpolating
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.noise import Noise
from tests.corruption.enumerable import CASES, NAMES, build_process, reference_integrand, tokens_among

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
@pytest.mark.parametrize(("name", "schedule"), CASES)
def test_shipped_general_and_defined_forms_agree(name, schedule, per_position):
    """The closed form, the KL divergence between reverse rates that any process inherits, and that by hand."""
    process = build_process(name, schedule, V)
    logits, x, z, t = draw(process, per_position=per_position)
    shipped = process.bound_integrand(logits, x, z, t)
    assert shipped.shape == (B, L)
    torch.testing.assert_close(shipped, ForwardProcess.leave_one_out_loss(process, x, z, t).of(logits), **CLOSE)
    torch.testing.assert_close(shipped, reference_integrand(name, process.schedule, logits, x, z, t), **CLOSE)
    if isinstance(process, Interpolating):
        torch.testing.assert_close(shipped, Interpolating.leave_one_out_loss(process, x, z, t).of(logits), **CLOSE)


@pytest.mark.parametrize("per_position", [False, True])
@pytest.mark.parametrize(("name", "schedule"), CASES)
def test_everything_else_agrees_with_the_general_forms(name, schedule, per_position):
    process = build_process(name, schedule, V)
    logits, x, z, t = draw(process, per_position=per_position)
    for method, arguments in [
        ("reconstruction", (logits, x, z, t)),
        ("prior", (x, t)),
        ("likelihood", (z, x, t)),
        ("reverse", (logits, z, t, 0.8 * t)),
        ("reverse", (logits, z, t, torch.zeros_like(t))),
        ("between", (x, z, t, 0.8 * t)),
        ("log_joint", (logits, z, t)),
    ]:
        shipped = getattr(process, method)(*arguments)
        assert shipped.shape[:2] == (B, L)
        torch.testing.assert_close(shipped, getattr(ForwardProcess, method)(process, *arguments), **CLOSE)
        if isinstance(process, Interpolating):
            torch.testing.assert_close(shipped, getattr(Interpolating, method)(process, *arguments), **CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_per_token_levels_equal_separate_sequences(name):
    """A level per position is what each position would get on its own: the broadcast is over positions, not states."""
    process = build_process(name, "cosine", V)
    logits, x, z, t = draw(process, per_position=True)
    together = process.bound_integrand(logits, x, z, t)
    for i in range(B):
        for j in range(L):
            alone = process.bound_integrand(
                logits[i, j][None, None], x[i, j][None, None], z[i, j][None, None], t[i, j][None, None]
            )
            torch.testing.assert_close(alone.squeeze(), together[i, j], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_square_shapes_do_not_mix_batch_and_position(name):
    """B = L = S, where [B, 1] against [L] would broadcast silently: rows must not see each other's level.

    A published hybrid multiplied [B, 1] by [B, L, V] in its reverse step.
    """
    n = 6
    process = build_process(name, "linear", tokens_among(name, n))
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(n, n, n, generator=generator, dtype=torch.float64)
    x = torch.randint(process.num_tokens, (n, n), generator=generator)
    z = process.corrupt(x, torch.full((1, 1), 0.6), Noise(3, "corrupt", 0, range(n)))
    t = torch.linspace(0.1, 0.9, n, dtype=torch.float64)[:, None]
    for function in (process.bound_integrand, process.reconstruction):
        alone = torch.cat([function(logits[i : i + 1], x[i : i + 1], z[i : i + 1], t[i : i + 1]) for i in range(n)])
        torch.testing.assert_close(function(logits, x, z, t), alone)
    alone = torch.cat(
        [process.reverse(logits[i : i + 1], z[i : i + 1], t[i : i + 1], t[i : i + 1] / 2) for i in range(n)]
    )
    torch.testing.assert_close(process.reverse(logits, z, t, t / 2), alone)
