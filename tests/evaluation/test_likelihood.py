"""Bits per byte against models whose likelihood is known, and their errors against repeated measurement."""

import math

import numpy as np
import pytest
import torch

from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.evaluation.likelihood import (
    documents_of,
    evaluate_likelihood,
    loss_by_level,
    monte_carlo_stderr,
    spread_indices,
    summarize,
)
from sumi_core.models.config import ModelConfig
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import FromLogits
from tests.evaluation.fakes import Sequences, UniformDenoiser, likelihoods, objective

VOCAB, LENGTH = 11, 12
SMALL = ModelConfig(hidden_size=16, intermediate_size=24, num_layers=1, num_heads=2, num_kv_heads=1, init_std=0.5)


def config(**more) -> EvaluationConfig:
    return EvaluationConfig(**{"sequences": 24, "times_per_sequence": 5, **more})


def measure(
    name="nelbo", process="uniform", denoiser=None, data=None, batch_size=7, schedule="linear", clock=None, **more
):
    measured = objective(name, VOCAB, process, schedule, clock)
    states = VOCAB + (process == "absorbing")
    return evaluate_likelihood(
        measured.reading,
        denoiser if denoiser is not None else UniformDenoiser(states),
        data or Sequences(24, LENGTH, VOCAB),
        config(**more),
        batch_size=batch_size,
    )


# --- known likelihoods ----------------------------------------------------------------------------------------------


def test_uniform_autoregressive_model_takes_log_v_nats_a_token():
    sequences = Sequences(24, LENGTH, VOCAB)
    summary = summarize(measure("autoregressive", None, data=sequences))
    byte_count = sum(sequences.bytes(i) for i in range(24))
    assert summary.exact
    assert summary.nats_per_token == pytest.approx(math.log(VOCAB))
    assert summary.nats_per_token_stderr == pytest.approx(0, abs=1e-7)
    assert summary.bits_per_byte == pytest.approx(math.log2(VOCAB) * 24 * LENGTH / byte_count)
    assert summary.diffusion_bits_per_byte == pytest.approx(summary.bits_per_byte)
    assert summary.bits_per_byte_mc_stderr == 0
    assert summary.bits_per_byte_stderr > 0  # sequences differ in bytes per token
    assert (summary.sequences, summary.tokens, summary.bytes) == (24, 24 * LENGTH, byte_count)


