"""Films: what is remembered of every canvas, and what counts as a change of mind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from sumi_core.data.vocabulary import Vocabulary
from sumi_core.models.interface import FromLogits
from sumi_core.sampling import SAMPLERS, drawing
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.film import BLANK, Camera, Film
from sumi_core.sampling.sampler import Sampler
from tests.corruption.enumerable import CASES, World


def film(tokens: list[list[int]], confidence: list[list[float]], frozen: list[bool] | None = None) -> Film:
    """A film of one text."""
    return Film(
        tokens=np.array(tokens)[:, None],
        confidence=np.array(confidence, dtype=np.float32)[:, None],
        frozen=np.array([frozen or [False] * len(tokens[0])]),
        lengths=np.array([len(tokens[0])]),
        nfe=np.arange(len(tokens))[:, None],
    )


def test_a_revision_replaces_what_was_held_for_right() -> None:
    nan = float("nan")
    own = film(
        tokens=[[5, 5, 5, 5], [6, 6, 5, 5], [7, 7, 5, 9], [7, 8, 5, 9]],
        confidence=[[nan] * 4, [0.4, 0.5, 0.9, 0.9], [0.9, 0.9, 0.9, 0.9], [0.9, 0.9, 0.9, 0.9]],
        frozen=[False, False, True, False],
    )
    #            noise → noise, twice a change of mind, given, started as noise that was given probability ½ or more
    assert own.revised().sum(0).tolist() == [[0, 2, 0, 1]]
    assert own.changed().sum(0).tolist() == [[2, 3, 0, 1]]
    assert own.age()[:, 0].tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 2, 0], [1, 0, 3, 1]]
    assert own.written.tolist() == [[True, True, False, True]]


def writer_of(world: World, name: str = "ancestral") -> Sampler:
    made: Sampler = SAMPLERS.build(name, {}, process=world.process, vocabulary=Vocabulary(world.tokens, 0))
    return made


def run(world: World, watch: Callable[[Canvas], None], steps: int = 6, num: int = 40) -> None:
    writer_of(world).sample(FromLogits(world.denoiser), num=num, length=world.length, steps=steps, seed=3, watch=watch)


@pytest.mark.parametrize(("process", "schedule"), CASES)
def test_confidence_is_the_exact_posterior_of_what_stands(process: str, schedule: str) -> None:
    """With the exact denoiser: p(x_i = token | z), by enumeration; what could only stay keeps what it had."""
    world = World(process, schedule)
    canvases: list[Canvas] = []
    run(world, canvases.append)
    levels = torch.linspace(1, 0, 7, dtype=torch.float64)
    compared = 0
    for t, before, after in zip(levels, canvases, canvases[1:], strict=False):
        posterior = torch.nn.functional.pad(
            world.posterior(before.tokens, t.expand(len(before.tokens))), (0, world.states - world.tokens)
        )
        exact = posterior.gather(-1, world.process.shown(after.tokens)[..., None])[..., 0]
        known = after.confidence
        stays = (after.tokens == before.tokens) & (known.isnan() | (known == before.confidence))
        torch.testing.assert_close(known[~stays], exact[~stays])
        compared += int((~stays).sum())
    assert compared > 100
    if process == "uniform":  # nothing can only stay
        assert compared == 6 * canvases[0].tokens.numel()


def shot(world: World) -> Film:
    camera = Camera()
    run(world, camera)
    return camera.film(writer_of(world))


def test_masks_are_written_once_and_uniform_noise_changes_its_mind() -> None:
    masked, uniform = shot(World("absorbing")), shot(World("uniform"))
    assert not masked.revised().any()
    assert masked.changed().sum(0).max() == 1
    assert uniform.revised().any()


def test_a_token_that_is_no_longer_in_doubt_has_not_changed() -> None:
    """Noise that marks what it may have hit: a reader sees the token, whether it is marked or not."""
    world = World("absorbing_uniform")
    canvases: list[Canvas] = []
    run(world, canvases.append)
    film = shot(world)
    assert film.tokens.max() < world.tokens
    states = torch.stack([canvas.tokens for canvas in canvases]).numpy()
    settled = (states[1:] != states[:-1]) & (states[1:] == states[:-1] - world.tokens)
    assert settled.any()
    assert not (film.changed()[1:] & settled).any()


def test_a_text_that_grows_is_blank_where_nothing_stands() -> None:
    writer: Sampler = SAMPLERS.build("left_to_right", {}, process=None, vocabulary=Vocabulary(4, 0))
    flat, camera = FromLogits(lambda z, t: torch.zeros(*z.shape, 4)), Camera()
    writer.sample(flat, num=1, length=4, steps=1, seed=0, prompt=torch.tensor([2]), watch=camera)
    found = camera.film(writer)
    assert [[token == BLANK for token in frame] for frame in found.tokens[:, 0].tolist()] == [
        [False, *(place >= step for place in range(3))] for step in range(4)
    ]
    assert not found.revised().any()


def test_rows_that_are_drawn_after_each_other_are_one_film(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of unequal length, so that one canvas of two rows is narrower than the other."""
    world, camera, whole = World("uniform"), Camera(), Camera()
    writer = writer_of(world)
    wanted: dict[str, Any] = {"num": 4, "length": [2, 2, 1, 1], "steps": 3, "seed": 5}
    denoiser = FromLogits(lambda z, t: torch.zeros(*z.shape, world.states))
    samples = writer.sample(denoiser, **wanted, watch=whole)
    monkeypatch.setattr(drawing, "_BLOCK_ENTRIES", 2 * 2 * world.states)
    writer.sample(denoiser, **wanted, watch=camera)
    film = camera.film(writer)
    assert film.tokens.shape == (4, 4, 2)
    place = np.arange(2) < film.lengths[:, None]
    assert (film.tokens[-1] == samples.tokens.numpy())[place].all()
    assert (film.tokens == whole.film(writer).tokens)[:, place].all()
    assert (film.tokens[:, ~place] == BLANK).all()
    with pytest.raises(ValueError, match="at least one canvas"):
        Camera().film(writer)


@pytest.mark.parametrize(("process", "schedule"), CASES)
def test_the_belief_in_a_token_is_the_posterior_of_all_at_that_token(process: str, schedule: str) -> None:
    world = World(process, schedule)
    z = world.z.repeat(3, 1)
    t = torch.tensor([0.0, 0.3, 1.0]).double().repeat_interleave(len(world.z))[:, None]
    token = torch.randint(world.states, z.shape, generator=torch.Generator().manual_seed(1))
    logits = torch.randn(*z.shape, world.states, generator=torch.Generator().manual_seed(2)).double()
    wanted = world.process.log_posterior(logits, z, t).exp().gather(-1, world.process.shown(token)[..., None])[..., 0]
    found = world.process.belief(logits, z, t, token)
    known = ~wanted.isnan()
    torch.testing.assert_close(found[known], wanted[known])
