"""Closed-form gradients against finite differences and against autograd of the general form; precision and chunks."""

import pytest
import torch
from torch.autograd import gradcheck

import sumi_core.kernels.chunks as chunks_module
from sumi_core.corruption import PROCESSES, SCHEDULES
from sumi_core.data.noise import Noise
from sumi_core.kernels.row_loss import cross_entropy
from tests.corruption.enumerable import CASES, NAMES, SETTINGS, build_process, reference_integrand, vocabulary_of


def draw(process, batch=4, length=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(process.num_tokens, (batch, length), generator=generator)
    t = torch.linspace(0.05, 0.95, batch, dtype=torch.float64)[:, None]
    z = process.corrupt(x, t, Noise(seed, "corrupt", 0, range(batch)))
    logits = torch.randn(batch, length, process.num_states, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), x, z, t


@pytest.mark.parametrize(("process", "schedule"), CASES)
def test_gradient_against_finite_differences(process, schedule):
    process = build_process(process, schedule, 6)
    logits, x, z, t = draw(process)
    assert (z == x).any()
    assert (z != x).any()
    assert gradcheck(lambda y: process.bound_integrand(y, x, z, t), (logits,), eps=1e-6, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("name", "schedule"), CASES)
@pytest.mark.parametrize("entries", [1, 20, 10**9])  # a row a chunk, a few rows, everything at once
def test_gradient_equals_autograd_of_the_definition_at_any_chunk_size(name, schedule, entries, monkeypatch):
    monkeypatch.setitem(chunks_module._CHUNK_ENTRIES, "cpu", entries)
    process = build_process(name, schedule, 9)
    logits, x, z, t = draw(process, batch=5, length=7)
    weight = torch.rand(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = []
    for integrand in (
        process.bound_integrand(logits, x, z, t),
        reference_integrand(name, process.schedule, logits, x, z, t),
    ):
        (gradient,) = torch.autograd.grad((weight * integrand).sum(), logits)
        gradients.append(gradient)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-10)


def test_mask_gets_no_gradient():
    process = build_process("absorbing", "linear", 6)
    logits, x, z, t = draw(process)
    process.bound_integrand(logits, x, z, t).sum().backward()
    assert logits.grad is not None
    assert (logits.grad[..., process.mask_id] == 0).all()
    assert (logits.grad[z != process.mask_id] == 0).all()
    assert logits.grad.abs().sum() > 0


def test_a_batch_without_a_mask_costs_nothing():
    """At low noise a small batch may hold no mask at all: loss 0 and gradient 0, no crash over an empty selection."""
    process = build_process("absorbing", "linear", 6)
    logits, x, _, t = draw(process)
    integrand = process.bound_integrand(logits, x, x, t)
    integrand.sum().backward()
    assert logits.grad is not None
    assert (integrand == 0).all()
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("process", NAMES)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_logits_are_lifted_to_float32(process, kind):
    """The loss of rounded logits equals the float64 loss *of the same rounded logits* to float32 accuracy."""
    process = build_process(process, "linear", 1000)
    logits, x, z, t = draw(process)
    rounded = logits.detach().to(kind).requires_grad_()
    exact = rounded.detach().double().requires_grad_()
    low, high = (process.bound_integrand(y, x, z, t) for y in (rounded, exact))
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), high, rtol=2e-5, atol=1e-6)
    low.sum().backward()
    high.sum().backward()
    assert rounded.grad is not None
    assert rounded.grad.dtype == kind
    assert exact.grad is not None
    unit = {torch.bfloat16: 2e-2, torch.float16: 2e-3, torch.float32: 1e-4}[kind]
    torch.testing.assert_close(rounded.grad.double(), exact.grad, rtol=unit, atol=1e-3 * unit)


