"""A causal pattern that opens by degrees: what each step sees is a function of seed and step, from causal to open."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from sumi_core.layouts import LAYOUTS
from sumi_core.layouts.layout import Opening, Whole
from sumi_core.models.attention import Bidirectional
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserInput
from tests.models.stock import STATES, lively, small

LENGTH = 12
TEXT = torch.randint(STATES, (2, LENGTH), generator=torch.Generator().manual_seed(3))


def annealed(steps: int | None = 20, seed: int = 0) -> Whole:
    layout: Whole = LAYOUTS.build("whole", {"anneal": 0.5}, steps=steps, seed=seed)
    return layout


def logits(layout: object, denoiser: Denoiser) -> torch.Tensor:
    with torch.no_grad():
        return layout.of(denoiser, TEXT, 0)(DenoiserInput(TEXT)).logits()  # type: ignore[attr-defined, no-any-return]


def test_it_begins_causal_and_ends_open() -> None:
    """A denoiser of the same weights gives a causal model's logits at the first step, and its own from half on."""
    open_ = lively(Denoiser(small(attention="bidirectional"), STATES)).double()
    causal = Denoiser(small(attention="causal"), STATES).double()
    causal.load_state_dict(open_.state_dict())
    open_.requires_grad_(False)
    causal.requires_grad_(False)
    layout = annealed()
    torch.testing.assert_close(logits(layout.at(0), open_), causal.logits(TEXT), rtol=0, atol=1e-12)
    for step in (10, 19):
        assert layout.at(step) is layout
    assert logits(layout.at(10), open_).equal(open_.logits(TEXT))
    between = logits(layout.at(5), open_)
    assert float((between - open_.logits(TEXT)).abs().max()) > 1e-3
    assert float((between - causal.logits(TEXT)).abs().max()) > 1e-3


def test_the_share_that_is_open_rises_with_the_steps_and_nothing_before_is_hidden() -> None:
    length, layout = 200, annealed()
    ahead = torch.ones(length, length, dtype=torch.bool).triu(1)
    for step in range(10):
        opening = layout.at(step)
        assert isinstance(opening, Opening)
        mask = opening.mask(length)
        assert mask[~ahead].all()
        share, count = step / 10, int(ahead.sum())
        deviation = (share * (1 - share) / count) ** 0.5
        assert abs(float(mask[ahead].double().mean()) - share) <= 5 * deviation


def test_the_pairs_are_a_function_of_seed_and_step() -> None:
    def mask(step: int, seed: int = 0) -> torch.Tensor:
        opening = annealed(seed=seed).at(step)
        assert isinstance(opening, Opening)
        return opening.mask(LENGTH)

    assert mask(5).equal(mask(5)), "as after a resumption"
    assert not mask(5).equal(mask(6))
    assert not mask(5).equal(mask(5, seed=1))


def test_a_finished_model_sees_everything() -> None:
    assert annealed(steps=None).at(0).options.anneal == 0.5
    denoiser = Denoiser(small(attention="bidirectional"), STATES)
    assert annealed(steps=None).of(denoiser, TEXT, 0) is denoiser
    assert annealed(steps=None).at(0).of(denoiser, TEXT, 0) is denoiser


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_keys_that_are_counted_are_those_of_the_masks(share: float) -> None:
    """Long texts, many steps: where a causal pattern counts as half of the square."""
    length, steps = 200, 40
    layout: Whole = LAYOUTS.build("whole", {"anneal": share}, steps=steps)
    seen = []
    for step in range(steps):
        shown = layout.at(step)
        seen.append(float(shown.mask(length).sum()) / length if isinstance(shown, Opening) else float(length))
    assert layout.keys(length, Bidirectional()) == pytest.approx(sum(seen) / steps, rel=0.02)


def test_what_a_step_is_given_stays_but_for_the_pattern() -> None:
    given = DenoiserInput(TEXT, torch.tensor([0.5, 0.25]))
    asked: list[DenoiserInput] = []
    with pytest.raises(ZeroDivisionError):
        annealed().at(3).of(lambda shown: asked.append(shown) or 1 // 0, TEXT, 0)(given)  # type: ignore[func-returns-value, return-value, arg-type]
    assert dataclasses.replace(asked[0], pattern=None) == dataclasses.replace(given, pattern=None)
