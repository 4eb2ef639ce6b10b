"""Kept keys and values: the same logits as without them, row by row, whatever each row keeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sumi_core.models.cache import KeyValues
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserInput, caches
from tests.models.stock import STATES, lively, small


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    made = lively(Denoiser(small(attention="causal"), STATES)).double()
    frequencies = made.model.rotary.frequencies
    # Exact identities need exact tables: the rotary angles in float64 too.
    made.model.rotary._make = lambda length, device: _tables(frequencies(device), length)  # type: ignore[method-assign]
    return made


def _tables(frequencies: Tensor, length: int) -> tuple[Tensor, Tensor]:
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies.double()
    cosines, sines = angles.cos(), angles.sin()
    return torch.cat((cosines, cosines), -1)[:, None], torch.cat((-sines, sines), -1)[:, None]


TEXT = torch.randint(STATES, (3, 20), generator=torch.Generator().manual_seed(0))


def read(denoiser: Denoiser, cache: KeyValues, tokens: Tensor, keep: int | Tensor) -> Tensor:
    with torch.no_grad():
        return denoiser(DenoiserInput(tokens, cache=cache, keep=keep)).logits()


def test_only_a_model_that_never_looks_ahead_caches(denoiser: Denoiser) -> None:
    assert caches(denoiser)
    assert not caches(Denoiser(small(), STATES))


@pytest.mark.parametrize("pieces", [[20], [7, 13], [1] * 20, [5, 1, 1, 13]])
def test_a_text_read_in_pieces_has_the_logits_of_the_whole(denoiser: Denoiser, pieces: list[int]) -> None:
    cache = KeyValues(3, capacity=2)  # it grows
    found = [read(denoiser, cache, part, part.shape[1]) for part in TEXT.split(pieces, 1)]
    with torch.no_grad():
        whole = denoiser.logits(TEXT)
    torch.testing.assert_close(torch.cat(found, 1), whole, rtol=0, atol=1e-12)
    assert cache.lengths.tolist() == [20] * 3


def test_slots_that_are_not_kept_leave_no_trace(denoiser: Denoiser) -> None:
    """Denoise: the slots see the cache and themselves; the next call sees what it would have seen."""
    cache = KeyValues(3)
    read(denoiser, cache, TEXT[:, :8], 8)
    draft = read(denoiser, cache, TEXT[:, 8:12].flip(0), 0)
    assert cache.lengths.tolist() == [8] * 3
    again = read(denoiser, cache, TEXT[:, 8:12], 4)
    with torch.no_grad():
        whole = denoiser.logits(TEXT[:, :12])[:, 8:]
        of_draft = denoiser.logits(torch.cat([TEXT[:, :8], TEXT[:, 8:12].flip(0)], 1))[:, 8:]
    torch.testing.assert_close(again, whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(draft, of_draft, rtol=0, atol=1e-12)


def test_rows_keep_different_numbers_and_go_on_where_they_are(denoiser: Denoiser) -> None:
    """Rows accept 2, 5 and 0 of six drafted tokens; each then reads on as it would alone."""
    cache, keep = KeyValues(3), torch.tensor([2, 5, 0])
    read(denoiser, cache, TEXT[:, :6], 6)
    read(denoiser, cache, TEXT[:, 6:12], keep)
    assert cache.lengths.tolist() == [8, 11, 6]
    following = TEXT[:, 12:15]
    found = read(denoiser, cache, following, 3)
    for row, kept in enumerate((8, 11, 6)):
        with torch.no_grad():
            alone = denoiser.logits(torch.cat([TEXT[row : row + 1, :kept], following[row : row + 1]], 1))[:, kept:]
        torch.testing.assert_close(found[row : row + 1], alone, rtol=0, atol=1e-12)


def test_cropped_slots_are_forgotten_and_chosen_rows_go_on_alone(denoiser: Denoiser) -> None:
    cache = KeyValues(3)
    read(denoiser, cache, TEXT[:, :10], 10)
    cache.crop(torch.tensor([4, 10, 7]))
    pair = cache.rows(torch.tensor([2, 0]))
    assert pair.lengths.tolist() == [7, 4]
    found = read(denoiser, pair, TEXT[[2, 0], 10:12], 2)
    for row, (text, kept) in enumerate(((2, 7), (0, 4))):
        with torch.no_grad():
            alone = denoiser.logits(torch.cat([TEXT[text : text + 1, :kept], TEXT[text : text + 1, 10:12]], 1))
        torch.testing.assert_close(found[row : row + 1], alone[:, kept:], rtol=0, atol=1e-12)
