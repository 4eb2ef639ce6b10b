"""Temperature, top-k, top-p and min-p: as stock transformers define them, wherever a sampler has them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sumi_core.base.options import ConfigError
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserInput
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.constraints import ForbiddenTokens
from sumi_core.sampling.generate import generate
from sumi_core.sampling.truncation import changes, sharpened
from tests.corruption.enumerable import build_process
from tests.layouts.exact import blocks
from tests.models.stock import lively, small
from tests.sampling.test_generate import knows
from tests.sampling.test_grids import experiment

NEUTRAL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
SETTINGS: list[dict[str, Any]] = [
    {"temperature": 0.6},
    {"top_k": 3},
    {"top_p": 0.7},
    {"min_p": 0.2},
    {"temperature": 1.7, "top_k": 6, "top_p": 0.8, "min_p": 0.1},
    {"top_k": 50},
]


@pytest.mark.parametrize("changed", SETTINGS, ids=str)
def test_probabilities_are_those_of_stock_transformers(changed: dict[str, Any]) -> None:
    from transformers.generation import logits_process as stock

    options = SimpleNamespace(**NEUTRAL | changed)
    logits = 2 * torch.randn(40, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    warpers = [stock.TemperatureLogitsWarper(options.temperature)] if options.temperature != 1 else []
    warpers += [stock.TopKLogitsWarper(options.top_k)] if options.top_k else []
    warpers += [stock.TopPLogitsWarper(options.top_p)] if options.top_p < 1 else []
    warpers += [stock.MinPLogitsWarper(options.min_p)] if options.min_p else []
    wanted = logits
    for warper in warpers:
        wanted = warper(None, wanted)
    found = sharpened(logits, options)
    torch.testing.assert_close(found / found.sum(-1, keepdim=True), wanted.softmax(-1), rtol=0, atol=1e-12)
    assert changes(options)
    assert not changes(SimpleNamespace(**NEUTRAL))


def test_temperature_zero_and_one_token_left_are_the_most_probable_token() -> None:
    logits = torch.randn(40, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for changed in ({"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1 - 1e-9}):
        found = sharpened(logits, SimpleNamespace(**NEUTRAL | changed))
        assert torch.equal(found.argmax(-1), logits.argmax(-1))
        assert bool(((found > 0).sum(-1) == 1).all())


def written(name: str, noise: str | None, steps: int = 6, **options: Any) -> torch.Tensor:
    """2,000 tokens of a model that predicts 0.5, 0.3, 0.2 everywhere."""
    process = None if noise is None else build_process(noise, "linear", 3)
    layout = {"layout": blocks(4, "own")} if name == "blockwise" else {}
    options |= {"corrections": 4} if name == "self_correction" else {}
    sampler = SAMPLERS.build(name, options, process=process, vocabulary=Vocabulary(3, 0), **layout)
    return sampler.sample(
        knows(3 if process is None else process.num_states), num=100, length=20, steps=steps, seed=0
    ).tokens


WRITERS = [
    ("ancestral", "uniform"),
    ("ancestral", "hybrid"),
    ("ancestral", "absorbing"),
    ("blockwise", "uniform"),
    ("predictor_corrector", "uniform"),
    ("self_correction", "clustered"),
    ("first_hitting", "absorbing"),
    ("left_to_right", None),
    ("autoregressive", None),
]


@pytest.mark.parametrize(("name", "noise"), WRITERS)
def test_what_is_cut_off_is_not_written_and_the_rest_keeps_its_proportions(name: str, noise: str | None) -> None:
    free = written(name, noise).flatten().bincount(minlength=3)
    assert free[2] > 300
    held = written(name, noise, top_k=2).flatten().bincount(minlength=3)
    assert held[2] == 0
    assert float(held[0] / held[1]) == pytest.approx(5 / 3, rel=0.25)
    cold = written(name, noise, temperature=0.5).flatten().bincount(minlength=3)
    assert float(cold[0] / cold[1]) == pytest.approx(25 / 9, rel=0.25)
    assert bool((written(name, noise, top_p=0.4) == 0).all())


@pytest.mark.parametrize("name", ["ancestral", "blockwise", "predictor_corrector"])
def test_greedy_steps_read_off_pure_noise_what_is_most_probable(name: str) -> None:
    assert bool((written(name, "uniform", greedy_tail=1, steps=1) == 0).all())
    assert len(written(name, "uniform", steps=1).unique()) == 3


@pytest.mark.parametrize("noise", ["uniform", "hybrid", "absorbing"])
def test_a_greedy_tail_takes_the_most_probable_tokens_of_the_posterior(noise: str) -> None:
    process = build_process(noise, "linear", 6)
    denoiser = lively(Denoiser(small(), process.num_states)).eval()

    def film(tail: int) -> list[Canvas]:
        sampler = SAMPLERS.build("ancestral", {"greedy_tail": tail}, process=process, vocabulary=Vocabulary(6, 2))
        prompt = torch.tensor([], dtype=torch.int64)
        return list(generate(sampler, denoiser, Canvas.blank([prompt] * 20, [9] * 20, seed=0, steps=5)))

    greedy, drawn = film(1), film(0)
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(greedy[:-1], drawn[:-1], strict=True))
    z, t = greedy[-2].tokens, torch.tensor([[1 / 5]], dtype=torch.float64)
    with torch.no_grad():
        logits = process.predict(denoiser, DenoiserInput(z, t.expand(20, 1)[:, 0]), t)
    assert torch.equal(greedy[-1].tokens, process.log_posterior(logits, z, t).argmax(-1))
    assert not torch.equal(greedy[-1].tokens, drawn[-1].tokens)


def test_constraints_come_first() -> None:
    """The most probable token is forbidden: top_k leaves the best of the others, not none."""
    process = build_process("uniform", "linear", 3)
    sampler = SAMPLERS.build("ancestral", {"top_k": 1}, process=process, vocabulary=Vocabulary(3, 0))
    tokens = sampler.sample(knows(3), num=3, length=5, steps=4, seed=0, constraints=[ForbiddenTokens([0])]).tokens
    assert bool((tokens == 1).all())


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"temperature": -1}, "evaluation.sampler.temperature: must be at least 0, got -1"),
        ({"top_k": -1}, "evaluation.sampler.top_k: must be at least 0, got -1"),
        ({"top_p": 0}, "evaluation.sampler.top_p: must be above 0, got 0"),
        ({"min_p": 1}, "evaluation.sampler.min_p: must be below 1, got 1"),
        ({"greedy_tail": -1}, "evaluation.sampler.greedy_tail: must be at least 0, got -1"),
    ],
)
def test_values_that_mean_nothing_are_refused(option: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        experiment(**option)
