"""A sampler gives each step what the one before predicted, row by row: it draws from the model with that memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sumi_core.corruption.belief import BeliefReader
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserInput, DenoiserOutput, Feedback, FromLogits
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.generate import generate
from tests.corruption.enumerable import World, build_process, chi_square, vocabulary_of
from tests.layouts.exact import blocks
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


# --- block by block -------------------------------------------------------------------------------------------------


class Remembering(torch.nn.Module):
    """Remembers what it was given; ``caches`` may be switched off."""

    takes_feedback = True

    def __init__(self, denoiser: Denoiser, caches: bool) -> None:
        super().__init__()
        self.denoiser, self.caches, self.feedback = denoiser, caches, denoiser.feedback
        self.given: list[DenoiserInput] = []

    def forward(self, given: DenoiserInput) -> DenoiserOutput:
        self.given.append(given)
        output: DenoiserOutput = self.denoiser(given)
        return output


def of_blocks(read_out: str, form: str, *, caches: bool = True) -> tuple[Any, Remembering]:
    process = build_process("uniform", num_tokens=TOKENS)
    config = small(attention="causal", feedback={"name": form, "reading": "own"})
    context = {"process": process, "vocabulary": vocabulary_of(TOKENS), "layout": blocks(3, read_out)}
    network = lively(Denoiser(config, TOKENS)).double()
    return SAMPLERS.build("blockwise", {}, **context), Remembering(network, caches)


@pytest.mark.parametrize("form", ["residual_context", "self_conditioning"])
@pytest.mark.parametrize("read_out", ["own", "previous"])
def test_a_block_begins_without_feedback_and_kept_keys_change_no_text(read_out: str, form: str) -> None:
    asked: dict[str, Any] = {"num": 2, "length": 6, "steps": 3, "seed": 4}
    drawing, denoiser = of_blocks(read_out, form)
    kept = drawing.sample(denoiser, **asked)
    assert [given.feedback is None for given in denoiser.given] == [True, False, False] * 2
    fed = [given.feedback for given in denoiser.given if given.feedback is not None]
    assert all(bool((feedback.mean[:, -3:] != 0).any()) for feedback in fed)
    alone = drawing.sample(of_blocks(read_out, form, caches=False)[1], **asked)
    assert torch.equal(kept.tokens, alone.tokens)
    nothing = torch.empty(0, dtype=torch.int64)
    single = [*generate(drawing, denoiser, Canvas.blank([nothing], [6], seed=4, steps=3, rows=[1]))][-1]
    assert torch.equal(single.tokens[0], kept.tokens[1])


def test_one_block_is_ancestral_sampling_with_feedback_too() -> None:
    w, denoiser = world(), arbitrary()

    class OneBlock:
        """Behind the end-of-text token, the world's two tokens."""

        takes_feedback, feedback = True, staticmethod(denoiser.feedback)

        def __call__(self, given: DenoiserInput) -> DenoiserOutput:
            assert given.level is not None
            fed = given.feedback
            own = None if fed is None else Feedback(fed.mean[:, 1:], fed.weight[:, 1:])
            logits = denoiser(DenoiserInput(given.tokens[:, 1:], given.level[:, -1], feedback=own)).logits()
            return FromLogits(lambda tokens, told: torch.cat([logits[:, :1], logits], 1))(given)

    context = {"process": w.process, "vocabulary": vocabulary_of(3), "layout": blocks(2)}
    asked: dict[str, Any] = {"num": 20, "length": 2, "steps": 4, "seed": 3}
    whole = sampler(w.process, 3).sample(denoiser, **asked)
    found = SAMPLERS.build("blockwise", {}, **context).sample(OneBlock(), **asked)
    assert torch.equal(found.tokens, whole.tokens)
