"""Writing one position at a time: distributions that sum to one, and the chain rule of exact denoisers."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from torch import Tensor

from sumi_core.data.batch import Batch
from sumi_core.models.interface import FromLogits
from sumi_core.objectives.orders import InOrder, Order
from tests.corruption.enumerable import Denoiser, World, expected_bound

ORDERS: tuple[Order, ...] = ("left_to_right", "confidence_ordered")
EPSILON = 1e-3


def nats_of(world: World, denoiser: Denoiser, order: Order, canvas: int = 0, told: bool = False) -> Tensor:
    """Nats of every text of the world, all on one canvas."""
    count = len(world.x)
    batch = Batch(world.x, torch.full((count,), canvas), torch.arange(count), count, 0, 3)
    return InOrder(world.process, order, told=told)(FromLogits(denoiser), batch, EPSILON).total  # type: ignore[arg-type]


def any_network(world: World) -> Denoiser:
    """Logits that depend on the whole text and on the level, and are right about nothing."""
    table = torch.randn(len(world.z), world.length, world.states, generator=torch.Generator().manual_seed(4)).double()

    def denoiser(z: Tensor, t: Tensor) -> Tensor:
        number = (z * world.states ** torch.arange(world.length - 1, -1, -1)).sum(-1)
        level = t if t.ndim == 1 else t.mean(-1)
        return table[number] * (1 + level[:, None, None])

    return denoiser


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("process", ["absorbing", "hybrid", "uniform", "absorbing_uniform", "clustered"])
def test_every_order_is_a_distribution_of_texts_and_costs_no_less_than_the_entropy(
    process: str, order: Order, told: bool
) -> None:
    """Of any network, on every canvas. The mean over texts is then a cross-entropy."""
    world = World(process, tokens=3, length=3)
    found = [nats_of(world, any_network(world), order, canvas, told) for canvas in range(3)]
    for nats in found:
        assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-9)
        assert float(world.p @ nats) > world.entropy + 0.1
    certain = process in ("absorbing", "hybrid")
    assert InOrder(world.process, order).exact == certain
    assert all(torch.equal(nats, found[0]) for nats in found) == certain


def test_the_orders_differ() -> None:
    world = World("absorbing", tokens=3, length=3)
    left, sure = (nats_of(world, any_network(world), order) for order in ORDERS)
    assert (left - sure).abs().max() > 0.1


@pytest.mark.parametrize("order", ORDERS)
def test_the_exact_denoiser_of_masks_has_the_chain_rule_in_every_order(order: Order) -> None:
    """Each factor is p(x_i | what is written), so that their product is p(x), whatever the order."""
    world = World("absorbing", tokens=4, length=3)
    nats = nats_of(world, world.denoiser, order)
    torch.testing.assert_close(nats, -world.p.log(), rtol=0, atol=1e-9)
    assert float(world.p @ nats) == pytest.approx(world.entropy, abs=1e-9)


def cost_of_order(world: World, denoiser: Denoiser, order: tuple[int, ...]) -> Tensor:
    """−log p of every text, written in one order over masks: ``[M]``."""
    mask, nats = world.states - 1, torch.zeros(len(world.x), dtype=torch.float64)
    z = torch.full_like(world.x, mask)
    for place in order:
        log_p = denoiser(z, torch.ones(len(z)))[:, place, : world.tokens].log_softmax(-1)
        nats -= log_p.gather(-1, world.x[:, place, None])[:, 0]
        z = z.clone()
        z[:, place] = world.x[:, place]
    return nats


def test_random_orders_are_all_orders_equally_often() -> None:
    """Each text costs what one order costs, and none is preferred."""
    world = World("absorbing", tokens=3, length=3)
    told = any_network(world)

    def network(z: Tensor, t: Tensor) -> Tensor:
        return told(z, torch.ones_like(t))

    costs = {order: cost_of_order(world, network, order) for order in itertools.permutations(range(3))}
    drawn: Counter[tuple[int, ...]] = Counter()
    for canvas in range(300):
        nats = nats_of(world, network, "random_order", canvas)
        [same] = [order for order, own in costs.items() if torch.allclose(own, nats, rtol=0, atol=1e-9)]
        drawn[same] += 1
    assert len(drawn) == 6
    assert max(drawn.values()) < 80
    assert not InOrder(world.process, "random_order").exact


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_bound_of_masks_is_the_mean_cost_of_all_orders(schedule: str) -> None:
    """For every text, of any network that is given no level, right or wrong, under any schedule; single orders cost
    more and less."""
    world = World("absorbing", schedule, tokens=2, length=3)
    told = any_network(world)

    def network(z: Tensor, t: Tensor) -> Tensor:
        return told(z, torch.zeros_like(t))

    def bounds(denoiser: Denoiser) -> Tensor:
        texts = torch.eye(len(world.x), dtype=torch.float64)
        found = [sum(expected_bound(world, denoiser, 1e-7, 100, p=text).values()) for text in texts]
        return torch.tensor(found, dtype=torch.float64)

    costs = torch.stack([cost_of_order(world, network, order) for order in itertools.permutations(range(3))])
    torch.testing.assert_close(bounds(network), costs.mean(0), rtol=0, atol=2e-6)
    assert bool((costs.amax(0) - costs.amin(0) > 0.05).all())
    assert (
        abs(sum(expected_bound(world, told, 1e-7, 100).values()) - float(world.p @ costs.mean(0))) > 1e-3
    )  # told: another


def test_uniform_noise_has_no_such_orders() -> None:
    """The same network, written over random tokens: its bound is no mean over orders of what it predicts there."""
    world = World("uniform", tokens=3, length=2)
    told = any_network(world)
    bound = sum(expected_bound(world, lambda z, t: told(z, torch.zeros_like(t)), 1e-7, 160).values())
    on_noise = []
    for order in itertools.permutations(range(2)):
        for begun in world.z:
            z, nats = begun.expand(len(world.x), -1).clone(), torch.zeros(len(world.x), dtype=torch.float64)
            for place in order:
                log_p = told(z, torch.zeros(len(z)))[:, place].log_softmax(-1)
                nats -= log_p.gather(-1, world.x[:, place, None])[:, 0]
                z[:, place] = world.x[:, place]
            on_noise.append(float(world.p @ nats))
    assert abs(sum(on_noise) / len(on_noise) - bound) > 0.01


@pytest.mark.parametrize("order", ORDERS)
def test_a_denoiser_that_takes_what_is_written_for_noise_costs_more(order: Order) -> None:
    """The exact one of uniform noise under one level for all: a bound above the entropy on every canvas."""
    world = World("uniform", tokens=3, length=3)
    means = [float(world.p @ nats_of(world, world.denoiser, order, canvas)) for canvas in range(8)]
    assert min(means) > world.entropy
    assert max(means) - min(means) > 1e-3


def test_tokens_are_read_left_to_right_by_the_causal_factors() -> None:
    """The nats of each position are those of p(x_i | x_{<i})."""
    world = World("absorbing", tokens=3, length=3)
    batch = Batch(world.x, torch.zeros(27, dtype=torch.int64), torch.arange(27), 27, 0, 0)
    reading = InOrder(world.process, "left_to_right")
    nats = reading.by_position(FromLogits(world.denoiser), batch, EPSILON)  # type: ignore[arg-type]
    joint = world.p.reshape(3, 3, 3)
    prefixes = [joint.sum((1, 2)), joint.sum(2), joint]
    before = torch.ones(27, dtype=torch.float64)
    for position, table in enumerate(prefixes):
        together = table[tuple(world.x[:, : position + 1].T)]
        torch.testing.assert_close(nats[:, position], -(together / before).log(), rtol=0, atol=1e-9)
        before = together
