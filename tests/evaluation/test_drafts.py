"""What drafts are worth: told by one pass and computed here block by block; found in decoding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sumi_core.data.noise import EVALUATION, Noise
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.evaluation.drafts import Drafts, read_drafts
from sumi_core.evaluation.measurement import Context, Findings, Model, declared_model, declared_settings
from sumi_core.kernels import chunks
from sumi_core.layouts.blocks import Blocks
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import DenoiserInput
from sumi_core.objectives import OBJECTIVES
from sumi_core.sampling import SAMPLERS
from tests.corruption.enumerable import World, build_process
from tests.evaluation.fakes import EOS, Sequences
from tests.layouts.exact import blocks
from tests.models.stock import lively, small
from tests.sampling.test_reverse import Largest
from tests.sampling.two_modes import two_modes

V, LENGTH, N, SEED = 9, 12, 4, 3


def made(noise: str = "uniform", read_out: str = "own", objective: str = "joint", **options: Any) -> Model:
    process = build_process(noise, "linear", V)
    context = {"process": process, "vocabulary": Vocabulary(V, EOS), "layout": blocks(N, read_out)}
    denoiser = lively(Denoiser(small(attention="causal"), process.num_states)).double()
    with torch.no_grad():
        denoiser.lm_head.weight.mul_(0.5)
    sampler = SAMPLERS.build("speculative", options, **context)
    unused: Any = None
    return Model(denoiser, OBJECTIVES.build(objective, {}, **context), sampler, process, unused, torch.device("cpu"))


def measure(model: Model, folder: Path, count: int = 10, samples: int = 6) -> Findings:
    config = declared_settings(EvaluationConfig(sequences=count, samples=samples, seed=SEED), Drafts)
    return Drafts().run(declared_model(model, Drafts), Context(config, Sequences(count, LENGTH, V), folder, 4))


@pytest.mark.parametrize("read_out", ["own", "previous"])
@pytest.mark.parametrize("noise", ["uniform", "absorbing"])
def test_costs_and_chances_are_those_of_each_block_by_itself(noise: str, read_out: str, tmp_path: Path) -> None:
    temperature = 0.7
    model = made(noise, read_out, temperature=temperature, verify="rejection")
    table = measure(model, tmp_path).tables["drafts.parquet"]
    denoiser: Any = model.denoiser
    layout = model.objective.layout
    assert isinstance(layout, Blocks)
    assert model.process is not None
    x = torch.tensor(Sequences(10, LENGTH, V).rows.astype(np.int64))
    z = model.process.sample_prior(Noise(EVALUATION + SEED, "drafts", 0, range(10)), LENGTH)
    cost, overlap, kept = (torch.zeros(10, LENGTH // N, N).double() for _ in range(3))
    with torch.no_grad():
        p = denoiser.logits(torch.cat([torch.full((10, 1), EOS), x[:, :-1]], 1))[..., :V].log_softmax(-1)
        for block in range(LENGTH // N):
            part = slice(block * N, (block + 1) * N)
            asked = DenoiserInput(z[:, part], torch.ones(10))
            d = layout.canvas(denoiser, x, asked, block, EOS).logits()[..., :V].log_softmax(-1)
            own, wanted = p[:, part], x[:, part, None]
            cost[:, block] = (own.gather(-1, wanted) - d.gather(-1, wanted))[..., 0]
            sharp = [(each / temperature).softmax(-1) for each in (own, d)]
            overlap[:, block] = 1 - (sharp[0] - sharp[1]).abs().sum(-1) / 2
            sharp_own, sharp_drafted = (each.gather(-1, wanted)[..., 0] for each in sharp)
            kept[:, block] = (sharp_drafted / sharp_own).clamp(max=1)
    np.testing.assert_allclose(table["cost"], cost.mean((0, 1)), atol=1e-12)
    np.testing.assert_allclose(table["cost_stderr"], cost.mean(1).std(0) / 10**0.5, atol=1e-12)
    np.testing.assert_allclose(table["overlap"], overlap.mean((0, 1)), atol=1e-12)
    kept[..., 0] = 1  # the first token is no draft
    stand = (kept.cumprod(-1)[..., :-1] * overlap[..., 1:]).mean((0, 1))
    np.testing.assert_allclose(table["predicted"][1:], stand, atol=1e-12)
    assert (table["agreement"] < table["overlap"]).all()


@pytest.mark.parametrize("noise", ["uniform", "absorbing"])
def test_exact_modes_pay_the_total_correlation_of_a_block(noise: str, tmp_path: Path) -> None:
    """Σ_i E KL(p_i ‖ d_i) of one-shot drafts is the total correlation of the block's tokens given the text before it,
    and E TV(p_i, d_i) ≤ √(I_i/2), I_i = I(x_i; x_{m:i−1} | x_{<m}): over all texts, of both blocks."""
    world, n = World(noise, tokens=2, length=6, seed=3), 3
    context = {"process": world.process, "vocabulary": Vocabulary(2, EOS), "layout": blocks(n)}
    sampler: Any = SAMPLERS.build("speculative", {}, **context)
    denoiser: Any = two_modes(World(noise, tokens=2, length=6, seed=3), world, own=True, trusts=0.0)
    unused: Any = None
    objective = OBJECTIVES.build("joint", {}, **context)
    model = Model(denoiser, objective, sampler, world.process, unused, torch.device("cpu"))
    text = Sequences(len(world.x), world.length, 2)
    text.rows = world.x.numpy().astype(np.uint16)
    config = declared_settings(EvaluationConfig(sequences=len(world.x), seed=SEED), Drafts)
    told = read_drafts(model, sampler, Context(config, text, tmp_path, 64))
    cost, overlap = (np.tensordot(world.p.numpy(), part, 1) for part in (told.cost, told.overlap))  # [K, n]

    def entropy(*places: int) -> float:
        group = (world.x[:, list(places)] * 2 ** torch.arange(len(places))).sum(-1)
        return float(torch.special.entr(torch.bincount(group, world.p)).sum())

    for block, m in enumerate((0, n)):
        end = m + n
        alone = sum(entropy(*range(m), i) - entropy(*range(m)) for i in range(m, end))
        correlation = alone - (entropy(*range(end)) - entropy(*range(m)))
        assert float(cost[block].sum()) == pytest.approx(correlation, abs=1e-9)
        for i in range(m, end):
            own = entropy(*range(m), i) - entropy(*range(m)) + entropy(*range(i)) - entropy(*range(i + 1))
            assert cost[block, i - m] == pytest.approx(own, abs=1e-9)
            assert 1 - overlap[block, i - m] <= (max(own, 0) / 2) ** 0.5 + 1e-9
        assert correlation > 0.05


@pytest.mark.parametrize("shape", ["linear", "fan"])
def test_drafts_that_cannot_be_wrong_are_told_and_found(shape: str, tmp_path: Path) -> None:
    """Every token is as probable to either mode, and shared noise chooses the same one."""
    model = made(shape=shape, width=3)
    denoiser: Any = model.denoiser
    with torch.no_grad():
        denoiser.lm_head.weight.zero_()
    found = measure(model, tmp_path)
    drafts = {"linear": 2, "fan": 3}[shape]
    figures = found.summary["drafts"]
    assert figures["agreement"] == pytest.approx(1)
    assert figures["cost_of_block"] == pytest.approx(0, abs=1e-12)
    assert figures["tokens_per_forward_predicted"] == pytest.approx({"linear": 2, "fan": 4}[shape])
    # linear: 12 tokens from six passes. fan: 1, 4, 4 and the last 3.
    assert figures["tokens_per_forward"] == pytest.approx({"linear": 2, "fan": 3}[shape])
    table = found.tables["drafts.parquet"]
    assert table["found"][1 : drafts + 1].tolist() == [1.0] * drafts
    assert table["found"].isna().sum() == N - drafts
    assert "at temperature 1 writes" in found.texts[-1]


def test_what_decoding_shows_is_near_what_was_told_of_its_own_texts(tmp_path: Path) -> None:
    """Rejection on texts that the model wrote itself: drafts stand about as often as the pass over such texts says."""
    model = made(verify="rejection", width=2)
    written = model.sampler.sample(model.denoiser, num=300, length=LENGTH, steps=1, seed=11)  # type: ignore[arg-type]
    text = Sequences(300, LENGTH, V)
    text.rows = written.tokens.numpy().astype(np.uint16)
    config = declared_settings(EvaluationConfig(sequences=300, samples=300, seed=SEED), Drafts)
    table = Drafts().run(model, Context(config, text, tmp_path, 64)).tables["drafts.parquet"]
    assert float(table["found"][1]) == pytest.approx(float(table["predicted"][1]), abs=0.04)
    assert 0.1 < float(table["found"][1]) < 0.9


def test_no_float64_table_of_the_texts_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """At a large vocabulary, of which a chunk holds 4 places, the modes are compared a chunk at a time."""
    monkeypatch.setattr(f"{__name__}.V", 2000)
    model: Any = made()
    model.denoiser.float()
    states = model.process.num_states
    monkeypatch.setitem(chunks._CHUNK_ENTRIES, "cpu", 4 * states)
    config = declared_settings(EvaluationConfig(sequences=4, seed=SEED), Drafts)
    with Largest() as watched:
        read_drafts(model, model.sampler, Context(config, Sequences(4, LENGTH, 2000), tmp_path, 4))
    assert 0 < watched.found <= 4 * states, "of [B, L, S] = 48 places"


def test_a_model_of_one_mode_has_no_drafts(tmp_path: Path) -> None:
    assert measure(made(objective="nelbo"), tmp_path) == Findings()
