"""An export as stock code runs it with a cache: noise beside a causal prefix that a stock ``DynamicCache`` holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sumi_core.layouts.blocks import Blocks
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserInput
from sumi_core.stages.base import StageContext
from sumi_core.stages.exported_model import build as build_exported_model
from tests.layouts.exact import blocks

EOS, BEFORE = 0, 12  # tokens of the prefix: whole blocks of 4 and of 6


@pytest.mark.parametrize(("kind", "layout"), [("blocks", blocks(4)), ("masked_blocks", blocks(6, "previous"))])
def test_a_canvas_beside_a_stock_cache_is_that_of_the_layout(
    kind: str, layout: Blocks, trained: Callable[..., tuple[StageContext, Denoiser]]
) -> None:
    """The cache grows by the canvas, whose keys are not those of clean tokens: cropped, the prefix takes another
    canvas, and then the clean tokens themselves."""
    transformers = pytest.importorskip("transformers")
    context, denoiser = trained(kind)
    build_exported_model(context)
    stock = transformers.LlamaForCausalLM.from_pretrained(context.folder).eval()
    generator, n = torch.Generator().manual_seed(0), layout.options.length
    x = torch.randint(257, (2, BEFORE + n), generator=generator)
    canvases = torch.randint(257, (2, 2, n), generator=generator)
    clean, cache = layout.context(x, BEFORE // n, EOS), transformers.DynamicCache(config=stock.config)
    seen = clean.shape[1]

    def read(tokens: Tensor, **more: Any) -> Tensor:
        found: Tensor = stock(tokens, past_key_values=cache, use_cache=True, **more).logits
        return found

    with torch.no_grad():
        read(clean)
        for z in canvases:
            noisy = z if layout.options.read_out == "own" else torch.cat([x[:, BEFORE - 1 : BEFORE], z], 1)
            slots = noisy.shape[1]
            everything = torch.ones(2, 1, slots, seen + slots, dtype=torch.bool)
            places = torch.arange(seen, seen + slots).expand(2, -1)
            found = read(noisy, attention_mask=everything, position_ids=places)[:, :n]
            wanted = layout.canvas(denoiser, x, DenoiserInput(z), BEFORE // n, EOS).logits()
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
            assert cache.get_seq_length() == seen + slots
            cache.crop(-slots)
        text = torch.cat([torch.full((2, 1), EOS), x], 1)
        after = read(text[:, seen:])
        torch.testing.assert_close(after, denoiser.logits(text)[:, seen:], rtol=0, atol=1e-5)
