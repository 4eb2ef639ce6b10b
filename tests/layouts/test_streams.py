"""Two streams through a random transformer in float64: equal to each block alone, and no leak."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from sumi_core.layouts.blocks import Blocks
from sumi_core.models.cache import KeyValues
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserInput, DenoiserOutput, Feedback
from sumi_core.objectives.likelihood import ChainRule
from tests.layouts.exact import blocks
from tests.models.stock import STATES, lively, small

EOS, LENGTH = 3, 10
SHAPES = [(1, "own"), (1, "previous"), (4, "own"), (4, "previous"), (5, "own"), (5, "previous"), (10, "previous")]
shapes = pytest.mark.parametrize(("n", "read_out"), SHAPES)


def network(**model: Any) -> Denoiser:
    return lively(Denoiser(small(attention="causal", **model), STATES)).double()


def texts(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Clean texts, noise and a level for each token."""
    generator = torch.Generator().manual_seed(seed)
    x, z = torch.randint(STATES, (2, 3, LENGTH), generator=generator)
    return x, z, torch.rand(3, LENGTH, generator=generator, dtype=torch.float64)


@torch.no_grad()
def logits(
    layout: Blocks, denoiser: Denoiser, x: Tensor, z: Tensor, level: Tensor | None = None, **more: Any
) -> Tensor:
    return layout.of(denoiser, x, EOS)(DenoiserInput(z, level, **more)).logits()


@shapes
@pytest.mark.parametrize("conditioning", ["none", "adaln", "token"])
def test_two_streams_give_the_logits_of_each_block_alone(n: int, read_out: str, conditioning: str) -> None:
    layout, denoiser = blocks(n, read_out), network(time_conditioning=conditioning)
    x, z, level = texts()
    together = logits(layout, denoiser, x, z, level)
    assert together.shape == (3, LENGTH, STATES)
    cache, kept = KeyValues(3), 0
    for block, first in enumerate(range(0, LENGTH, n)):
        part = slice(first, min(first + n, LENGTH))
        asked = DenoiserInput(z[:, part], level[:, part])
        with torch.no_grad():
            alone = layout.canvas(denoiser, x, asked, block, EOS).logits()
            cached = layout.canvas(denoiser, x, asked, block, EOS, cache=cache, kept=kept).logits()
        kept = cache.longest
        assert kept == layout.context(x, block, EOS).shape[1]
        for other in (alone, cached):
            torch.testing.assert_close(other, together[:, part], rtol=0, atol=1e-12)


@shapes
@pytest.mark.parametrize("form", ["residual_context", "self_conditioning"])
def test_feedback_is_read_where_its_tokens_stand_in_noise_and_nowhere_else(form: str, n: int, read_out: str) -> None:
    """Two streams give the logits of each block alone; those of a block depend on its own feedback, those of clean text
    on none."""
    layout, denoiser = blocks(n, read_out), network(feedback={"name": form, "reading": "own"})
    x, z, level = texts()
    generator = torch.Generator().manual_seed(7)
    mean = torch.randn(3, LENGTH, 32, generator=generator, dtype=torch.float64)
    weight = torch.rand(3, LENGTH, generator=generator, dtype=torch.float64)
    without, together = logits(layout, denoiser, x, z), logits(layout, denoiser, x, z, feedback=Feedback(mean, weight))
    with torch.no_grad():
        clean = [
            layout.both(denoiser, x, EOS)(DenoiserInput(z, feedback=f))[1].hidden
            for f in (None, Feedback(mean, weight))
        ]
    assert torch.equal(*clean)
    cache, kept = KeyValues(3), 0
    for block, first in enumerate(range(0, LENGTH, n)):
        part = slice(first, min(first + n, LENGTH))
        asked = DenoiserInput(z[:, part], level[:, part], feedback=Feedback(mean[:, part], weight[:, part]))
        with torch.no_grad():
            alone = layout.canvas(denoiser, x, asked, block, EOS).logits()
            cached = layout.canvas(denoiser, x, asked, block, EOS, cache=cache, kept=kept).logits()
        kept = cache.longest
        for other in (alone, cached):
            torch.testing.assert_close(other, together[:, part], rtol=0, atol=1e-12)
    only = torch.zeros(LENGTH, dtype=torch.bool)
    only[:n] = True
    first = Feedback(mean * only[:, None], weight * only)
    changed = (logits(layout, denoiser, x, z, feedback=first) != without).any(-1).all(0)
    hidden = n == 1 and read_out == "previous"  # no slot holds its noise
    assert torch.equal(changed, only & (not hidden))


