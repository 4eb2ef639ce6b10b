"""Attention patterns as predicates: masks written from the definition, two copies, documents, caches, fused kernels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sumi_core.models import ATTENTION_PATTERNS
from sumi_core.models.attention import AttentionPattern, BlockCausal, Slots
from sumi_core.models.denoiser import Denoiser
from tests.models.stock import STATES, exact, lively, small

LENGTH = 12


def pattern(name: str) -> AttentionPattern:
    built: AttentionPattern = ATTENTION_PATTERNS.build(name, {"length": 4} if name == "block_causal" else {})
    return built


def by_hand(name: str, query: int, key: int) -> bool:
    """Whether position ``query`` sees position ``key``."""
    return {"bidirectional": True, "causal": key <= query, "block_causal": key // 4 <= query // 4}[name]


each_pattern = pytest.mark.parametrize("name", ATTENTION_PATTERNS.names())


@each_pattern
def test_the_mask_is_the_definition_for_all_queries_and_for_the_last_ones(name: str) -> None:
    expected = torch.tensor([[by_hand(name, q, k) for k in range(LENGTH)] for q in range(LENGTH)])
    keys = Slots(torch.arange(LENGTH))
    assert torch.equal(pattern(name).mask(keys, keys), expected)
    last = Slots(torch.arange(LENGTH - 3, LENGTH))  # fewer queries than keys: what a cache asks for
    assert torch.equal(pattern(name).mask(last, keys), expected[-3:])


@each_pattern
def test_documents_do_not_see_each_other_and_empty_slots_are_not_seen(name: str) -> None:
    document = torch.tensor([[0] * 5 + [1] * 7, [0] * 12])
    valid = torch.arange(LENGTH) < torch.tensor([[12], [9]])
    slots = Slots(torch.arange(LENGTH), document, valid=valid)
    mask = pattern(name).mask(slots, slots)
    assert mask.shape == (2, LENGTH, LENGTH)
    for row in range(2):
        for q in range(LENGTH):
            for k in range(LENGTH):
                same = bool(document[row, q] == document[row, k])
                assert bool(mask[row, q, k]) == (by_hand(name, q, k) and same and bool(valid[row, k]))


@each_pattern
def test_attended_is_what_an_average_query_sees(name: str) -> None:
    slots = Slots(torch.arange(64))
    counted = float(pattern(name).mask(slots, slots).sum()) / 64
    # A causal model is counted as half of the square, as everywhere, and not as half plus the diagonal.
    assert pattern(name).attended(64) == (counted - 0.5 if name == "causal" else counted)


def test_the_closed_form_of_blocks_counts_the_dense_mask() -> None:
    for block in (1, 2, 3, 5, 16):
        for length in range(1, 20):
            blocks, slots = BlockCausal(BlockCausal.Options(block)), Slots(torch.arange(length))
            assert blocks.attended(length) == pytest.approx(float(blocks.mask(slots, slots).sum()) / length)
    # Of a mask this long there would be 10¹² entries.
    assert BlockCausal(BlockCausal.Options(16)).attended(10**6) == 16 * (10**6 / 16 + 1) / 2


@pytest.mark.parametrize("name", ["bidirectional", "causal"])
def test_a_noisy_copy_is_refused_where_it_would_see_its_clean_text(name: str) -> None:
    plain = Slots(torch.arange(LENGTH))
    two = Slots(torch.arange(LENGTH), noisy=torch.arange(LENGTH) >= 6)
    for queries, keys in ((two, two), (plain, two), (two, plain)):
        for derive in (pattern(name).mask, pattern(name).mask_mod, pattern(name).sdpa_arguments):
            with pytest.raises(ValueError, match="does not tell a noisy copy of a text from the clean one"):
                derive(queries, keys)


def test_a_noisy_copy_sees_its_own_block_and_clean_earlier_ones() -> None:
    """Two streams (BD3LM, 2503.09573): the strict comparison keeps a noisy block from its own clean tokens."""
    slots = Slots(torch.arange(LENGTH).repeat(2), noisy=torch.arange(2 * LENGTH) >= LENGTH)
    mask = pattern("block_causal").mask(slots, slots)
    for q in range(2 * LENGTH):
        for k in range(2 * LENGTH):
            own, other = q % LENGTH // 4, k % LENGTH // 4
            of_clean_query = k < LENGTH and other <= own
            of_noisy_query = other < own if k < LENGTH else other == own
            assert bool(mask[q, k]) == (of_clean_query if q < LENGTH else of_noisy_query), (q, k)


def test_a_block_of_the_noisy_copy_is_denoised_as_if_alone() -> None:
    """One pass over both copies gives the logits of each noisy block behind its clean prefix, and changing the clean
    tokens of a block changes no logit of its noisy copy."""
    denoiser = exact(lively(Denoiser(small(), STATES)))
    blocks, generator = pattern("block_causal"), torch.Generator().manual_seed(0)
    clean, noise = (torch.randint(STATES, (2, LENGTH), generator=generator) for _ in range(2))
    positions, noisy = torch.arange(LENGTH).repeat(2), torch.arange(2 * LENGTH) >= LENGTH

    def together(clean: Tensor) -> Tensor:
        both = torch.cat([clean, noise], 1)
        return denoiser.logits(both, positions=positions, noisy=noisy, pattern=blocks)[:, LENGTH:]

    with torch.no_grad():
        found = together(clean)
        for start in range(0, LENGTH, 4):
            stop = start + 4
            alone = denoiser.logits(torch.cat([clean[:, :start], noise[:, start:stop]], 1), pattern=blocks)
            torch.testing.assert_close(found[:, start:stop], alone[:, start:], rtol=0, atol=1e-12)
            changed = clean.clone()
            changed[:, start:] = (changed[:, start:] + 1) % STATES
            assert torch.equal(together(changed)[:, start:stop], found[:, start:stop])


@each_pattern
def test_the_block_mask_of_a_fused_kernel_is_the_dense_mask(name: str) -> None:
    from torch.nn.attention.flex_attention import create_mask

    slots = Slots(torch.arange(LENGTH), torch.tensor([[0] * 5 + [1] * 7, [0] * 12]))
    flex = create_mask(pattern(name).mask_mod(slots, slots), 2, 1, LENGTH, LENGTH, device="cpu")
    assert torch.equal(flex[:, 0], pattern(name).mask(slots, slots))


def test_block_causal_of_one_is_causal_and_of_everything_bidirectional() -> None:
    slots = Slots(torch.arange(LENGTH))
    for length, other in ((1, "causal"), (LENGTH, "bidirectional")):
        blocks = BlockCausal(BlockCausal.Options(length))
        assert torch.equal(blocks.mask(slots, slots), pattern(other).mask(slots, slots))
