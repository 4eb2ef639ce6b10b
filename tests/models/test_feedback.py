"""Feedback: without one a denoiser is what it was, with masks it is the published rule, and noise decides the rest."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sumi_core.corruption import PARAMETERISATIONS
from sumi_core.corruption.belief import BeliefReader
from sumi_core.corruption.process import ForwardProcess
from sumi_core.kernels import chunks
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import Belief, DenoiserInput, Feedback, FromLogits
from sumi_core.models.size import num_parameters
from tests.corruption.enumerable import NAMES, World, build_process, kernel_of
from tests.models.stock import lively, small

TOKENS, ROWS, LENGTH = 36, 3, 5
READINGS = ("leave_one_out", "posterior")
FORMS: list[dict[str, Any]] = [
    {"name": "residual_context", "reading": "own", "rho": 1.0},
    {"name": "self_conditioning", "reading": "own"},
]


def residual(**options: Any) -> dict[str, Any]:
    return {**FORMS[0], **options}


def network(states: int, form: dict[str, Any] | None) -> Denoiser:
    return lively(Denoiser(small(feedback=form), states)).double()


def process_of(name: str, parameterisation: str = "leave_one_out") -> ForwardProcess:
    process = build_process(name, num_tokens=TOKENS)
    process.parameterisation = PARAMETERISATIONS.build(parameterisation, {})
    return process


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def states(process: ForwardProcess, seed: int = 0) -> Tensor:
    """Texts in noise, of which every second state is a mask where there is one."""
    z = torch.randint(TOKENS, (ROWS, LENGTH), generator=torch.Generator().manual_seed(seed))
    if process.mask_id is not None:
        z[:, ::2] = process.mask_id
    return z


def belief(process: ForwardProcess, logits: Tensor, z: Tensor, t: Tensor, where: Tensor | None = None) -> Belief:
    """What an earlier pass over the very same state predicted."""
    output = FromLogits(lambda tokens, level: logits)(DenoiserInput(z))
    everywhere = torch.ones(len(z), 1, dtype=torch.bool) if where is None else where
    return Belief(output, BeliefReader(process, z, t, z, t), everywhere)


# --- the base model -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [residual(rho=0.0), FORMS[1]], ids=["rho 0", "fresh gate"])
def test_a_form_that_lets_nothing_in_gives_the_logits_of_the_base_model_bit_for_bit(form: dict[str, Any]) -> None:
    base, fed = Denoiser(small(), TOKENS, seed=4), Denoiser(small(feedback=form), TOKENS, seed=4)
    z = states(process_of("uniform"))
    width = base.config.hidden_size
    feedback = Feedback(numbers(ROWS, LENGTH, width).float(), torch.rand(ROWS, LENGTH))
    with torch.no_grad():
        assert torch.equal(fed.logits(z, feedback=feedback), base.logits(z))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: str(form["name"]))
def test_no_feedback_is_feedback_of_zero(form: dict[str, Any]) -> None:
    process = process_of("uniform")
    fed, z, t = network(TOKENS, form), states(process), torch.tensor([[0.4]])
    where = torch.tensor([[True], [False], [True]])
    feedback = fed.feedback(belief(process, numbers(ROWS, LENGTH, TOKENS), z, t, where))
    with torch.no_grad():
        base, with_some = fed.logits(z), fed.logits(z, feedback=feedback)
    assert torch.equal(with_some[1], base[1])
    assert all(float((with_some[row] - base[row]).abs().min()) > 0 for row in (0, 2))


def test_a_denoiser_without_a_form_refuses_feedback() -> None:
    plain = Denoiser(small(), TOKENS)
    assert not plain.takes_feedback
    assert Denoiser(small(feedback=FORMS[0]), TOKENS).takes_feedback
    nothing = Feedback(torch.zeros(1, 2, 32), torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"takes no feedback: name a form of it under model\.feedback"):
        plain.logits(torch.zeros(1, 2, dtype=torch.int64), feedback=nothing)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: str(form["name"]))
def test_parameters_are_those_that_the_config_promises(form: dict[str, Any]) -> None:
    config = small(feedback=form)
    own = num_parameters(config, TOKENS)
    assert own == Denoiser(config, TOKENS).num_parameters()
    more = {"residual_context": 0, "self_conditioning": 3 * 32 * 48 + 32}[form["name"]]
    assert own - num_parameters(small(), TOKENS) == more


# --- residual context -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameterisation", READINGS)
@pytest.mark.parametrize("reading", READINGS)
def test_with_masks_both_readings_are_the_published_rule(reading: str, parameterisation: str) -> None:
    """(1 − a) E(mask) + a Δ with a = H(p)/log V at masks, E(z) at tokens (2601.22954)."""
    process = process_of("absorbing", parameterisation)
    fed, z, logits = network(TOKENS + 1, residual(reading=reading)), states(process), numbers(ROWS, LENGTH, TOKENS + 1)
    found = fed.model.feedback(
        fed.model.embed_tokens(z), fed.feedback(belief(process, logits, z, torch.tensor([[0.3]]).double()))
    )
    table = fed.model.embed_tokens.weight.detach()
    p = logits[..., :TOKENS].softmax(-1)
    a = (-(p * p.log()).sum(-1) / math.log(TOKENS)).unsqueeze(-1)
    expected = torch.where((z == TOKENS).unsqueeze(-1), (1 - a) * table[TOKENS] + a * (p @ table[:TOKENS]), table[z])
    torch.testing.assert_close(found.detach(), expected, rtol=0, atol=2.5e-16)
    assert torch.equal(found[z != TOKENS], table[z][z != TOKENS]), "a token that is not masked is never wrong"


@pytest.mark.parametrize("reading", READINGS)
def test_under_uniform_noise_a_prediction_counts_for_nothing_in_clean_text_and_for_all_in_noise(reading: str) -> None:
    process, z = process_of("uniform"), states(process_of("uniform"))
    fed, logits = network(TOKENS, residual(reading=reading)), numbers(ROWS, LENGTH, TOKENS)
    p = logits.softmax(-1)
    whole = -(p * p.log()).sum(-1) / math.log(TOKENS)

    def weight(t: float) -> Tensor:
        return fed.feedback(belief(process, logits, z, torch.tensor([[t]], dtype=torch.float64))).weight

    assert float(weight(1e-9).max()) < 1e-5
    torch.testing.assert_close(weight(1 - 1e-9), whole, rtol=0, atol=1e-6)
    between = weight(0.5)
    assert bool((between > weight(1e-9)).all())
    assert float((between - whole).abs().max()) > 0.01


def test_the_posterior_mean_is_the_prediction_as_far_as_the_token_is_noise() -> None:
    """Σ p(x|z) E(x) = c Δ + (1 − c) E(z) under interpolating noise, Δ of the leave-one-out prediction."""
    process = process_of("uniform")
    z, t, logits = states(process), torch.tensor([[0.2], [0.5], [0.9]]).double(), numbers(ROWS, LENGTH, TOKENS)
    of = {r: network(TOKENS, residual(reading=r)).feedback(belief(process, logits, z, t)) for r in READINGS}
    table = network(TOKENS, residual()).model.embed_tokens.weight.detach()
    c = process.noise_chance(process.denoiser(logits), z, t).unsqueeze(-1)
    expected = c * of["leave_one_out"].mean + (1 - c) * table[z]
    torch.testing.assert_close(of["posterior"].mean, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_the_chance_of_noise_is_that_of_bayes(name: str) -> None:
    """Given the other positions and z_i, how probable it is that noise has hit i; at masks certain."""
    world = World(name, tokens=4)
    t = torch.tensor([0.35], dtype=torch.float64)
    reachable = world.marginal(float(t)) > 0
    z = world.z[reachable]
    p = world.leave_one_out(z, t.expand(len(z)))  # [Z, L, V]
    alpha = world.process.schedule.alpha(t)
    kernel = kernel_of(name, 4, alpha, pi=world.pi)[0][:4]  # [V, S]
    standing = (p.unsqueeze(-1) * kernel).sum(-2).gather(-1, z.unsqueeze(-1)).squeeze(-1)
    states_ = torch.nn.functional.pad(p, (0, world.states - 4))
    untouched = alpha * states_.gather(-1, (z % 4 if name == "absorbing_uniform" else z).unsqueeze(-1)).squeeze(-1)
    if name == "absorbing_uniform":  # of a token that was not hit, one in V is suspected, being its own u
        untouched = untouched * torch.where(z >= 4, 1 / 4, 3 / 4)
    found = world.process.noise_chance(states_, z, t[:, None])
    torch.testing.assert_close(found, 1 - untouched / standing, rtol=0, atol=1e-12)
    if name == "absorbing_uniform":
        return  # its states are no tokens
    general = ForwardProcess.noise_chance(world.process, states_, z, t[:, None])
    torch.testing.assert_close(found, general, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["uniform", "mixture", "clustered"])
def test_a_prediction_of_an_earlier_state_is_read_at_the_state_that_stands_now(name: str) -> None:
    """Whichever of the two posteriors a network predicts, what is fed back is the same: its own token of then is taken
    out, and the token of now is put in. (Where a token cannot be noise, a posterior says nothing that outlives it.)"""
    world = World(name, tokens=4)
    before, now = torch.tensor([[0.6]]).double(), torch.tensor([[0.3]]).double()
    seen, z = world.z, world.z.flip(0)
    levels = before.squeeze(1).expand(len(seen))
    logits = {"leave_one_out": world.denoiser(seen, levels), "posterior": world.full_posterior_denoiser(seen, levels)}
    left_out = logits["leave_one_out"][..., :4].softmax(-1)
    padded = torch.nn.functional.pad(left_out, (0, world.states - 4))
    kernel = kernel_of(name, 4, world.process.schedule.alpha(now[0]), pi=world.pi)[0][:4]  # [V, S]
    joined = left_out * kernel.T[z]
    expected = {
        "leave_one_out": (left_out, world.process.noise_chance(padded, z, now)),
        "posterior": (joined / joined.sum(-1, keepdim=True), torch.ones_like(z, dtype=torch.float64)),
    }
    for reading in READINGS:
        for parameterisation in READINGS:
            world.process.parameterisation = PARAMETERISATIONS.build(parameterisation, {})
            read = BeliefReader(world.process, z, now, seen, before)
            p, share = read(logits[parameterisation].flatten(0, 1), slice(0, z.numel()), reading)
            torch.testing.assert_close(p, expected[reading][0].flatten(0, 1), rtol=0, atol=1e-12)
            torch.testing.assert_close(share, expected[reading][1].flatten(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: str(form["name"]))
def test_a_row_depends_on_no_other_row_and_on_no_chunk(form: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    process, t = process_of("uniform"), torch.tensor([[0.2], [0.5], [0.9]]).double()
    fed, z, logits = network(TOKENS, form), states(process), numbers(ROWS, LENGTH, TOKENS)
    together = fed.feedback(belief(process, logits, z, t))
    alone = fed.feedback(belief(process, logits[1:2], z[1:2], t[1:2]))
    torch.testing.assert_close(together.mean[1:2], alone.mean, rtol=0, atol=1e-15)
    torch.testing.assert_close(together.weight[1:2], alone.weight, rtol=0, atol=1e-15)
    monkeypatch.setitem(chunks._CHUNK_ENTRIES, "cpu", 2 * TOKENS)
    cut = fed.feedback(belief(process, logits, z, t))
    torch.testing.assert_close(cut.mean, together.mean, rtol=0, atol=1e-15)
    assert not together.mean.requires_grad
    assert not together.weight.requires_grad
