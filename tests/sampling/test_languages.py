"""Texts that are held to a language: the exact conditional in one step, and valid texts from every sampler."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sumi_core.corruption import CLOCKS, PROCESSES, SCHEDULES
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.kernels import chunks
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import FromLogits
from sumi_core.sampling import SAMPLERS, forward_backward
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.constraints import ForbiddenTokens
from sumi_core.sampling.forward_backward import Marginals, _log_class_weights, _Tables, draw_text, messages
from sumi_core.sampling.generate import generate
from sumi_core.sampling.languages import Languages, Stretch
from sumi_core.sampling.regular import byte_automaton, character_automaton
from sumi_core.sampling.sampler import Sampler
from sumi_core.sampling.token_automaton import TokenAutomaton, token_automaton
from tests.corruption.enumerable import World, all_sequences, build_process, chi_square, vocabulary_of
from tests.layouts.exact import blocks
from tests.models.stock import lively, small

TOKENS = [b"", b"a", b"b", b"ab", b"1", b"a1"]  # 0 ends a text
V, EOS = len(TOKENS), 0
PATTERNS = ["(ab?)*1?", "a(b|1)+", "[^1]*1[^1]*", "(a|b){2,4}"]


def automaton_of(pattern: str, tokens: list[bytes] = TOKENS) -> TokenAutomaton:
    return token_automaton(byte_automaton(character_automaton(pattern)), tokens, EOS)


def matches(pattern: str, tokens: list[int], open_ended: bool, vocabulary: list[bytes] = TOKENS) -> bool:
    if EOS in tokens:
        tokens, ended = tokens[: tokens.index(EOS)], True
    else:
        ended = False
    text = b"".join(vocabulary[i] for i in tokens).decode()
    return (open_ended or not ended) and re.fullmatch(pattern, text) is not None


def conditional(
    log_p: Tensor, pattern: str, open_ended: bool, vocabulary: list[bytes] = TOKENS
) -> tuple[Tensor, Tensor]:
    """All texts and Π p_i(x_i), 0 outside of the language: ``[M, L]`` and ``[M]``, not normalised."""
    x = all_sequences(log_p.shape[-1], len(log_p))
    inside = torch.tensor([matches(pattern, row, open_ended, vocabulary) for row in x.tolist()])
    return x, torch.where(inside, log_p[torch.arange(len(log_p)), x].sum(-1).exp(), 0.0)


def marginals_of(log_p: Tensor) -> Marginals:
    return Marginals(lambda place: log_p[place].clone(), V)


def random_marginals(length: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(length, V, generator=generator, dtype=torch.float64)).log_softmax(-1)


# --- forward–backward -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("open_ended", [True, False])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_draw_is_the_enumerated_conditional(pattern: str, open_ended: bool) -> None:
    """Every path through the automaton, times every token of its classes: the probability of each text to 1e-12."""
    log_p, automaton = random_marginals(3), automaton_of(pattern)
    x, wanted = conditional(log_p, pattern, open_ended)
    weights = _log_class_weights(_Tables(marginals_of(log_p), V, 3), [slice(0, 2), slice(2, 3)], automaton)
    found = messages(automaton, weights, automaton.complete(open_ended))
    assert found.log_probability(automaton.start) == pytest.approx(float(wanted.sum().log()), abs=1e-12)
    drawn = torch.zeros(len(x), dtype=torch.float64)
    for number, text in enumerate(x.tolist()):
        state, chance = automaton.start, 1.0
        for place, token in enumerate(text):
            moves = np.exp(found.log_moves(place, state) - found.log_moves(place, state).max())
            own = automaton.classes[token]
            chance *= moves[own] / moves.sum() * np.exp(float(log_p[place, token]) - weights[place, own])
            state = int(automaton.table[state, own])
            if chance == 0:
                break
        drawn[number] = chance
    torch.testing.assert_close(drawn, wanted / wanted.sum(), rtol=0, atol=1e-12)


def test_draws_follow_it_and_know_their_probability() -> None:
    log_p, automaton = (random_marginals(3) / 4).log_softmax(-1), automaton_of(PATTERNS[0])
    _, wanted = conditional(log_p, PATTERNS[0], True)
    uniform = torch.rand(1500, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    stops, marginals = automaton.complete(True), marginals_of(log_p)
    drawn = [draw_text(marginals, 0, 3, automaton, automaton.start, stops, own) for own in uniform]
    index = torch.stack([tokens for tokens, _ in drawn]) @ torch.tensor([V * V, V, 1])
    assert chi_square(index, wanted) > 1e-3
    chances = torch.stack([chance.prod() for _, chance in drawn])
    torch.testing.assert_close(chances, (wanted / wanted.sum())[index], rtol=1e-10, atol=0)


def test_texts_below_the_smallest_float_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The language has a probability of 1e-959, which two of its texts share 3 : 1; tables of one place at a time."""
    monkeypatch.setattr(forward_backward, "_MOST_KEPT", 0)
    monkeypatch.setitem(chunks._CHUNK_ENTRIES, "cpu", 1)
    log_p = torch.full((4, V), -552.0, dtype=torch.float64)
    log_p[:, [0, 3, 5]] = -torch.inf
    log_p[0, 4] = 0.0  # all of it on a token that no text begins with
    log_p[3, 4] += np.log(3)
    automaton = automaton_of("aaa(1|b)")
    marginals, stops = marginals_of(log_p), automaton.complete(True)
    generator = torch.Generator().manual_seed(0)
    texts = []
    for _ in range(400):
        uniform = torch.rand(4, 2, generator=generator, dtype=torch.float64)
        texts.append(draw_text(marginals, 0, 4, automaton, automaton.start, stops, uniform)[0].tolist())
    assert {tuple(text) for text in texts} == {(1, 1, 1, 4), (1, 1, 1, 2)}
    assert sum(text[3] == 4 for text in texts) == pytest.approx(300, abs=35)  # four standard errors