def test_a_block_alone_is_the_model_s_own_pass_with_the_mask_written_out() -> None:
    """Not through the layout: clean slots in order, then the block's noise behind them, one mask by hand."""
    denoiser, (x, z, _) = network(), texts()
    tokens = torch.cat([torch.full((3, 1), EOS), x[:, :4], z[:, 4:8]], 1)
    mask = torch.ones(9, 9, dtype=torch.bool).tril()
    mask[5:, 5:] = True
    rotary = denoiser.model.rotary(9, tokens.device)
    hidden = denoiser.model.embed_tokens(tokens)
    with torch.no_grad():
        for layer in denoiser.model.blocks():
            hidden = layer(hidden, rotary, {"attn_mask": mask})
        wanted = denoiser.lm_head(denoiser.model.norm(hidden))[:, 5:]
    torch.testing.assert_close(logits(blocks(4), denoiser, x, z)[:, 4:8], wanted, rtol=0, atol=1e-12)


@shapes
def test_the_clean_stream_is_the_causal_model(n: int, read_out: str) -> None:
    layout, denoiser, (x, z, _) = blocks(n, read_out), network(), texts()
    seen: list[DenoiserOutput] = []

    def watched(given: DenoiserInput) -> DenoiserOutput:
        seen.append(denoiser(given))
        return seen[-1]

    with torch.no_grad():
        layout.of(watched, x, EOS)(DenoiserInput(z))
        causal = denoiser.logits(torch.cat([torch.full((3, 1), EOS), x[:, :-1]], 1))
        torch.testing.assert_close(seen[0].logits()[:, -LENGTH:], causal, rtol=0, atol=1e-12)


@shapes
def test_no_block_sees_its_own_clean_tokens_or_what_follows(n: int, read_out: str) -> None:
    layout, denoiser, (x, z, _) = blocks(n, read_out), network(), texts()
    before = logits(layout, denoiser, x, z)
    for block, first in enumerate(range(0, LENGTH, n)):
        other_x, other_z = x.clone(), z.clone()
        other_x[:, first:] = (x[:, first:] + 1) % STATES
        other_z[:, first + n :] = (z[:, first + n :] + 1) % STATES
        after = logits(layout, denoiser, other_x, other_z)
        assert torch.equal(after[:, : first + n], before[:, : first + n]), block
        if first + n < LENGTH:
            assert not torch.equal(after[:, first + n :], before[:, first + n :])


@shapes
def test_a_block_sees_all_of_what_it_may(n: int, read_out: str) -> None:
    """Every clean token before it, and every noisy token of its own block."""
    layout, denoiser, (x, z, _) = blocks(n, read_out), network(), texts()
    before = logits(layout, denoiser, x, z)
    last = LENGTH - 1
    first = last // n * n
    for place in range(LENGTH):
        other_x, other_z = x.clone(), z.clone()
        (other_x if place < first else other_z)[:, place] += 1
        moved = not torch.equal(logits(layout, denoiser, other_x % STATES, other_z % STATES)[:, last], before[:, last])
        assert moved == (n > 1 or read_out == "own" or place < first)


