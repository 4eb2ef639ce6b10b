"""Kept keys and values: the same logits as without them, row by row, whatever each row keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sumi_core.models.attention import BlockCausal
from sumi_core.models.cache import KeyValues
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserInput, caches
from tests.models.stock import STATES, exact, lively, small


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return exact(lively(Denoiser(small(attention="causal"), STATES)))


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


def test_positions_that_are_out_of_order_are_read_as_they_are(denoiser: Denoiser) -> None:
    """Neither an empty cache nor a single new slot may take the kernel's own causal order, or see what comes later."""
    order, place = torch.tensor([3, 0, 5, 1, 4, 2]), 2 * torch.arange(7)
    with torch.no_grad():
        whole = denoiser.logits(TEXT[:, :7], positions=place)
        cache = KeyValues(3)
        found = denoiser.logits(TEXT[:, order], positions=place[order], cache=cache, keep=6)
        torch.testing.assert_close(found, whole[:, order], rtol=0, atol=1e-12)
        # Of the kept slots, at 0, 2, … 10 in that order, a slot at 7 sees four.
        found = denoiser.logits(TEXT[:, 7:8], positions=torch.tensor([7]), cache=cache)
        seen = torch.cat([TEXT[:, :4], TEXT[:, 7:8]], 1)
        alone = denoiser.logits(seen, positions=torch.tensor([0, 2, 4, 6, 7]))
        torch.testing.assert_close(found, alone[:, 4:], rtol=0, atol=1e-12)
        found = denoiser.logits(TEXT[:, 6:7], positions=place[6:], cache=cache, keep=1)
        torch.testing.assert_close(found, whole[:, 6:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kept", [(4, 4, 4), (8, 4, 0)])
def test_a_noisy_block_sees_the_kept_clean_ones_and_empty_slots_are_not_seen(
    denoiser: Denoiser, kept: tuple[int, ...]
) -> None:
    """What a sampler of blocks does, rows at different blocks: as one pass over each row alone."""
    blocks, cache = BlockCausal(BlockCausal.Options(4)), KeyValues(3, capacity=2)
    noisy, valid = torch.ones(4, dtype=torch.bool), torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 0]]).bool()
    with torch.no_grad():
        denoiser(DenoiserInput(TEXT[:, :8], pattern=blocks, cache=cache, keep=torch.tensor(kept)))
        found = denoiser.logits(TEXT[:, 12:16], pattern=blocks, cache=cache, noisy=noisy, valid=valid)
        for row, length in enumerate(kept):
            seen = torch.cat([TEXT[row, :length], TEXT[row, 12:16][valid[row]]])[None]
            place = torch.cat([torch.arange(length), torch.arange(length, length + 4)[valid[row]]])
            copies = torch.arange(len(place)) >= length
            alone = denoiser.logits(seen, pattern=blocks, positions=place, noisy=copies)[0, length:]
            torch.testing.assert_close(found[row, valid[row]], alone, rtol=0, atol=1e-12)
    assert cache.lengths.tolist() == list(kept)


@pytest.mark.parametrize(
    ("held", "given", "complaint"),
    [
        (2, {"documents": torch.zeros(3, 4, dtype=torch.int64)}, "does not remember documents"),
        (0, {"documents": torch.zeros(3, 4, dtype=torch.int64), "keep": 4}, "does not remember documents"),
        (0, {"valid": torch.ones(3, 4, dtype=torch.bool), "keep": 4}, "slots that hold a token"),
        (0, {"noisy": torch.ones(4, dtype=torch.bool), "keep": torch.tensor([0, 1, 0])}, "are never kept"),
        (2, {"keep": 5}, "between 0 and all 4 of the new slots"),
        (2, {"keep": torch.tensor([0, 5, 1])}, "between 0 and all 4 of the new slots"),
        (2, {"keep": -1}, "between 0 and all 4 of the new slots"),
    ],
)
def test_what_a_cache_cannot_keep_apart_is_refused(
    denoiser: Denoiser, held: int, given: dict[str, Any], complaint: str
) -> None:
    """Each would give other logits than the text read at once, without a word. The cache stays as it was."""
    cache = KeyValues(3)
    if held:
        read(denoiser, cache, TEXT[:, :held], held)
    with pytest.raises(ValueError, match=complaint):
        denoiser(DenoiserInput(TEXT[:, held : held + 4], cache=cache, **given))
    assert cache.lengths.tolist() == [held] * 3
    with pytest.raises(ValueError, match="a cache of 3 rows cannot serve 1 rows"):
        read(denoiser, cache, TEXT[:1, held:], 1)
    found = read(denoiser, cache, TEXT[:, held:6], 0)
    with torch.no_grad():
        torch.testing.assert_close(found, denoiser.logits(TEXT[:, :6])[:, held:], rtol=0, atol=1e-12)


def test_what_is_kept_is_written_once_and_read_where_it_is() -> None:
    """No layer copies its keys and values to see them beside a new slot's."""
    cache = KeyValues(2, capacity=8)
    places = set()
    for _ in range(8):
        cache.open(1)
        for part in cache.extend(0, torch.ones(2, 1, 1, 4), torch.ones(2, 1, 1, 4)):
            places.add(part.data_ptr())
        cache.keep([1, 1])
    assert len(places) == 2