@pytest.mark.parametrize("process", NAMES)
@pytest.mark.parametrize("level", [1e-4, 1e-3, 0.5, 0.999, 0.9999, 1 - 1e-6])
def test_float32_is_enough_near_the_ends_and_for_large_vocabularies(process, level):
    """Near pure noise the weight is 1/α: logarithms of the size of log V must not be left to cancel in float32."""
    process = build_process(process, "linear", 50_000)
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, 3, process.num_states, generator=generator)
    x = torch.randint(process.num_tokens, (2, 3), generator=generator)
    t = torch.full((2, 1), level, dtype=torch.float64)
    z = process.corrupt(x, t, Noise(0, "corrupt", 0, range(2)))
    z[:, 0] = x[:, 0]
    inputs = [logits.clone().requires_grad_(), logits.double().requires_grad_()]
    low, high = (process.bound_integrand(y, x, z, t) for y in inputs)
    torch.testing.assert_close(low.double(), high, rtol=1e-4, atol=2e-5)
    slopes = [torch.autograd.grad(value.sum(), y)[0].double() for value, y in zip((low, high), inputs, strict=True)]
    # Against the largest of its row: p of 50,000 tokens has some 1e-6 of error, and so has what cancels to next to 0.
    assert ((slopes[0] - slopes[1]).abs().amax(-1) < 1e-5 * slopes[1].abs().amax(-1) + 1e-7).all()


@pytest.mark.parametrize("process", NAMES)
@pytest.mark.parametrize("level", [1e-6, 1e-4, 0.01])
def test_being_certain_of_a_noise_token_costs_what_it_does_in_float32(process, level):
    """Near the clean end its ρ − 1 is −1 in float32, but −log ρ is far from infinite."""
    process = build_process(process, "linear", 100_000)
    x, z = torch.tensor([[5, 6]]), torch.tensor([[7, 8]])
    logits = torch.zeros(1, 2, process.num_states)
    logits[0, 0, 7], logits[0, 1, 8] = 12.0, 40.0
    t = torch.full((1, 1), level, dtype=torch.float64)
    low, high = (process.bound_integrand(y, x, z, t) for y in (logits, logits.double()))
    assert high.isfinite().all()
    torch.testing.assert_close(low.double(), high, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("process", NAMES)
def test_next_to_no_noise_is_finite_in_float32(process):
    """10⁻⁴⁰ of the tokens hit, where α/(1 − α) is beyond float32: the steepest schedule at a small ε."""
    name, options = SETTINGS[process]
    context = {"vocabulary": vocabulary_of(1000), "schedule": SCHEDULES.build("polynomial", {"exponent": 8.0})}
    process = PROCESSES.build(name, options, **context)
    logits = torch.randn(1, 2, process.num_states, generator=torch.Generator().manual_seed(0)).requires_grad_()
    t = torch.full((1, 1), 1e-5, dtype=torch.float64)
    for z in ([5, 6], [5, 7]):  # as it was, and one of them noise
        value = process.bound_integrand(logits, torch.tensor([[5, 6]]), torch.tensor([z]), t)
        slopes = torch.autograd.grad((value * -1 / process.log_snr_rate(t).to(value)).sum(), logits)[0]
        assert value.isfinite().all()
        assert slopes.isfinite().all()


def test_cross_entropy_equals_pytorchs():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(7, (3, 5), generator=generator)
    ours = cross_entropy(logits, targets, 7)
    theirs = torch.nn.functional.cross_entropy(logits[..., :7].reshape(-1, 7), targets.reshape(-1), reduction="none")
    torch.testing.assert_close(ours.reshape(-1), theirs)
    weight = torch.rand(3, 5, generator=generator, dtype=torch.float64)
    mine, reference = (
        torch.autograd.grad((weight.reshape(-1) * y.reshape(-1)).sum(), logits)[0] for y in (ours, theirs)
    )
    torch.testing.assert_close(mine, reference)
    assert gradcheck(lambda y: cross_entropy(y, targets, 7, where=targets > 2), (logits,))
