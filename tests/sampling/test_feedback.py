"""A sampler gives each step what the one before predicted, row by row: it draws from the model with that memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sumi_core.corruption.belief import BeliefReader
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserInput, DenoiserOutput, Feedback
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.generate import generate
from tests.corruption.enumerable import World, build_process, chi_square, vocabulary_of
from tests.models.stock import lively, small
from tests.objectives.test_feedback_bounds import Double, arbitrary, pairs, world

TOKENS, LENGTH = 36, 6


def sampler(process: Any, tokens: int) -> Any:
    return SAMPLERS.build("ancestral", {}, process=process, vocabulary=vocabulary_of(tokens))


def network(process: Any, form: str) -> Denoiser:
    options = {"name": form, "reading": "own"}
    return lively(Denoiser(small(feedback=options), process.num_states))


class Watching(Double):
    def __call__(self, given: DenoiserInput) -> DenoiserOutput:
        output = super().__call__(given)
        self.passes = [*getattr(self, "passes", []), (given, output.logits())]
        return output


def test_each_step_is_given_what_the_one_before_predicted_read_at_the_text_as_it_stands() -> None:
    w, plain = world(), arbitrary()
    watching = Watching(plain.without, plain.beside)
    drawn = sampler(w.process, 3).sample(watching, num=4, length=2, steps=3, seed=1)
    assert drawn.nfe.tolist() == [3, 3, 3, 3], "feedback costs no call"
    (first, _), *others = watching.passes
    assert first.feedback is None
    for (_, predicted), (given, _) in zip(watching.passes, others, strict=False):
        assert given.level is not None
        read = BeliefReader(w.process, given.tokens, given.level[:, None])
        p, chance = read(predicted.flatten(0, 1), slice(0, 8), "leave_one_out")
        torch.testing.assert_close(given.feedback.mean.flatten(0, 1), p)
        entropy = -(p * p.log()).sum(-1) / torch.tensor(3.0).double().log()
        torch.testing.assert_close(given.feedback.weight.flatten(), chance * entropy)


def test_texts_are_drawn_from_the_model_with_that_memory() -> None:
    """Two steps, enumerated: the second one's prediction depends on the text that the first one saw."""
    w, denoiser = world(), arbitrary()
    process, half, one = w.process, torch.full((1, 1), 0.5).double(), torch.ones(1, 1).double()
    z, later = pairs()  # as they stand at the second step, and stood at the first

    def joint(table: Tensor) -> Tensor:
        return (table[:, 0, :, None] * table[:, 1, None, :]).flatten(1)

    first = joint(process.reverse(denoiser.without(w.z, one[:, 0].expand(9)), w.z, one, half))  # [z_2, z_1]
    predicted = denoiser.without(later, one[:, 0].expand(81))
    read = BeliefReader(process, z, half)
    p, chance = read(predicted.flatten(0, 1), slice(0, 162), "leave_one_out")
    weight = chance * torch.special.entr(p).sum(-1) / torch.tensor(3.0).double().log()
    fed = Feedback(p.view(81, 2, 3), weight.view(81, 2))
    logits = denoiser.beside(z, half[:, 0].expand(81), fed)
    second = joint(process.reverse(logits, z, half, torch.zeros(1, 1).double())).view(9, 9, 9)  # [z_1, z_2, x]
    expected = torch.einsum("ab,bax->x", first / 9, second)
    texts = sampler(process, 3).sample(denoiser, num=6000, length=2, steps=2, seed=2).tokens
    assert chi_square(texts[:, 0] * 3 + texts[:, 1], expected) > 1e-3
    forgetful = joint(
        process.reverse(denoiser.without(w.z, half[:, 0].expand(9)), w.z, half, torch.zeros(1, 1).double())
    )
    assert chi_square(texts[:, 0] * 3 + texts[:, 1], (first / 9).sum(0) @ forgetful) < 1e-6


@pytest.mark.parametrize("form", ["residual_context", "self_conditioning"])
@pytest.mark.parametrize("process", ["uniform", "absorbing"])
def test_a_row_is_the_same_text_in_any_company(process: str, form: str) -> None:
    built = build_process(process, num_tokens=TOKENS)
    denoiser, drawing = network(built, form), sampler(built, TOKENS)
    prompt, nothing = torch.tensor([3, 5]), torch.empty(0, dtype=torch.int64)
    every = Canvas.blank([nothing, prompt, nothing], [4, LENGTH, LENGTH], seed=3, steps=4)
    alone = Canvas.blank([prompt], [LENGTH], seed=3, steps=4, rows=[1])
    together, single = ([*generate(drawing, denoiser, canvas)] for canvas in (every, alone))
    for a, b in zip(together, single, strict=True):
        assert torch.equal(a.tokens[1], b.tokens[0])
    again = drawing.step(denoiser, together[2])
    assert torch.equal(again.tokens, together[3].tokens), "a step changes nothing that an earlier canvas says"


def test_given_tokens_have_no_feedback() -> None:
    w, plain = World("uniform", tokens=3), arbitrary()
    watching = Watching(plain.without, plain.beside)
    canvas = Canvas.blank([torch.tensor([1])] * 2, [2, 2], seed=0, steps=2)
    _ = [*generate(sampler(w.process, 3), watching, canvas)]
    feedback = watching.passes[1][0].feedback
    assert bool((feedback.weight[:, 0] == 0).all())
    assert bool((feedback.weight[:, 1] > 0).all())