def test_the_slot_before_with_blocks_of_one_token_is_the_autoregressive_model() -> None:
    denoiser, (x, z, _) = network(), texts()
    layout, rule = blocks(1, "previous"), ChainRule(STATES, EOS)
    found = -logits(layout, denoiser, x, z).log_softmax(-1).gather(-1, x[..., None])[..., 0]
    with torch.no_grad():
        torch.testing.assert_close(found, rule.token_nats(denoiser, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [2, 5])
def test_documents_do_not_see_each_other(n: int) -> None:
    """Each is read as a text of its own, behind an end-of-text token; positions go on."""
    layout, denoiser, (x, z, _) = blocks(n), network(), texts()
    documents = torch.tensor([0] * 4 + [1] * 6).expand(3, -1)
    before = logits(layout, denoiser, x, z, documents=documents)
    for inside, outside in ((slice(0, 4), slice(4, LENGTH)), (slice(4, LENGTH), slice(0, 4))):
        other_x, other_z = x.clone(), z.clone()
        other_x[:, outside] = (x[:, outside] + 1) % STATES
        other_z[:, outside] = (z[:, outside] + 1) % STATES
        after = logits(layout, denoiser, other_x, other_z, documents=documents)
        assert torch.equal(after[:, inside], before[:, inside])
    assert not torch.equal(before[:, 4:], logits(layout, denoiser, x, z)[:, 4:])
    with pytest.raises(ValueError, match="read_out: own"):
        logits(blocks(n, "previous"), denoiser, x, z, documents=documents)


def test_empty_slots_are_not_seen() -> None:
    layout, denoiser, (x, z, _) = blocks(4), network(), texts()
    valid = (torch.arange(LENGTH) < 6).expand(3, -1)
    before = logits(layout, denoiser, x, z, valid=valid)
    other = z.clone()
    other[:, 6:] = (z[:, 6:] + 1) % STATES
    assert torch.equal(logits(layout, denoiser, x, other, valid=valid)[:, :6], before[:, :6])
    torch.testing.assert_close(before[:, :6], logits(layout, denoiser, x[:, :6], z[:, :6]), rtol=0, atol=1e-12)


def test_what_lays_out_slots_itself_is_refused() -> None:
    layout, denoiser, (x, z, _) = blocks(5), network(), texts()
    for more in ({"positions": torch.arange(LENGTH)}, {"cache": KeyValues(3)}, {"noisy": z > 0}):
        with pytest.raises(ValueError, match="lays out the slots itself"):
            logits(layout, denoiser, x, z, **more)


@pytest.mark.parametrize("length", [8, 10, 24])
@pytest.mark.parametrize("n", [1, 2, 4, 8])
@pytest.mark.parametrize("read_out", ["own", "previous"])
def test_slots_and_keys_are_those_of_the_mask(n: int, length: int, read_out: str) -> None:
    layout = blocks(n, read_out)
    streams = layout.streams(length)
    assert layout.slots(length) == len(streams.mask)
    assert layout.keys(length, network().pattern) == pytest.approx(float(streams.mask.sum()) / length, abs=1e-12)
    if read_out == "own" and length % n == 0:
        assert layout.keys(length, network().pattern) == length + n / 2 + 1.5
        assert layout.slots(length) == 2 * length


def test_a_fused_kernel_gets_the_same_mask() -> None:
    from sumi_core.models.attention import Explicit, Slots

    mask = blocks(4).streams(8).mask
    slots = Slots(torch.arange(16), document=torch.tensor([0] * 8 + [1] * 8))
    pattern = Explicit(mask)
    mod = pattern.mask_mod(slots, slots)
    place = torch.arange(16)
    found = mod(torch.tensor(0), torch.tensor(0), place[:, None].expand(16, 16), place.expand(16, 16))
    assert torch.equal(found, pattern.mask(slots, slots))
    assert not torch.equal(found, mask)
    assert torch.equal(pattern.mask(slots, dataclasses.replace(slots, document=None)), mask)


def test_a_model_is_trained_after_it_was_measured_in_the_same_process() -> None:
    layout, denoiser, (x, z, _) = blocks(2), network(), texts()
    with torch.inference_mode():
        layout.of(denoiser, x[:, :6], EOS)(DenoiserInput(z[:, :6]))  # six tokens: slots that nothing else has made
    layout.of(denoiser, x[:, :6], EOS)(DenoiserInput(z[:, :6])).logits().sum().backward()
