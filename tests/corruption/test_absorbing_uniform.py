"""AUDM: uniform noise at every level once its marks are taken off, and absorbing noise with them."""

from __future__ import annotations

import pytest
import torch

from sumi_core.base.options import ConfigError
from sumi_core.data.noise import Noise
from sumi_core.experiments.resolve import resolve
from tests.corruption.enumerable import World, build_process, expected_bound

V = 5


def level(t: float) -> torch.Tensor:
    return torch.tensor([[t]], dtype=torch.float64)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.999, 1.0])
def test_without_its_marks_it_is_uniform_noise(t: float) -> None:
    marked, uniform = (build_process(name, "cosine", V) for name in ("absorbing_uniform", "uniform"))
    clean = torch.eye(V, dtype=torch.float64)[None]
    states = marked.marginal(torch.cat([clean, torch.zeros_like(clean)], -1), level(t))
    torch.testing.assert_close(states[..., :V] + states[..., V:], uniform.marginal(clean, level(t)))


def test_what_is_certain_is_right_and_what_is_suspected_may_be() -> None:
    process = build_process("absorbing_uniform", "linear", V)
    x = torch.arange(V).expand(4000, V)
    z = process.corrupt(x, level(0.6), Noise(0, "corrupt", 0, range(4000)))
    certain = z < V
    assert torch.equal(z[certain], x[certain])
    assert float(certain.double().mean()) == pytest.approx(0.4 * (V - 1) / V, abs=0.01)
    assert float((z[~certain] - V == x[~certain]).double().mean()) == pytest.approx(1 / (1 + (V - 1) * 0.6), abs=0.01)
    assert torch.equal(process.corrupt(x, level(0.0), Noise(0, "corrupt", 0, range(4000))), x)


def test_the_bound_is_on_the_scale_of_the_other_processes() -> None:
    """A predictor that ignores what stands there, the tokens' frequencies, pays its cross-entropy under each."""
    bounds = []
    for name in ("absorbing_uniform", "uniform", "absorbing"):
        world = World(name, "linear", tokens=3, length=2)
        counts = torch.zeros(2, world.states, dtype=torch.float64)
        for i in range(2):
            counts[i].index_add_(0, world.x[:, i], world.p)
        logits = counts.log()
        terms = expected_bound(world, lambda z, t, logits=logits: logits.expand(len(z), -1, -1), 1e-4)
        bounds.append(sum(terms.values()))
    cross_entropy = float(torch.special.entr(counts).sum())
    assert bounds == pytest.approx([cross_entropy] * 3, abs=2e-3)
    assert cross_entropy > world.entropy + 0.01


def test_a_corrector_of_any_position_is_refused() -> None:
    plain = {"process": "absorbing_uniform", "schedule": "linear"}
    resolve(plain, "test.yaml")
    with pytest.raises(ConfigError, match="learns nothing of those that are certain; choose ancestral"):
        resolve(plain | {"evaluation": {"sampler": "predictor_corrector"}}, "test.yaml")