def test_nan_and_impossible_texts_are_errors() -> None:
    automaton = automaton_of("b+")
    for log_p in (torch.full((3, V), torch.nan), torch.tensor([[0.0, 0.0, -torch.inf, 0.0, 0.0, 0.0]] * 3)):
        marginals = marginals_of(log_p.double())
        uniform = torch.zeros(3, 2, dtype=torch.float64)
        with pytest.raises(ValueError, match="cannot draw a text of the language"):
            draw_text(marginals, 0, 3, automaton, automaton.start, automaton.complete(False), uniform)


# --- samplers -------------------------------------------------------------------------------------------------------


def everywhere(stretch: Stretch, rows: int) -> list[Any]:
    return [Languages(dict.fromkeys(range(rows), stretch))]


@pytest.mark.parametrize(
    ("process", "parameterisation", "temperature"),
    [("uniform", "leave_one_out", 1.0), ("uniform", "posterior", 2.0), ("absorbing", "leave_one_out", 1.0)],
)
def test_one_step_of_diffusion_draws_the_exact_conditional(
    process: str, parameterisation: str, temperature: float
) -> None:
    """What one step predicts of pure noise, conditioned on the language: with the exact denoiser the product of the
    true marginals, since noise says nothing. A temperature acts on them first."""
    from sumi_core.corruption import PARAMETERISATIONS

    world = World(process, length=3)
    world.process.parameterisation = PARAMETERISATIONS.build(parameterisation, {})
    options = {"temperature": temperature}
    sampler = SAMPLERS.build("ancestral", options, process=world.process, vocabulary=Vocabulary(4, EOS))
    log_p = torch.stack([torch.bincount(world.x[:, i], world.p, minlength=4) for i in range(3)]).log()
    logits = torch.nn.functional.pad(log_p, (0, world.states - 4))
    denoiser = FromLogits(lambda z, t: logits.expand(len(z), -1, -1))
    stretch = Stretch(automaton_of("(ab?)*", TOKENS[:4]), 0, 3, open_ended=True)
    drawn = sampler.sample(denoiser, num=400, length=3, steps=1, seed=0, constraints=everywhere(stretch, 400))
    _, wanted = conditional((log_p / temperature).log_softmax(-1), "(ab?)*", True, TOKENS[:4])
    assert chi_square(drawn.tokens @ torch.tensor([16, 4, 1]), wanted) > 1e-3


def network(process: Any, **model: Any) -> Denoiser:
    return lively(Denoiser(small(**model), process.num_states))


@pytest.mark.parametrize("clock", ["shared", "spans"])
@pytest.mark.parametrize("process", ["uniform", "absorbing", "clustered", "hybrid", "unigram"])
def test_every_text_is_valid_whatever_the_steps(process: str, clock: str) -> None:
    """Rows with languages, prompts and gaps of their own, one of them with a token given within its stretch."""
    name, options = {"hybrid": ("hybrid", {"p_uniform": 0.3})}.get(process, (process, {}))
    context = {"vocabulary": vocabulary_of(V), "schedule": SCHEDULES.build("linear", {})}
    built = PROCESSES.build(name, options, clock=CLOCKS.build(clock, {}), **context)
    sampler = SAMPLERS.build("ancestral", {}, process=built, vocabulary=Vocabulary(V, EOS))
    tokens = torch.tensor([[5, 0, 0, 0, 0, 0, 5], [0] * 7, [0, 0, 4, 0, 0, 0, 0], [0] * 7])
    frozen = torch.tensor([[1, 0, 0, 0, 0, 0, 1], [0] * 7, [0, 0, 1, 0, 0, 0, 0], [0] * 7], dtype=torch.bool)
    stretches = [(PATTERNS[0], 1, 6, False), (PATTERNS[1], 0, 7, True), (PATTERNS[2], 0, 7, False)]
    held = Languages({row: Stretch(automaton_of(p), *more) for row, (p, *more) in enumerate(stretches)})
    for steps in (1, 3, 8):
        *_, final = generate(
            sampler, network(built), Canvas.of(tokens, frozen, seed=steps, steps=steps, constraints=[held])
        )
        assert torch.equal(final.tokens[frozen], tokens[frozen])
        assert bool(((final.confidence > 0) & (final.confidence <= 1 + 1e-12))[~frozen].all())
        for row, (pattern, begin, end, open_ended) in enumerate(stretches):
            assert matches(pattern, final.tokens[row, begin:end].tolist(), open_ended)


