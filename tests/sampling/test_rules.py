"""Rules of a block: what they accept, by hand; and that of DiffusionGemma against stock code, draw for draw."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sumi_core.sampling.entropy_bound import EntropyBoundRule
from sumi_core.sampling.rules import Belief, Rule
from sumi_core.sampling.threshold import ThresholdRule

STOCK = {"entropy_bound": 0.1, "t_min": 0.4, "t_max": 0.8, "stability": 1, "confidence": 0.005}


class Counted:
    """Tokens: the most probable; noise: −1, −2, … so that it is seen where it went."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def tokens(self, probs: Tensor) -> Tensor:
        self.calls.append("tokens")
        return probs.argmax(-1)

    def noise(self) -> Tensor:
        self.calls.append("noise")
        return torch.full(self.shape, -len(self.calls))

    shape: tuple[int, ...] = (1, 4)


def step(rule: Rule, belief: Belief, logits: Tensor, number: int, steps: int, draws: Any) -> Belief:
    """A step of a rule from the logits of p(x_i | z) at every place, ``[B, n, V]``."""
    reading = rule.read(logits, belief.z, number, steps, draws.tokens)
    return rule.decided(belief, reading, number, steps, draws.noise)


def logits_of(chances: list[list[float]]) -> Tensor:
    """Rows of distributions over three tokens, each with the given probability of token 0."""
    return torch.tensor([[[p, (1 - p) / 2, (1 - p) / 2] for p in row] for row in chances], dtype=torch.float64).log()


def entropy(p: float) -> float:
    rest = (1 - p) / 2
    return -p * math.log(p) - 2 * rest * math.log(rest)


def test_tokens_are_accepted_by_rising_entropy_while_those_before_add_up_to_little() -> None:
    chances = [0.5, 0.99, 0.9, 0.97]
    bound = entropy(0.99) + entropy(0.97) + 1e-9  # what stands before the third by entropy
    rule = EntropyBoundRule(bound, 1.0, 1.0, 1, 0.005)
    draws = Counted()
    after = step(rule, rule.first(torch.zeros(1, 4, dtype=torch.int64)), logits_of([chances]), 0, 5, draws)
    assert after.accepted.tolist() == [[False, True, True, True]]
    assert after.z.tolist() == [[-2, 0, 0, 0]]
    assert draws.calls == ["tokens", "noise"]
    tight = EntropyBoundRule(1e-9, 1.0, 1.0, 1, 0.005)
    alone = step(tight, tight.first(torch.zeros(1, 4, dtype=torch.int64)), logits_of([chances]), 0, 5, Counted())
    assert alone.accepted.tolist() == [[False, True, False, False]], "the surest is always in"


def test_what_is_accepted_costs_no_more_nats_than_the_bound() -> None:
    """KL(p(x_A) ‖ Π p(x_i)) ≤ γ on random joints of three positions."""
    texts = torch.tensor(list(itertools.product(range(3), repeat=3)))
    generator = torch.Generator().manual_seed(0)
    accepted_together = 0
    for _ in range(2000):
        p = torch.rand(27, generator=generator, dtype=torch.float64) ** 12
        p = p / p.sum()
        marginals = torch.stack([torch.zeros(3).double().index_add_(0, texts[:, i], p) for i in range(3)])
        bound = float(torch.rand((), generator=generator))
        rule = EntropyBoundRule(bound, 1.0, 1.0, 1, 0.005)
        draws = Counted()
        draws.shape = (1, 3)
        after = step(rule, rule.first(torch.zeros(1, 3, dtype=torch.int64)), marginals.log()[None], 0, 1, draws)
        chosen = after.accepted[0].nonzero()[:, 0].tolist()
        index = sum((texts[:, i] * 3**place for place, i in enumerate(chosen)), torch.zeros(27, dtype=torch.int64))
        joint = torch.zeros(3 ** len(chosen), dtype=torch.float64).index_add_(0, index, p)
        cost = sum(float(torch.special.entr(marginals[i]).sum()) for i in chosen) - float(
            torch.special.entr(joint).sum()
        )
        assert cost <= bound + 1e-12
        accepted_together += len(chosen) > 1
    assert accepted_together > 500


