"""Where the steps lie: every grid leads to p, and options of a later date leave fingerprints as they were."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from sumi_core.base.options import ConfigError
from sumi_core.experiments.resolve import resolve
from sumi_core.stages.identity import stage_fingerprint
from tests.corruption.enumerable import World
from tests.sampling.test_ancestral import build, total_variation

KNOTS = {"noise": [0.1, 0.5, 0.9], "weight": [1.0, 3.0, 0.5]}
GRIDS: list[dict[str, Any]] = [
    {"name": "linear"},
    {"name": "cosine"},
    {"name": "log_snr", "limit": 6.0},
    {"name": "fitted", **KNOTS},
]
each_grid = pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid["name"])


def chain_distribution(world: World, levels: torch.Tensor) -> torch.Tensor:
    """Where the chain ends, exactly."""
    distribution = world.pi[world.z].prod(-1)
    for t, s in itertools.pairwise(levels):
        logits = world.denoiser(world.z, t.expand(len(world.z)))
        probs = world.process.reverse(logits, world.z, t.view(1, 1), s.view(1, 1))
        moved = torch.stack([probs[:, i, world.z[:, i]] for i in range(world.length)]).prod(0)
        distribution = distribution @ moved.nan_to_num(0.0)
    return distribution


@each_grid
@pytest.mark.parametrize(("process", "schedule"), [("uniform", "cosine"), ("absorbing", "linear"), ("hybrid", "sqrt")])
def test_the_distribution_comes_to_p_on_every_grid(process: str, schedule: str, grid: dict[str, Any]) -> None:
    world = World(process, schedule)
    sampler = build(world.process, grid=grid)
    distances = [total_variation(world, chain_distribution(world, sampler.levels(n))) for n in (4, 16, 64)]
    assert distances[0] > 0.02
    assert all(fine < 0.5 * coarse for coarse, fine in itertools.pairwise(distances))
    assert distances[-1] < 0.02


@each_grid
def test_a_grid_is_a_schedule_of_alpha_whatever_the_models_own_is(grid: dict[str, Any]) -> None:
    worlds = [World("uniform", schedule) for schedule in ("linear", "cosine", "sqrt")]
    alphas = [w.process.alpha(build(w.process, grid=grid).levels(9)) for w in worlds]
    for other in alphas[1:]:
        torch.testing.assert_close(other, alphas[0], rtol=0, atol=1e-12)
    assert alphas[0][0] == 0
    assert alphas[0][-1] == 1
    assert bool((alphas[0].diff() > 0).all())


def test_what_the_grids_are() -> None:
    world = World("uniform", "sqrt")
    linear, cosine = (
        world.process.alpha(build(world.process, grid={"name": name}).levels(4)).tolist()
        for name in ("linear", "cosine")
    )
    assert linear == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert cosine == pytest.approx([1 - torch.tensor(k * torch.pi / 8).cos().item() for k in range(5)], abs=1e-7)


def experiment(**sampler: Any) -> Any:
    plain = {"process": "uniform", "schedule": "linear", "evaluation": {"sampler": {"name": "ancestral", **sampler}}}
    return resolve(plain, "test.yaml")


def test_a_later_option_enters_fingerprints_where_it_is_used() -> None:
    def fingerprint(**sampler: Any) -> str:
        return stage_fingerprint(experiment(**sampler), "evaluation")

    plain = experiment().identity()["evaluation"]["sampler"]
    assert plain == {"name": "ancestral", "spacing": "time"}, "what it was before it had them"
    assert fingerprint() == fingerprint(grid=None, temperature=1.0, top_k=0, greedy_tail=0)
    used = [{"grid": "linear"}, {"grid": "cosine"}, {"temperature": 0.9}, {"top_k": 3}, {"greedy_tail": 1}]
    assert len({fingerprint(**options) for options in [{}, *used]}) == 1 + len(used)
    assert experiment(grid="linear").identity()["evaluation"]["sampler"]["grid"] == {"name": "linear"}


def test_two_places_for_the_steps_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        experiment(grid="linear", spacing="log_snr")
    told = "test.yaml: evaluation.sampler: grid says where the steps lie; leave spacing out, or the grid"
    assert str(caught.value) == told
    with pytest.raises(ConfigError, match=r"evaluation.sampler.grid: no noise schedule is called 'linaer'"):
        experiment(grid="linaer")
