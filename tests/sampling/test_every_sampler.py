"""What holds for every sampler of the registry: one seed a text, in any company, on any device, drawn in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sumi_core.data.noise import Noise
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.layouts.layout import Whole
from sumi_core.models.denoiser import Denoiser
from sumi_core.sampling import SAMPLERS, choosing
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.generate import generate
from sumi_core.sampling.sampler import Sampler
from tests.corruption.enumerable import build_process
from tests.layouts.exact import blocks
from tests.models.stock import lively, small
from tests.sampling.test_generate import EOS, LENGTHS, PROMPTS, V, last

NAMES = SAMPLERS.names()
NOISE = {"first_hitting": "absorbing"}  # any other writes with all processes
ALL_OPTIONS = {"predictor_corrector": {"corrections": 2}, "self_correction": {"corrections": 6, "noise": 0.4}}
each_sampler = pytest.mark.parametrize("name", NAMES)


def made(name: str, noise: str = "uniform", device: str = "cpu") -> tuple[Sampler, Denoiser]:
    """A sampler and a random network, in float64: in float32 batches of other sizes round differently."""
    kind = SAMPLERS.get(name)
    process = build_process(NOISE.get(name, noise), "cosine", V)
    layout = Whole() if "whole" in kind.layouts else blocks(4, "previous")
    context = {"process": process, "vocabulary": Vocabulary(V, EOS), "layout": layout}
    network = lively(Denoiser(small(attention="causal" if kind.causal else "bidirectional"), process.num_states))
    return SAMPLERS.build(name, ALL_OPTIONS.get(name, {}), **context), network.double().to(device)


def written(sampler: Sampler, denoiser: Denoiser, rows: list[int], seed: int = 3, device: str = "cpu") -> list[Tensor]:
    """The texts of some rows, each with its prompt and length."""
    prompts, lengths = [PROMPTS[row] for row in rows], [LENGTHS[row] for row in rows]
    canvas = Canvas.blank(prompts, lengths, seed=seed, steps=5, rows=rows, device=device)
    tokens = last(generate(sampler, denoiser, canvas)).tokens.cpu()
    return [own[:length] for own, length in zip(tokens, lengths, strict=True)]


@each_sampler
@pytest.mark.parametrize("noise", ["uniform", "hybrid"])
def test_a_text_belongs_to_its_seed_and_row_alone(name: str, noise: str) -> None:
    """Whatever the batch's size, its order and its other rows."""
    sampler, denoiser = made(name, noise)
    together = written(sampler, denoiser, [0, 1, 2, 3])
    for rows in ([3, 1], [2], [1, 0, 3, 2]):
        for row, text in zip(rows, written(sampler, denoiser, rows), strict=True):
            assert torch.equal(text, together[row])
    others = written(sampler, denoiser, [0, 1, 2, 3], seed=4)
    if (name, noise) != ("threshold", "hybrid"):  # masks for noise, and always the most probable token
        assert not all(torch.equal(a, b) for a, b in zip(together, others, strict=True))
    assert all(int(text.max()) < V for text in together)


@each_sampler
def test_draws_are_made_in_float64(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Categorical draws invert a cumulative sum in float64, by float64 numbers; Gumbel noise is float64, too."""
    streams: set[str] = set()
    uniform, gumbel = Noise.uniform, choosing.gumbel_noise

    def watched(self: Noise, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        assert dtype == torch.float64
        streams.add("uniform")
        return uniform(self, *shape, dtype=dtype)

    def watched_gumbel(*arguments: Any) -> Tensor:
        found = gumbel(*arguments)
        assert found.dtype == torch.float64
        streams.add("gumbel")
        return found

    monkeypatch.setattr(Noise, "uniform", watched)
    for module in ("autoregressive", "speculative", "drafting"):
        monkeypatch.setattr(f"sumi_core.sampling.{module}.gumbel_noise", watched_gumbel, raising=False)
    sampler, denoiser = made(name)
    written(sampler, denoiser.float(), [0, 1])
    assert streams or name == "threshold", "which draws nothing but noise"


@each_sampler
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_text_is_the_same_on_every_device(name: str) -> None:
    here = written(*made(name), [0, 1, 2, 3])
    there = written(*made(name, device="cuda"), [0, 1, 2, 3], device="cuda")
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


@each_sampler
def test_every_sampler_says_whether_it_draws_from_p(name: str) -> None:
    """In its docstring or in that of the class it refines."""
    said = " ".join(" ".join((kind.__doc__ or "").split()) for kind in SAMPLERS.get(name).__mro__[:3])
    claims = ("sampler of p", "drawn from the model", "no draw from the model", "the same distribution")
    assert any(claim in said for claim in claims), said