def made(kind: str) -> tuple[Sampler, Denoiser]:
    vocabulary = Vocabulary(V, EOS)
    if kind == "left_to_right":
        sampler = SAMPLERS.build(kind, {}, process=None, vocabulary=vocabulary)
        return sampler, lively(Denoiser(small(attention="causal"), V))
    process = build_process("uniform", "linear", V)
    causal = {"attention": "causal"} if kind != "ancestral" else {}
    context = {} if kind == "ancestral" else {"layout": blocks(4, "previous" if kind == "speculative" else "own")}
    return SAMPLERS.build(kind, {}, process=process, vocabulary=vocabulary, **context), network(process, **causal)


@pytest.mark.parametrize("kind", ["ancestral", "blockwise", "left_to_right", "speculative"])
def test_every_sampler_keeps_to_the_language_and_a_row_is_the_same_in_any_company(kind: str) -> None:
    sampler, denoiser = made(kind)
    empty = torch.zeros(0, dtype=torch.int64)
    prompts, lengths = [torch.tensor([5, 4]), empty, empty, torch.tensor([3])], [11, 9, 6, 10]
    patterns = [PATTERNS[0], "(a|b)*11[^a]*", PATTERNS[3], None]
    stretches = {
        row: Stretch(automaton_of(pattern), len(prompts[row]), lengths[row], open_ended=True)
        for row, pattern in enumerate(patterns)
        if pattern is not None
    }

    def written(rows: list[int]) -> Tensor:
        return sampler.sample(
            denoiser,
            num=4,
            length=lengths,
            steps=3,
            seed=2,
            prompt=prompts,
            constraints=[Languages({row: stretches[row] for row in rows})],
        ).tokens

    together = written([0, 1, 2])
    for row, stretch in stretches.items():
        own = together[row, stretch.begin : stretch.end].tolist()
        assert matches(str(patterns[row]), own, True)
        canvas = Canvas.blank(
            [prompts[row]], [lengths[row]], seed=2, steps=3, rows=[row], constraints=[Languages(stretches)]
        )
        *_, alone = generate(sampler, denoiser, canvas)
        assert torch.equal(alone.tokens[0], together[row, : lengths[row]])
    assert not torch.equal(written([0]), together)
    assert torch.equal(written([0])[[0, 3]], together[[0, 3]])


def test_a_language_and_forbidden_tokens_hold_together() -> None:
    sampler, denoiser = made("ancestral")
    stretch = Stretch(automaton_of("(ab?)*"), 0, 6, open_ended=False)
    held = [*everywhere(stretch, 20), ForbiddenTokens([3])]
    tokens = sampler.sample(denoiser, num=20, length=6, steps=3, seed=0, constraints=held).tokens
    assert set(tokens.flatten().tolist()) == {1, 2}
    assert all(matches("(ab?)*", row, False) for row in tokens.tolist())


def test_a_text_without_room_is_refused_before_anything_is_computed() -> None:
    sampler, _ = made("ancestral")
    for pattern, why in [("(ab){9}", "the shortest takes 9"), (r"[^\s\S]", "it has no text at all")]:
        stretch = Stretch(automaton_of(pattern), 0, 6, open_ended=True)
        with pytest.raises(ValueError, match=f"no text of the language has 6 tokens, .* text 0 .*: {why}"):
            sampler.sample(
                FromLogits(pytest.fail), num=1, length=6, steps=1, seed=0, constraints=everywhere(stretch, 1)
            )


def test_a_sampler_that_decides_about_every_token_by_itself_is_refused() -> None:
    process = build_process("uniform", "linear", V)
    context = {"process": process, "vocabulary": Vocabulary(V, EOS), "layout": blocks(4, "own")}
    sampler = SAMPLERS.build("threshold", {}, **context)
    stretch = Stretch(automaton_of("a*"), 0, 6, open_ended=True)
    with pytest.raises(ValueError, match="sampler 'threshold' decides about every token by itself"):
        sampler.sample(FromLogits(pytest.fail), num=1, length=6, steps=1, seed=0, constraints=everywhere(stretch, 1))