def test_a_row_stops_when_it_is_stable_and_sure_and_changes_no_more() -> None:
    rule = EntropyBoundRule(0.1, 1.0, 1.0, 1, 0.1)
    sure, unsure, other = logits_of([[0.999] * 4]), logits_of([[0.5] * 4]), logits_of([[1e-4] * 4])
    belief = rule.first(torch.zeros(1, 4, dtype=torch.int64))
    seen = []
    for number, logits in enumerate([unsure, sure, other, sure, sure, other]):
        belief = step(rule, belief, logits, number, 6, Counted())
        seen.append(bool(belief.done))
    assert seen == [False, True, True, True, True, True], "the same as the step before, and sure"
    assert belief.best.tolist() == [[0] * 4]
    fresh = rule.first(torch.zeros(1, 4, dtype=torch.int64))
    assert not bool(step(rule, fresh, sure, 0, 6, Counted()).done), "there was no step before"
    eager = EntropyBoundRule(0.1, 1.0, 1.0, 0, 0.1)
    assert bool(step(eager, eager.first(torch.zeros(1, 4, dtype=torch.int64)), sure, 0, 6, Counted()).done)


def test_the_temperature_falls_to_its_least() -> None:
    rule = EntropyBoundRule(**STOCK)  # type: ignore[arg-type]
    logits = logits_of([[0.6] * 4])
    for number, temperature in ((0, 0.8), (4, 0.4 + 0.4 / 5)):
        torch.testing.assert_close(rule.sharpened(logits, number, 5), logits / temperature)
        read = rule.read(logits, torch.zeros(1, 4, dtype=torch.int64), number, 5, Counted().tokens)
        wanted = torch.special.entr((logits / temperature).softmax(-1)).sum(-1)
        torch.testing.assert_close(read.sure, wanted)


def test_the_threshold_accepts_what_is_sure_enough_and_enough_for_the_steps() -> None:
    rule, z = ThresholdRule(0.9), torch.zeros(2, 4, dtype=torch.int64)
    logits = logits_of([[0.95, 0.5, 0.92, 0.4], [0.8, 0.5, 0.6, 0.7]])
    draws = Counted()
    draws.shape = (2, 4)
    after = step(rule, rule.first(z), logits, 0, 4, draws)
    assert after.accepted.tolist() == [[True, False, True, False], [True, False, False, False]]
    assert after.z.tolist() == [[0, -1, 0, -1], [0, -1, -1, -1]]
    for number, accepted in ((1, 2), (2, 3), (3, 4)):
        after = step(rule, after, logits, number, 4, draws)
        assert after.accepted.sum(-1).tolist() == [max(2, accepted), accepted]
    assert after.done.tolist() == [True, True]
    still = step(rule, after, logits.flip(1), 3, 4, draws)
    assert torch.equal(still.z, after.z)


# --- against stock code ---------------------------------------------------------------------------------------------

CANVAS, V = 8, 24
SETTINGS: list[dict[str, Any]] = [
    {},
    {"entropy_bound": 1.0},
    {"entropy_bound": 3.0, "stability": 0, "confidence": 1.2},
    {"entropy_bound": 0.5, "confidence": 0.6},
    {"entropy_bound": 0.5, "stability": 2, "confidence": 1.0, "t_min": 0.1},
    {"entropy_bound": 2.0, "t_min": 0.05, "t_max": 0.3, "confidence": 0.9},
]


class StockDraws:
    """The global generator, asked in the order of stock code."""

    shape = (3, CANVAS)

    def tokens(self, probs: Tensor) -> Tensor:
        return torch.multinomial(probs.view(-1, V), num_samples=1).view(self.shape)

    def noise(self) -> Tensor:
        return torch.randint(low=0, high=V, size=self.shape)


@pytest.fixture(scope="module")
def stock() -> Any:
    """A tiny random DiffusionGemma: two layers, one of them with a sliding window, and two experts."""
    gemma = pytest.importorskip("transformers.models.diffusion_gemma", reason="this transformers has no DiffusionGemma")
    text = gemma.configuration_diffusion_gemma.DiffusionGemmaTextConfig(
        vocab_size=V,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        global_head_dim=8,
        layer_types=["sliding_attention", "full_attention"],
        sliding_window=16,
        num_experts=2,
        top_k_experts=1,
        moe_intermediate_size=16,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
        use_bidirectional_attention="vision",
    )
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    config = gemma.configuration_diffusion_gemma.DiffusionGemmaConfig(
        text_config=text,
        vision_config={**vision, "num_attention_heads": 2, "num_key_value_heads": 2},
        canvas_length=CANVAS,
        image_token_id=23,
        boi_token_id=22,
        eoi_token_id=21,
    )
    model = gemma.modeling_diffusion_gemma.DiffusionGemmaForBlockDiffusion(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.2 * noise if parameter.ndim == 1 else 0.25 * noise)
    return model


