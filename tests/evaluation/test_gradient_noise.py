"""The noise of the training gradient, against models whose gradient is known."""

import math
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from sumi_core.corruption import PROCESSES, SCHEDULES
from sumi_core.data.batch import Batch
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation.gradient_noise import measure_gradient_noise
from sumi_core.models.interface import FromLogits
from sumi_core.objectives import OBJECTIVES
from sumi_core.objectives.objective import Loss, Objective
from tests.evaluation.fakes import objective

WIDTH, COUNT = 50, 8


class Weights(nn.Module):
    """Weights that a loss is linear in, and one that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Parameter(torch.zeros(WIDTH))
        self.unused = nn.Parameter(torch.zeros(3))


class Linear:
    """Loss whose gradient is the mean over sequences of uniform numbers: covariance trace WIDTH / 12 / B, mean 1/2."""

    def loss(self, denoiser, batch):
        drawn = batch.noise("corrupt").uniform(WIDTH)
        return Loss((drawn @ denoiser.used).mean(), {})


class Tiny(nn.Module):
    """Logits from a table of weights."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(vocab, vocab, generator=torch.Generator().manual_seed(0)))

    def forward(self, given):
        return FromLogits(lambda tokens, level: self.table[tokens])(given)


def bounded() -> Objective:
    """A diffusion loss whose weight is bounded, so that its gradient has no heavy tail."""
    process = PROCESSES.build("uniform", {}, vocabulary=Vocabulary(11, 0), schedule=SCHEDULES.build("linear", {}))
    return OBJECTIVES.build("nelbo", {"weighting": "snr"}, process=process, vocabulary=Vocabulary(11, 0))


TOKENS = torch.zeros(COUNT, 5, dtype=torch.int64)


def test_trace_and_norm_are_unbiased():
    found = [measure_gradient_noise(Linear(), Weights(), TOKENS, pairs=4, seed=seed) for seed in range(200)]
    trace, norm = WIDTH / 12 / COUNT, WIDTH / 4
    for truth, estimates in ((trace, [f.variance for f in found]), (norm, [f.squared_norm for f in found])):
        values = np.array([e.value for e in estimates])
        spread = values.std(ddof=1)
        assert abs(values.mean() - truth) < 3 * spread / math.sqrt(len(found))
        assert np.sqrt(np.mean([e.stderr**2 for e in estimates])) == pytest.approx(spread, rel=0.15)


def test_it_is_the_variance_of_the_gradients_that_training_would_take():
    """Told again from two hundred gradients at other steps and their mean."""
    nelbo, denoiser = bounded(), Tiny(11)
    tokens = torch.randint(0, 11, (4, 6), generator=torch.Generator().manual_seed(1))
    found = measure_gradient_noise(nelbo, denoiser, tokens, pairs=100, seed=1)
    gradients = []
    for step in range(1000, 1200):
        batch = Batch(tokens, torch.arange(4), torch.arange(4), 4, step, 7)
        [gradient] = torch.autograd.grad(nelbo.loss(denoiser, batch).value, [denoiser.table])
        gradients.append(gradient.flatten())
    trace = float(torch.stack(gradients).double().var(dim=0, correction=1).sum())
    assert found.variance.value == pytest.approx(trace, abs=4 * math.sqrt(1.5) * found.variance.stderr)
    assert found.variance.value > 10 * found.variance.stderr
    alone = measure_gradient_noise(nelbo, denoiser, tokens[:1], pairs=100, seed=1)
    assert alone.variance.value > 2 * found.variance.value, "a smaller batch is noisier"


def test_next_token_prediction_has_no_noise():
    found = measure_gradient_noise(objective("autoregressive", 11), Tiny(11), TOKENS, pairs=2)
    assert found.variance == (0.0, 0.0)
    assert found.squared_norm.value > 0


def test_the_denoiser_is_left_as_it_is_and_the_figures_are_seeded():
    denoiser = Tiny(11)
    before = denoiser.table.detach().clone()
    with torch.no_grad():  # as an evaluation may call it
        first = measure_gradient_noise(objective("nelbo", 11, "uniform"), denoiser, TOKENS, pairs=2)
    assert denoiser.table.grad is None
    assert torch.equal(denoiser.table, before)
    assert first == measure_gradient_noise(objective("nelbo", 11, "uniform"), denoiser, TOKENS, pairs=2)
    assert first.metrics()["gradients"] == 4
    assert first.metrics()["sequences"] == COUNT


def test_one_pair_has_no_error():
    with pytest.raises(ValueError, match="at least 2"):
        measure_gradient_noise(Linear(), Weights(), TOKENS, pairs=1)


def test_no_more_than_two_gradients_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is as large as the model. When one is taken, the other one of its pair may be there and no third."""
    taken: list[weakref.ref[torch.Tensor]] = []
    held: list[int] = []
    real = torch.autograd.grad

    def grad(*args, **kwargs):
        held.append(sum(one() is not None for one in taken))
        found = real(*args, **kwargs)
        taken.append(weakref.ref(found[0]))
        return found

    monkeypatch.setattr(torch.autograd, "grad", grad)
    measure_gradient_noise(Linear(), Weights(), TOKENS, pairs=3)
    assert held == [0, 1, 0, 1, 0, 1]
