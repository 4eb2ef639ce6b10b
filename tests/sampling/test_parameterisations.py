"""One exact denoiser, whose logits mean p(x_i | z_{−i}) or p(x_i | z): every sampler decides the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sumi_core.corruption import PARAMETERISATIONS
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.layouts.layout import Layout
from sumi_core.models.interface import DenoiserFunction, FromLogits
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.sampler import Samples
from tests.corruption.enumerable import World
from tests.layouts.exact import blocks, one_block
from tests.sampling.two_modes import two_modes

READINGS = ["leave_one_out", "posterior"]
RULES: list[tuple[str, dict[str, Any]]] = [
    ("entropy_bound", {"entropy_bound": 0.9, "confidence": 1.2, "t_min": 0.6}),
    ("entropy_bound", {"stability": 0, "confidence": 0.9}),
    ("threshold", {"threshold": 0.6}),
    ("threshold", {"threshold": 0.8}),
]
WHOLE = [
    *RULES,
    ("confidence", {}),
    ("confidence", {"places": 1, "temperature": 0.0}),
    ("ancestral", {}),
    ("predictor_corrector", {"corrections": 2}),
]
BLOCKS = [*RULES, ("blockwise", {})]
DRAFTS: list[dict[str, Any]] = [
    {"width": 3, "draft_steps": 2},
    {"width": 3, "draft_steps": 2, "verify": "rejection"},
    {"width": 4, "recycle": True},
    {"width": 3, "shape": "fan", "recycle": True},
]
noises = pytest.mark.parametrize("noise", ["uniform", "absorbing", "hybrid", "clustered"])


def world_of(noise: str, reading: str, tokens: int = 3) -> World:
    world = World(noise, "cosine", tokens=tokens, length=4, seed=1)
    world.process.parameterisation = PARAMETERISATIONS.build(reading, {})
    return world


def drawn(
    world: World, name: str, options: dict[str, Any], layout: Layout | None, denoiser: DenoiserFunction, rows: int = 40
) -> Samples:
    context = {"process": world.process, "vocabulary": Vocabulary(world.tokens, 0), "layout": layout}
    samples: Samples = SAMPLERS.build(name, options, **context).sample(denoiser, num=rows, length=4, steps=6, seed=3)
    return samples


def assert_same(first: Samples, second: Samples) -> None:
    assert torch.equal(first.tokens, second.tokens)
    assert torch.equal(first.nfe, second.nfe)


def of_whole_texts(world: World, reading: str) -> DenoiserFunction:
    exact = {"leave_one_out": world.denoiser, "posterior": world.full_posterior_denoiser}[reading]

    def logits(z: torch.Tensor, t: torch.Tensor | None) -> torch.Tensor:
        assert t is not None
        return exact(z, t)

    return FromLogits(logits)


@noises
@pytest.mark.parametrize(("name", "options"), WHOLE, ids=str)
def test_whole_texts_are_written_alike(name: str, options: dict[str, Any], noise: str) -> None:
    worlds = [world_of(noise, reading) for reading in READINGS]
    found = [
        drawn(world, name, options, None, of_whole_texts(world, reading))
        for world, reading in zip(worlds, READINGS, strict=True)
    ]
    assert_same(*found)


@noises
@pytest.mark.parametrize("read_out", ["own", "previous"])
@pytest.mark.parametrize(("name", "options"), BLOCKS, ids=str)
def test_blocks_are_written_alike(name: str, options: dict[str, Any], read_out: str, noise: str) -> None:
    layout = blocks(4, read_out)
    worlds = [world_of(noise, reading) for reading in READINGS]
    assert_same(*(drawn(world, name, options, layout, one_block(world, layout)) for world in worlds))


@pytest.mark.parametrize("noise", ["uniform", "absorbing", "clustered"])
@pytest.mark.parametrize("read_out", ["own", "previous"])
@pytest.mark.parametrize("options", DRAFTS, ids=lambda options: "-".join(map(str, options.values())))
def test_drafts_are_the_same(options: dict[str, Any], read_out: str, noise: str) -> None:
    """Texts could not differ under shared noise, whatever is drafted; the calls that they take could."""
    layout, found = blocks(2, read_out), []
    for reading in READINGS:
        causal, drafts = world_of(noise, reading, tokens=2), World(noise, "cosine", tokens=2, length=4, seed=2)
        denoiser = two_modes(causal, drafts, read_out == "own", trusts=0.0)
        found.append(drawn(causal, "speculative", options, layout, denoiser))
    assert_same(*found)


@pytest.mark.parametrize(("name", "options"), [*RULES, ("confidence", {}), ("ancestral", {})], ids=str)
def test_one_taken_for_the_other_decides_otherwise(name: str, options: dict[str, Any]) -> None:
    """Else the tests above would say nothing."""
    world = world_of("uniform", "leave_one_out")
    found = [drawn(world, name, options, None, of_whole_texts(world, reading)) for reading in READINGS]
    assert not torch.equal(found[0].tokens, found[1].tokens)


def test_drafts_of_one_taken_for_the_other_differ() -> None:
    causal, drafts = world_of("uniform", "posterior", tokens=2), World("uniform", "cosine", tokens=2, length=4, seed=2)
    denoiser = two_modes(causal, drafts, True, trusts=0.0)
    found = []
    for reading in READINGS:
        causal.process.parameterisation = PARAMETERISATIONS.build(reading, {})
        found.append(drawn(causal, "speculative", DRAFTS[0], blocks(2), denoiser))
    assert not torch.equal(found[0].nfe, found[1].nfe)