@pytest.mark.parametrize("process", ["uniform", "absorbing"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_diffusion_model_that_knows_nothing_takes_log_v_nats_a_token(process, schedule):
    """Equal logits describe uniform text, and such a guess leaves the bound no gap: its three terms make log V."""
    sizes = {"data": Sequences(100, 32, VOCAB), "batch_size": 500, "sequences": 100, "times_per_sequence": 10}
    summaries = [summarize(measure(process=process, schedule=schedule, seed=seed, **sizes)) for seed in range(6)]
    summary = summaries[0]
    scale = summary.tokens / summary.bytes / math.log(2)
    error = math.sqrt(sum(s.bits_per_byte_mc_stderr**2 for s in summaries)) / 6
    assert not summary.exact
    assert error < 0.05 * math.log(VOCAB) * scale
    assert abs(np.mean([s.bits_per_byte for s in summaries]) - math.log(VOCAB) * scale) < 3 * error
    assert summary.nats_per_token * scale == pytest.approx(summary.bits_per_byte)
    terms = (summary.diffusion_bits_per_byte, summary.reconstruction_bits_per_byte, summary.prior_bits_per_byte)
    assert sum(terms) == pytest.approx(summary.bits_per_byte)
    assert min(terms) >= 0


def test_a_random_model_is_worse_than_log_v():
    denoiser = Denoiser(SMALL, VOCAB).eval()
    summary = summarize(measure(denoiser=denoiser))
    assert summary.nats_per_token > math.log(VOCAB) + 0.05


def test_figures_leave_out_what_is_unknown():
    summary = summarize(measure(times_per_sequence=1))
    assert math.isnan(summary.bits_per_byte_mc_stderr)
    figures = summary.metrics()
    assert "bits_per_byte_mc_stderr" not in figures
    assert all(math.isfinite(v) for v in figures.values())


# --- the draws ------------------------------------------------------------------------------------------------------


def test_batch_size_changes_nothing():
    denoiser = Denoiser(SMALL, VOCAB).eval()
    one, other = measure(denoiser=denoiser, batch_size=3), measure(denoiser=denoiser, batch_size=1000)
    np.testing.assert_array_equal(one.level, other.level)
    np.testing.assert_allclose(one.total, other.total, rtol=1e-5)
    again = measure(denoiser=denoiser, batch_size=3)
    np.testing.assert_array_equal(one.total, again.total)


def test_batch_size_does_not_change_the_noise():
    first, second = UniformDenoiser(VOCAB), UniformDenoiser(VOCAB)
    measure(denoiser=first, batch_size=5)
    measure(denoiser=second, batch_size=24 * 5)

    def diffusion_inputs(denoiser):  # every other call is the reconstruction term's
        return torch.cat(denoiser.seen[::2])

    assert torch.equal(diffusion_inputs(first), diffusion_inputs(second))
    assert len(torch.unique(diffusion_inputs(first), dim=0)) > 100  # draws of a sequence differ


def test_cells_share_sequences_levels_and_noise():
    one, other = UniformDenoiser(VOCAB), UniformDenoiser(VOCAB)
    a = measure(denoiser=one)
    b = measure(denoiser=other)
    c = measure(process="absorbing")
    assert all(torch.equal(x, y) for x, y in zip(one.seen, other.seen, strict=True))
    np.testing.assert_array_equal(a.level, b.level)
    np.testing.assert_array_equal(a.level, c.level)
    np.testing.assert_array_equal(a.bytes, c.bytes)
    assert not np.array_equal(a.level, measure(seed=2).level)


def test_levels_are_stratified_within_and_across_sequences():
    level = measure(time_epsilon=0.01).level
    fraction = (level - 0.01) / 0.98
    np.testing.assert_allclose(np.diff(np.sort(fraction, axis=1)), 1 / 5, atol=1e-12)
    np.testing.assert_allclose(np.diff(np.sort(fraction.reshape(-1))), 1 / (24 * 5), atol=1e-12)
    assert level.min() >= 0.01
    assert level.max() < 0.99


def test_a_level_says_nothing_of_the_place_in_the_split():
    """Were levels to rise with the sequences, every range of them would be measured on one stretch of the texts."""
    sizes = {"data": Sequences(200, 8, VOCAB), "batch_size": 1000, "sequences": 200, "times_per_sequence": 2}
    level = np.sort(measure(**sizes).level, axis=1)
    assert abs(np.corrcoef(level[:, 0], np.arange(200))[0, 1]) < 0.2
    lowest = np.argsort(level[:, 0])[:40]
    assert np.histogram(lowest, bins=4, range=(0, 200))[0].min() >= 4


def test_frame_has_a_row_for_each_draw():
    measured = measure()
    frame = measured.frame([f"d{i}" for i in range(24)])
    assert len(frame) == 24 * 5
    row = frame[(frame.sequence == 3) & (frame.draw == 2)].iloc[0]
    assert row.text_digest == "d3"
    assert row.level == measured.level[3, 2]
    assert row.diffusion + row.reconstruction + row.prior == pytest.approx(measured.total[3, 2])


def test_fewer_sequences_than_asked_for_are_all_measured():
    assert len(measure(data=Sequences(9, LENGTH, VOCAB)).bytes) == 9


def test_too_few_sequences_are_refused():
    with pytest.raises(ValueError, match="validation_fraction"):
        measure(data=Sequences(1, LENGTH, VOCAB))


def test_a_diverged_model_is_refused():
    class Broken(UniformDenoiser):
        def forward(self, given):
            return FromLogits(lambda tokens, level: torch.full((*tokens.shape, VOCAB), torch.nan))(given)

    with pytest.raises(ValueError, match="24 of 24 validation sequences is not finite"):
        measure(denoiser=Broken(VOCAB))


def test_text_without_bytes_is_refused():
    with pytest.raises(ValueError, match="no text"):
        summarize(likelihoods(np.ones((3, 2)), level=np.full((3, 2), 0.5), bytes_=[0, 0, 0]))


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draws", [6, 7])
def test_monte_carlo_error_is_what_repeated_draws_show(draws):
    """Sequences with a common curve over t, a slope of their own, and noise that is far larger near t = 0."""
    generator = np.random.default_rng(0)
    count = 80
    own = generator.normal(10, 3, (count, 1))
    grid = np.arange(draws)[None, :] / draws + np.arange(count)[:, None] / (count * draws)
    sums, claimed = [], []
    for _ in range(600):
        time = (grid + generator.random()) % 1.0
        noise = generator.normal(0, 1, time.shape) * (1 + 0.5 / (time + 0.05))
        values = own * (1 + 0.1 * time) + 40 * time**2 + noise
        sums.append(values.mean(axis=1).sum())
        claimed.append(monte_carlo_stderr(values, time))
    assert math.sqrt(np.mean(np.square(claimed))) == pytest.approx(np.std(sums), rel=0.1)


def test_monte_carlo_error_of_texts_of_few_spans():
    """A span or two to a text: its level says little of the time it was drawn at, and only times are an even grid."""
    clock = {"name": "spans", "mean_length": 12.0, "window": 0.3}
    sums, claimed = [], []
    for seed in range(150):
        measured = measure(clock=clock, seed=seed, times_per_sequence=6)
        sums.append(measured.nats.sum())
        claimed.append(monte_carlo_stderr(measured.total, measured.time))
    assert math.sqrt(np.mean(np.square(claimed))) == pytest.approx(np.std(sums), rel=0.12)


def test_error_over_sequences_is_what_other_sequences_show():
    generator = np.random.default_rng(1)
    found, claimed = [], []
    for _ in range(800):
        bytes_ = generator.integers(10, 60, 50)
        draws = bytes_[:, None] * generator.normal(1.2, 0.2, (50, 1)) + generator.normal(0, 6, (50, 4))
        summary = summarize(likelihoods(draws, level=generator.random((50, 4)), bytes_=bytes_))
        found.append(summary.bits_per_byte)
        claimed.append(summary.bits_per_byte_stderr**2)
        assert summary.bits_per_byte_stderr > summary.bits_per_byte_mc_stderr
    assert math.sqrt(np.mean(claimed)) == pytest.approx(np.std(found), rel=0.08)


# --- by noise level -------------------------------------------------------------------------------------------------


def test_parts_of_the_bound_add_up():
    measured = measure(process="absorbing")
    curve = loss_by_level(measured, bins=10)
    assert curve["bits_per_byte"].sum() == pytest.approx(summarize(measured).diffusion_bits_per_byte)
    assert curve["draws"].sum() == 24 * 5
    assert (curve["high"] > curve["low"]).all()
    np.testing.assert_allclose(curve["noise"], (curve["low"] + curve["high"]) / 2, atol=0.02)  # linear: 1 − α = t


def test_integrand_of_a_known_curve():
    generator = np.random.default_rng(2)
    level = (generator.random() + np.arange(4000).reshape(1000, 4) / 4000) % 1.0
    curve = loss_by_level(likelihoods(16 * 3 * level**2, level=level, tokens=16, epsilon=1e-9), bins=8)
    expected = (curve["high"] ** 3 - curve["low"] ** 3) / (curve["high"] - curve["low"])
    np.testing.assert_allclose(curve["per_t"], expected, rtol=0.01)
    assert (curve["per_t_stderr"] > 0).all()


def test_an_exact_likelihood_has_no_levels():
    measured = measure("autoregressive", None)
    assert np.isnan(measured.level).all()
    assert loss_by_level(measured).empty


def test_intervals_without_draws_are_left_out():
    curve = loss_by_level(likelihoods(np.ones((3, 1)), level=np.array([[0.05], [0.06], [0.95]])), bins=10)
    assert curve["draws"].tolist() == [2, 1]
    assert math.isnan(curve["per_t_stderr"].iloc[1])


def test_training_validation_and_evaluation_share_no_noise_even_under_one_seed():
    from sumi_core.base.options import MAX_SEED
    from sumi_core.data.noise import EVALUATION, VALIDATION
    from sumi_core.training.validation import SEED

    training, evaluation = range(MAX_SEED + 1), range(EVALUATION, EVALUATION + MAX_SEED + 1)
    validation = range(VALIDATION, VALIDATION + MAX_SEED + 1)
    assert training.stop <= validation.start < validation.stop <= evaluation.start
    assert SEED in validation
    assert evaluation.stop <= 2**64, "a Philox key word"


def test_bits_per_byte_of_the_monte_carlo_error():
    generator = np.random.default_rng(0)
    level = (np.arange(32).reshape(8, 4) + 0.5) / 32
    measured = likelihoods(generator.gamma(2.0, size=(8, 4)), level=level)
    wanted = monte_carlo_stderr(measured.total, measured.time) / math.log(2) / measured.bytes.sum()
    assert summarize(measured).bits_per_byte_mc_stderr == pytest.approx(wanted)


def test_evaluated_sequences_are_spread_over_the_split():
    assert spread_indices(4, 4) == [0, 1, 2, 3]
    assert spread_indices(3, 30) == [5, 15, 25]


def test_a_sequence_belongs_to_the_document_in_which_it_begins():
    class Split:
        starts = ([0, 3], [], [2], [0], [1, 2])

        def document_starts(self, index):
            return np.array(self.starts[index], dtype=np.int64)

    assert documents_of(Split(), [0, 1, 2, 3, 4]).tolist() == [1, 2, 2, 4, 4]
    assert documents_of(Split(), [1, 4]).tolist() == [2, 4]
