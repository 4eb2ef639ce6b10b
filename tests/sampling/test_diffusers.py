"""Stock diffusers' schedulers of uniform noise on the same logits: reverse step, corrector, accepted set."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from sumi_core.corruption import PARAMETERISATIONS
from sumi_core.sampling.entropy_bound import EntropyBoundRule
from tests.corruption.enumerable import build_process
from tests.sampling.test_rules import step

diffusers = pytest.importorskip("diffusers")
if not hasattr(diffusers, "DiscreteDDIMScheduler"):
    pytest.skip("this diffusers has no schedulers of uniform noise", allow_module_level=True)

V, STEPS, SHAPE = 7, 6, (3, 5)


def logits_and_text(seed: int) -> tuple[Tensor, Tensor]:
    """Leave-one-out logits ``[3, 5, V]`` float64 and tokens ``[3, 5]``."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(*SHAPE, V, generator=generator, dtype=torch.float64)
    return logits, torch.randint(V, SHAPE, generator=generator)


def stock_step(posterior: Tensor, number: int, z: Tensor) -> Tensor:
    """The distribution of a stock step's states, ``[3, 5, V]``: it draws a clean token, then one of three routes. Every
    clean token is tried, and the probabilities of its routes are seen where they are drawn from."""
    scheduler = diffusers.DiscreteDDIMScheduler(num_inference_steps=STEPS)
    found = torch.zeros(*SHAPE, V, dtype=torch.float64)
    for token in range(V):
        clean, routes = torch.full_like(z, token), []

        def capture(probs: Tensor, seen: list[Tensor] = routes, **_: Any) -> Tensor:
            seen.append(probs.view(*SHAPE, 3).double())
            return torch.zeros(len(probs), 1, dtype=torch.int64)

        with (
            patch.object(scheduler, "_sample_from_logits", lambda *_, given=clean, **__: (given, given)),
            patch("torch.multinomial", capture),
        ):
            scheduler.step(posterior, number, z, temperature=1.0)
        chance = posterior.softmax(-1)[..., token, None]
        to_clean, stay, noise = (routes[0][..., i, None] for i in range(3))
        found += chance * noise / V
        found.scatter_add_(-1, clean[..., None], chance * to_clean).scatter_add_(-1, z[..., None], chance * stay)
    return found


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("number", range(STEPS))
def test_the_ancestral_step_is_that_of_stock_code(number: int, schedule: str) -> None:
    """Given the posterior, as log(1 + Vα/(1 − α)) added at the token that stands there makes it; under our own schedule
    at the times that have their α."""
    process = build_process("uniform", schedule, V)
    logits, z = logits_and_text(number)
    alphas = torch.tensor([number / STEPS, (number + 1) / STEPS], dtype=torch.float64)
    t, s = (time.view(1, 1) for time in process.time_of_alpha(alphas))
    added = torch.log1p(V * alphas[0] / (1 - alphas[0]))
    posterior = logits.scatter_add(-1, z[..., None], added.expand(*SHAPE, 1))
    torch.testing.assert_close(posterior.log_softmax(-1), process.log_posterior(logits, z, t), rtol=0, atol=1e-9)
    torch.testing.assert_close(stock_step(posterior, number, z), process.reverse(logits, z, t, s), rtol=0, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.05, 0.5, 0.95])
def test_the_corrector_redraws_from_the_same_conditional(alpha: float) -> None:
    """Which position it redraws is another matter: theirs depends on the text, ours does not (tests/sampling/
    test_gibbs.py)."""
    process = build_process("uniform", "linear", V)
    process.parameterisation = PARAMETERISATIONS.build("posterior", {})
    logits, z = logits_and_text(3)
    t = process.time_of_alpha(torch.tensor([[alpha]], dtype=torch.float64))
    posterior = process.log_posterior(logits, z, t)
    scheduler = diffusers.DiscreteDDIMScheduler(
        num_inference_steps=100, corrector_steps=1, corrector_k=SHAPE[1], corrector_selection="random"
    )
    seen: list[Tensor] = []

    def capture(probs: Tensor, **_: Any) -> Tensor:
        seen.append(probs.view(*SHAPE, V))
        return probs.argmax(-1, keepdim=True)

    in_order = torch.arange(SHAPE[1]).expand(SHAPE)
    with patch("torch.multinomial", capture), patch.object(scheduler, "_select_positions", lambda *_: in_order):
        scheduler.step_correct(posterior, round(alpha * 100) - 1, z)
    own = process.leave_one_out(posterior, z, t)
    wanted = process.marginal(process.denoiser(own), t.expand(SHAPE))
    torch.testing.assert_close(seen[0], wanted, rtol=0, atol=1e-6)


class Draws:
    """Tokens and noise that do not matter here."""

    def tokens(self, probs: Tensor) -> Tensor:
        return probs.argmax(-1)

    def noise(self) -> Tensor:
        return torch.zeros(SHAPE, dtype=torch.int64)


@pytest.mark.parametrize("bound", [0.05, 0.5, 2.0, 20.0])
@pytest.mark.parametrize("number", [0, 2, 5])
def test_the_entropy_bound_accepts_the_same_set(number: int, bound: float) -> None:
    logits, z = logits_and_text(number)
    scheduler = diffusers.EntropyBoundScheduler(entropy_bound=bound, num_inference_steps=STEPS)
    theirs = scheduler.step(logits, number, z)
    rule = EntropyBoundRule(bound, 0.4, 0.8, 1, 0.005)
    ours = step(rule, rule.first(z), logits, number, STEPS, Draws())
    assert torch.equal(ours.accepted, theirs.accepted_index)
    torch.testing.assert_close(rule.sharpened(logits, number, STEPS), theirs.pred_logits, rtol=0, atol=1e-6)


def test_some_sets_are_neither_all_nor_one() -> None:
    """Else that comparison would say little."""
    rule = EntropyBoundRule(2.0, 0.4, 0.8, 1, 0.005)
    logits, z = logits_and_text(2)
    counts = step(rule, rule.first(z), logits, 2, STEPS, Draws()).accepted.sum(-1)
    assert bool(((counts > 1) & (counts < SHAPE[1])).any())