def test_what_is_accepted_of_random_logits_is_what_stock_code_accepts() -> None:
    """300 of them, from flat to peaked, and bounds from one token a step to nearly all."""
    stock = pytest.importorskip("transformers.models.diffusion_gemma.generation_diffusion_gemma")
    generator, shares = torch.Generator().manual_seed(0), []
    for number in range(300):
        logits = torch.randn(3, CANVAS, V, generator=generator) * 10 ** float(torch.rand((), generator=generator) * 2)
        bound = 10 ** (float(torch.rand((), generator=generator)) * 3 - 2)
        before = torch.randint(V, (3, CANVAS), generator=generator)
        theirs = stock.EntropyBoundSampler(stock.EntropyBoundSamplerConfig(bound), CANVAS, V, 12)
        torch.manual_seed(number)
        tokens = StockDraws().tokens(logits.softmax(-1))
        wanted = theirs.renoise_canvas(theirs.accept_canvas(before, tokens, logits, 3), 3)
        torch.manual_seed(number)
        rule = EntropyBoundRule(bound, 1.0, 1.0, 1, 0.005)
        after = step(rule, rule.first(before), logits, 3, 12, StockDraws())
        assert torch.equal(after.accepted, theirs.accepted_token_mask)
        assert torch.equal(after.z, wanted)
        shares.append(float(after.accepted.double().mean()))
    assert min(shares) < 0.2
    assert max(shares) > 0.95


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
def test_the_rule_is_that_of_stock_generate(stock: Any, changes: dict[str, Any]) -> None:
    """A whole ``generate`` of three rows and three canvases. The rule gets the logits that stock code computed, and has
    to ask for them with the very same canvas and feedback; then tokens and tokens per forward are the same."""
    from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
        DiffusionGemmaGenerationConfig,
        EntropyBoundSamplerConfig,
    )

    options, steps, pad, eos = {**STOCK, **changes}, 12, 0, 1
    calls: list[tuple[Tensor, Tensor | None, Tensor]] = []
    forward = stock.forward

    def watched(*, decoder_input_ids: Tensor, self_conditioning_logits: Tensor | None, **more: Any) -> Any:
        found = forward(decoder_input_ids=decoder_input_ids, self_conditioning_logits=self_conditioning_logits, **more)
        calls.append((decoder_input_ids.clone(), self_conditioning_logits, found.logits))
        return found

    prompt = torch.tensor([[5, 6, 7], [3, 4, 5], [9, 9, 9]])
    stock.forward = watched
    try:
        torch.manual_seed(4)
        wanted = stock.generate(
            prompt,
            generation_config=DiffusionGemmaGenerationConfig(
                max_new_tokens=3 * CANVAS,
                max_denoising_steps=steps,
                sampler_config=EntropyBoundSamplerConfig(entropy_bound=options["entropy_bound"]),
                t_min=options["t_min"],
                t_max=options["t_max"],
                stability_threshold=options["stability"],
                confidence_threshold=options["confidence"],
                pad_token_id=pad,
                eos_token_id=eos,
            ),
        )
    finally:
        del stock.forward

    rule, draws = EntropyBoundRule(**options), StockDraws()
    torch.manual_seed(4)
    text, taken = prompt, torch.zeros(3)
    finished = torch.zeros(3, dtype=torch.bool)
    asked = iter(calls)
    while text.shape[1] < 3 + 3 * CANVAS and not bool(finished.all()):
        belief, sharp = rule.first(draws.noise()), None
        for number in range(steps):
            taken += ~(belief.done | finished)
            z, feedback, logits = next(asked)
            assert torch.equal(belief.z, z)
            assert (feedback is None) == (sharp is None)
            if sharp is not None:
                assert torch.equal(sharp, feedback)  # type: ignore[arg-type]
            own = rule.sharpened(logits, number, steps)
            sharp = own if sharp is None else torch.where(belief.done[:, None, None], sharp, own)
            belief = step(rule, belief, logits, number, steps, draws)
            if bool(belief.done.all()):
                break
        ended = belief.best == eos
        behind = ended.long().cumsum(-1) - ended.long() > 0
        canvas = torch.where(behind | finished[:, None], pad, belief.best)
        finished = finished | ended.any(-1)
        text = torch.cat([text, canvas], 1)
    assert next(asked, None) is None
    assert torch.equal(text, wanted.sequences)
    written = (text[:, 3:] != pad).sum(-1)
    torch.testing.assert_close(written / taken, wanted.tokens_per_forward)


def test_some_rows_stop_early_in_that_comparison(stock: Any) -> None:
    """Else it would say nothing of stopping."""
    rule = EntropyBoundRule(**{**STOCK, **SETTINGS[2]})
    belief = Belief.of(torch.zeros(3, CANVAS, dtype=torch.int64))
    logits = (
        torch.randn(3, CANVAS, V, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 1, 9])[:, None, None]
    )
    torch.manual_seed(0)
    assert step(rule, belief, logits, 0, 2, StockDraws()).done.tolist() == [False, False, True]
