"""Texts of several canvases: what each is given, what it draws from, and where a text ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sumi_core.data.vocabulary import Vocabulary
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import FromLogits
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.drawing import Samples, draw_texts
from sumi_core.sampling.growing import draw_growing_texts
from sumi_core.sampling.sampler import Sampler
from tests.corruption.enumerable import World, build_process, chi_square
from tests.models.stock import lively, small
from tests.sampling.worlds import ROWS, index_of

EOS = 0


def sampler_of(process: Any, name: str = "ancestral") -> Sampler:
    made: Sampler = SAMPLERS.build(name, {}, process=process, vocabulary=Vocabulary(process.num_tokens, EOS))
    return made


def blank(*lengths: int, prompt: tuple[int, ...] = ()) -> list[tuple[Tensor, Tensor]]:
    """Texts of which ``prompt`` stands."""
    texts = [torch.tensor([*prompt, *[0] * (length - len(prompt))]) for length in lengths]
    return [(text, torch.arange(len(text)) < len(prompt)) for text in texts]


@pytest.mark.usefixtures("_fast")
def test_each_canvas_is_drawn_given_the_end_of_the_one_before() -> None:
    """Exact canvases of two tokens that overlap in one make a Markov chain of the pairs."""
    world = World("absorbing", "cosine", tokens=3, length=2, seed=1)
    half = torch.full((len(world.z),), 0.5, dtype=torch.float64)  # any level predicts the same
    table = world.denoiser(world.z, half).nan_to_num(0.0)
    denoiser = FromLogits(lambda z, t: table[index_of(world, z)])
    sampler = sampler_of(world.process, "first_hitting")
    drawn = draw_growing_texts(sampler, denoiser, given=blank(*[4] * ROWS), canvas=2, overlap=1, steps=1, seed=0)
    pair = torch.zeros(3, 3, dtype=torch.float64)
    pair[world.x[:, 0], world.x[:, 1]] = world.p
    after = pair / pair.sum(-1, keepdim=True)
    chain = torch.einsum("ab,bc,cd->abcd", pair, after, after).reshape(-1)
    assert chi_square(drawn.tokens @ torch.tensor([27, 9, 3, 1]), chain) > 1e-3
    assert set(drawn.nfe.tolist()) == {4}, "one call for each mask"


def test_a_text_is_the_same_in_any_company_and_begins_as_on_one_canvas() -> None:
    process = build_process("uniform", "linear", 6)
    denoiser, sampler = lively(Denoiser(small(), 6)).eval(), sampler_of(process)

    def grown(given: list[tuple[Tensor, Tensor]]) -> Samples:
        return draw_growing_texts(sampler, denoiser, given=given, canvas=8, overlap=3, steps=3, seed=4)

    both = grown(blank(20, 6, prompt=(5, 1)))
    assert both.lengths.tolist() == [20, 6]
    assert both.nfe.tolist() == [12, 3], "canvases at 0, 5, 10 and 15"
    assert torch.equal(grown(blank(20, prompt=(5, 1))).tokens[0], both.tokens[0])
    [(tokens, stands)] = blank(8, prompt=(5, 1))
    alone = draw_texts(sampler, denoiser, num=1, length=8, steps=3, seed=4, given=[(tokens, stands)])
    assert torch.equal(alone.tokens[0], both.tokens[0, :8])
    second = [torch.where(torch.arange(8) < 3, both.tokens[0, 5:13], 0)], torch.arange(8) < 3
    again = draw_texts(sampler, denoiser, num=1, length=8, steps=3, seed=4, given=[(second[0][0], second[1])])
    assert not torch.equal(again.tokens[0], both.tokens[0, 5:13]), "each canvas has noise of its own"


def test_what_is_given_further_back_stands() -> None:
    process = build_process("uniform", "linear", 6)
    denoiser, sampler = lively(Denoiser(small(), 6)).eval(), sampler_of(process)
    tokens, stands = torch.zeros(20, dtype=torch.int64), torch.zeros(20, dtype=torch.bool)
    tokens[[0, 7, 13, 19]], stands[[0, 7, 13, 19]] = torch.tensor([5, 4, 3, 2]), True
    stands[:8] = True  # the first canvas holds nothing to write
    drawn = draw_growing_texts(sampler, denoiser, given=[(tokens, stands)], canvas=8, overlap=2, steps=2, seed=0)
    assert torch.equal(drawn.tokens[0][stands], tokens[stands])
    assert drawn.nfe.tolist() == [4]


def test_a_text_ends_at_its_end_of_text_token() -> None:
    """A denoiser that ends the text in its second canvas: no third one is begun."""
    process = build_process("absorbing", "linear", 4)

    def logits(z: Tensor, t: Tensor | None) -> Tensor:
        table = torch.full((*z.shape, 5), -30.0, dtype=torch.float64)
        later = z[:, 0] == 1  # the first canvas begins with a 2
        table[..., 1] = 30.0
        table[later, 2, 1], table[later, 2, EOS] = -30.0, 30.0
        return table

    sampler, given = sampler_of(process, "first_hitting"), blank(12, prompt=(2,))
    drawn = draw_growing_texts(
        sampler, FromLogits(logits), given=given, canvas=4, overlap=1, steps=1, seed=0, end_of_text=True
    )
    assert drawn.lengths.tolist() == [5]
    assert drawn.tokens.tolist() == [[2, 1, 1, 1, 1] + [EOS] * 7]
    assert drawn.nfe.tolist() == [3 + 3]
    whole = draw_growing_texts(sampler, FromLogits(logits), given=given, canvas=4, overlap=1, steps=1, seed=0)
    assert whole.lengths.tolist() == [12]


def test_an_overlap_that_leaves_nothing_to_write_is_refused() -> None:
    process = build_process("uniform", "linear", 6)
    with pytest.raises(ValueError, match="an overlap of 8 leaves nothing to write on a canvas of 8 tokens"):
        draw_growing_texts(
            sampler_of(process), FromLogits(lambda z, t: z), given=blank(9), canvas=8, overlap=8, steps=1, seed=0
        )
