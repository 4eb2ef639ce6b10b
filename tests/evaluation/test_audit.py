"""What the autoregressive mode says of the model's own texts, against enumeration of every text and every block."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from sumi_core.evaluation.audit import Audit, OneCall, divergences, draw_blocks, entropy, next_token
from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.evaluation.measurement import Context, Findings, Model, declared_model, declared_settings
from tests.evaluation.fakes import EOS, Sequences
from tests.evaluation.test_drafts import LENGTH, SEED, N, V, made
from tests.layouts.exact import blocks

STEPS = [1, 3]


def measure(model: Model, folder: Path, count: int = 6, samples: int = 5) -> Findings:
    settings = EvaluationConfig(sequences=count, samples=samples, sampling_steps=STEPS, seed=SEED)
    context = Context(declared_settings(settings, Audit), Sequences(count, LENGTH, V), folder, 4)
    return Audit().run(declared_model(model, Audit), context)


def every_text(tokens: int, length: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(tokens), repeat=length)))


def test_the_entropies_of_predictions_add_up_to_the_entropy_of_texts() -> None:
    denoiser: Any = made().denoiser
    x = every_text(3, 3)
    log_p = next_token(denoiser, x, EOS, 3)
    nats = -log_p.gather(-1, x[..., None])[..., 0].sum(-1)
    assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-12)
    wanted = float(((-nats).exp() * nats).sum())
    assert float(((-nats).exp() * entropy(log_p).sum(-1)).sum()) == pytest.approx(wanted, abs=1e-10)


@pytest.mark.parametrize("read_out", ["own", "previous"])
@pytest.mark.parametrize("noise", ["uniform", "absorbing"])
def test_the_divergence_of_a_block_is_that_of_its_joint_distributions(noise: str, read_out: str) -> None:
    """Its mean over every block that one call can draw, against Σ_y d(y) log d(y)/p(y)."""
    model = made(noise, read_out)
    denoiser: Any = model.denoiser
    assert model.process is not None
    layout, tokens, eos = blocks(3, read_out), V, EOS
    x = torch.tensor(Sequences(1, 6, V).rows).long()
    call = draw_blocks(denoiser, model.process, layout, x, eos, 0, range(1))
    torch.testing.assert_close(call.log_d.exp().sum(-1), torch.ones(1, 6).double(), rtol=0, atol=1e-12)
    y = every_text(tokens, 3)
    for begin in (0, 3):
        log_d = call.log_d[0, begin : begin + 3]
        chance = log_d.exp()[torch.arange(3), y].prod(-1)
        drawn = x.expand(len(y), -1).clone()
        drawn[:, begin : begin + 3] = y
        every = OneCall(call.log_d.expand(len(y), -1, -1), drawn)
        found = divergences(denoiser, layout, x.expand(len(y), -1), eos, every)[:, begin : begin + 3]
        text = torch.cat([x[:, :begin].expand(len(y), -1), y], 1)
        log_p = next_token(denoiser, text, eos, tokens)[:, begin:].gather(-1, y[..., None])[..., 0].sum(-1)
        wanted = float((chance * (chance.log() - log_p)).sum())
        assert wanted > 0.01
        assert float((chance[:, None] * found).sum()) == pytest.approx(wanted, abs=1e-9)


def test_a_canvas_of_one_token_under_previous_is_the_autoregressive_mode() -> None:
    """Nothing diverges, and the drawn text is its own."""
    model = made(read_out="previous")
    denoiser: Any = model.denoiser
    assert model.process is not None
    x, layout = torch.tensor(Sequences(3, LENGTH, V).rows).long(), blocks(1, "previous")
    call = draw_blocks(denoiser, model.process, layout, x, EOS, 0, range(3))
    found = divergences(denoiser, layout, x, EOS, call)
    torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-9)


def test_texts_of_the_canvas_are_read_by_the_autoregressive_mode(tmp_path: Path) -> None:
    model = made()
    found = measure(model, tmp_path)
    figures = found.summary["audit"]
    assert {"entropy", "canvas_1", "canvas_3", "divergence_of_block"} <= figures.keys()
    from sumi_core.sampling import SAMPLERS

    sampler = SAMPLERS.build(
        "blockwise", {}, process=model.process, vocabulary=made_vocabulary(), layout=model.objective.layout
    )
    for steps in STEPS:
        x = sampler.sample(model.denoiser, num=5, length=LENGTH, steps=steps, seed=SEED).tokens
        log_p = next_token(model.denoiser, x, EOS, V)
        wanted = -float(log_p.gather(-1, x[..., None]).mean())
        assert figures[f"canvas_{steps}"] == pytest.approx(wanted, abs=1e-12)
    table = found.tables["audit.parquet"]
    assert list(table["offset"]) == list(range(N))
    assert figures["divergence_of_block"] == pytest.approx(table["divergence"].sum(), abs=1e-12)
    assert "its canvas mode, steps a block: 3" in "\n".join(found.texts)


def made_vocabulary() -> Any:
    from sumi_core.data.vocabulary import Vocabulary

    return Vocabulary(V, EOS)


def test_a_model_without_an_autoregressive_mode_has_none(tmp_path: Path) -> None:
    assert measure(made(objective="nelbo"), tmp_path) == Findings()
