"""``bound_loss``: the bound as a loss of the denoiser's own logits, for every process and parameterisation."""

from __future__ import annotations

import pytest
import torch

from sumi_core.corruption import PARAMETERISATIONS
from sumi_core.corruption.process import ForwardProcess
from sumi_core.kernels.row_loss import RowLoss
from sumi_core.models.interface import DenoiserInput, FromLogits
from tests.corruption.enumerable import CASES, build_process
from tests.corruption.test_closed_forms import CLOSE


@pytest.mark.parametrize("parameterisation", PARAMETERISATIONS.names())
@pytest.mark.parametrize(("name", "schedule"), CASES)
def test_it_is_the_integrand_of_what_the_logits_mean(name: str, schedule: str, parameterisation: str) -> None:
    """Value and gradient against the conversion written out over the whole table, differentiated by autograd."""
    process = build_process(name, schedule, 5)
    process.parameterisation = PARAMETERISATIONS.build(parameterisation, {})
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(5, (3, 7), generator=generator)
    t = 0.05 + 0.9 * torch.rand(3, 7, dtype=torch.float64, generator=generator)
    z = torch.where(torch.rand(3, 7, generator=generator) < 0.5, x, process.num_states - 1)
    logits = torch.randn(3, 7, process.num_states, dtype=torch.float64, generator=generator, requires_grad=True)
    scale = torch.rand(3, 7, dtype=torch.float64, generator=generator)

    loss = process.bound_loss(x, z, t)
    assert isinstance(loss, RowLoss)
    output = FromLogits(lambda tokens, level: logits)(DenoiserInput(z))
    found = output.apply(loss)
    left_out = process.leave_one_out(logits, z, t)
    expected = ForwardProcess.leave_one_out_loss(process, x, z, t).of(left_out)
    # Where nothing jumps into z the closed forms say 0, and so does the general one.
    torch.testing.assert_close(found, expected, **CLOSE)
    (slope,) = torch.autograd.grad((scale * found).sum(), logits)
    (wanted,) = torch.autograd.grad((scale * expected).sum(), logits)
    torch.testing.assert_close(slope, wanted, rtol=1e-8, atol=1e-10)


def test_a_weight_of_zero_silences_a_row_whatever_it_says() -> None:
    class Infinite(RowLoss):
        def value(self, chunk: torch.Tensor, rows: object) -> torch.Tensor:
            return torch.full_like(chunk[:, 0], torch.inf)

        def gradient(self, chunk: torch.Tensor, rows: object, scale: torch.Tensor) -> torch.Tensor:
            return torch.full_like(chunk, torch.inf) * scale[:, None]  # 0 · ∞ is NaN

    weight = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    logits = torch.zeros(2, 2, 3, requires_grad=True)
    value = Infinite().times(weight).of(logits)
    assert value.tolist() == [[0.0, torch.inf], [torch.inf, 0.0]]
    (slope,) = torch.autograd.grad(value.sum(), logits)
    assert slope.tolist() == [[[0.0] * 3, [torch.inf] * 3], [[torch.inf] * 3, [0.0] * 3]]


@pytest.mark.parametrize("name", ["unigram", "mixture", "hybrid"])
def test_a_broken_schedule_reaches_the_loss(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only 0 / 0 counts as nothing to pay: a rate that is not a number must not train on a loss of 0."""
    process = build_process(name)
    broken = {"rate": lambda t: torch.full_like(t, torch.nan), "dalpha": lambda t: torch.full_like(t, torch.nan)}
    for method, value in broken.items():
        monkeypatch.setattr(process, method, value)
    x = torch.tensor([[0, 1, 2]])
    loss = process.leave_one_out_loss(x, x.roll(1), torch.full((1, 3), 0.5, dtype=torch.float64))
    assert loss.of(torch.zeros(1, 3, process.num_states)).isnan().all()
