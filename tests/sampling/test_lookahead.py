"""One pass of clean tokens and canvases: equal to the causal model and to each block by itself, whatever rows bring."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sumi_core.models.cache import KeyValues
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserInput
from sumi_core.sampling.lookahead import Canvases, Clean, look_ahead
from tests.layouts.exact import blocks
from tests.models.stock import STATES, lively, small

EOS, W = 3, 4
BEGINS = [2, 5, 3]  # tokens before the first canvas of each row
R = 3  # canvases, each a token behind the one before


@pytest.fixture(scope="module", params=["none", "adaln", "token"])
def denoiser(request: Any) -> Denoiser:
    return lively(Denoiser(small(attention="causal", time_conditioning=request.param), STATES)).double()


def texts() -> tuple[Tensor, Tensor, Tensor]:
    """Clean slots (end of text before each text), canvases and their levels."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(STATES, (3, 12), generator=generator)
    z = torch.randint(STATES, (3, R, W), generator=generator)
    told = torch.rand(3, R, W, generator=generator, dtype=torch.float64)
    return x, z, told


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("kept", [None, [0, 0, 0], [1, 4, 2], [2, 5, 0]])
def test_a_pass_is_the_causal_model_and_each_canvas_alone(
    denoiser: Denoiser, kept: list[int] | None, own: bool
) -> None:
    x, z, told = texts()
    line = torch.cat([torch.full((3, 1), EOS), x], 1)
    begins = torch.tensor(kept or [0, 0, 0])
    first = torch.tensor(BEGINS)
    count = first + R - begins  # up to the token behind which the last canvas begins
    index = (begins[:, None] + torch.arange(int(count.max()))).clamp(max=12)
    clean = Clean(line.gather(1, index), count, begins)
    canvases = Canvases(z, told, (first - begins)[:, None] + torch.arange(R))
    cache = None
    with torch.no_grad():
        if kept is not None:
            cache = KeyValues(3)
            read = line[:, :6]
            denoiser(DenoiserInput(read, torch.zeros(3), cache=cache, keep=begins))
        causal, noisy = look_ahead(denoiser, clean, canvases, own=own, cache=cache)
        assert noisy is not None
        found = noisy.logits().unflatten(1, (R, W))
        for row, begin in enumerate(BEGINS):
            whole = denoiser.logits(line[row : row + 1], torch.zeros(1, 13))
            part = slice(int(begins[row]), begin + R)
            torch.testing.assert_close(causal.logits()[row, : int(count[row])], whole[0, part], rtol=0, atol=1e-12)
            for number in range(R):
                layout = blocks(begin + number, "own" if own else "previous")
                asked = DenoiserInput(z[row : row + 1, number], told[row : row + 1, number])
                alone = layout.canvas(denoiser, x[row : row + 1], asked, 1, EOS).logits()
                torch.testing.assert_close(found[row, number], alone[0], rtol=0, atol=1e-12)
    if cache is not None:
        assert cache.lengths.tolist() == (begins + count).tolist()
