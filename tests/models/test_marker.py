"""A vector of its own at slots in noise: where it is added, where not, and that a model starts as one without it."""

from __future__ import annotations

import pytest
import torch

from sumi_core.base.options import ConfigError
from sumi_core.experiments.resolve import resolve
from sumi_core.export.stock import why_not_stock
from sumi_core.models.cache import KeyValues
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserInput
from sumi_core.models.size import num_parameters
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.generate import generate
from tests.layouts.exact import blocks
from tests.layouts.test_streams import EOS, texts
from tests.models.stock import STATES, lively, small
from tests.sampling.test_generate import LENGTHS, PROMPTS, last
from tests.sampling.test_speculative import build, network

read_outs = pytest.mark.parametrize("read_out", ["own", "previous"])


def marked() -> Denoiser:
    return lively(Denoiser(small(attention="causal", marker=True), STATES)).double()


@read_outs
def test_a_fresh_one_changes_nothing_and_learns(read_out: str) -> None:
    plain = Denoiser(small(attention="causal"), STATES, seed=4)
    fresh = Denoiser(small(attention="causal", marker=True), STATES, seed=4)
    x, z, level = texts()
    given, layout = DenoiserInput(z, level), blocks(5, read_out)
    found = layout.of(fresh, x, EOS)(given).logits()
    assert torch.equal(found, layout.of(plain, x, EOS)(given).logits())
    found.square().sum().backward()
    assert fresh.model.marker is not None
    assert float(fresh.model.marker.weight.grad.abs().min()) > 0


@read_outs
def test_it_stands_at_noise_alone(read_out: str) -> None:
    """Beside clean text, alone with its kept slots, and never in the autoregressive mode."""
    denoiser, layout, (x, z, level) = marked(), blocks(5, read_out), texts()
    clean = torch.cat([torch.full((3, 1), EOS), x[:, :-1]], 1)
    with torch.no_grad():
        before, causal = layout.both(denoiser, x, EOS)(DenoiserInput(z, level))
        torch.testing.assert_close(causal.logits(), denoiser.logits(clean), rtol=0, atol=1e-12)
        cache, kept = KeyValues(3), 0
        for block, first in enumerate((0, 5)):
            asked = DenoiserInput(z[:, first : first + 5], level[:, first : first + 5])
            alone = layout.canvas(denoiser, x, asked, block, EOS, cache=cache, kept=kept).logits()
            kept = cache.longest
            torch.testing.assert_close(alone, before.logits()[:, first : first + 5], rtol=0, atol=1e-12)
        assert denoiser.model.marker is not None
        denoiser.model.marker.weight.mul_(2)
        after, same = layout.both(denoiser, x, EOS)(DenoiserInput(z, level))
    assert torch.equal(same.hidden, causal.hidden)
    assert bool((after.hidden != before.hidden).any(-1).all())


@read_outs
def test_the_level_of_the_noise_does_not_matter(read_out: str) -> None:
    denoiser, layout, (x, z, level) = marked(), blocks(5, read_out), texts()
    with torch.no_grad():
        found = [layout.of(denoiser, x, EOS)(DenoiserInput(z, t)).logits() for t in (level, level[:, 0], level * 0.1)]
    assert all(torch.equal(other, found[0]) for other in found)
    assert not denoiser.reads_level


@read_outs
@pytest.mark.parametrize("shape", ["linear", "fan"])
def test_speculation_still_writes_the_autoregressive_text(shape: str, read_out: str) -> None:
    process, denoiser = network("uniform", marker=True)
    samplers = (build("speculative", process, read_out, shape=shape), build("autoregressive", process, read_out))
    found, wanted = (last(generate(s, denoiser, Canvas.blank(PROMPTS, LENGTHS, seed=3, steps=1))) for s in samplers)
    assert torch.equal(found.tokens, wanted.tokens)


def test_it_is_counted_and_stock_classes_have_none() -> None:
    config = small(attention="causal", marker=True)
    assert num_parameters(config, STATES) == Denoiser(config, STATES).num_parameters()
    assert num_parameters(config, STATES) - num_parameters(small(attention="causal"), STATES) == config.hidden_size
    assert why_not_stock(config) == "model.marker is on, and stock classes do not mark the slots in noise"


def test_where_all_slots_hold_noise_it_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^t.yaml: model.marker: tells noise from the clean text beside it, and layout"
    ):
        resolve({"process": "uniform", "model": {"marker": True}}, "t.yaml")
