"""A step made a piece of the text at a time: the same tokens, whatever the pieces, and no table of the whole text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sumi_core.corruption import PARAMETERISATIONS, PROCESSES, SCHEDULES
from sumi_core.corruption.categorical import draw_categorical
from sumi_core.corruption.process import ForwardProcess
from sumi_core.kernels import chunks
from sumi_core.layouts.layout import Whole
from sumi_core.models.denoiser import Denoiser
from sumi_core.models.interface import FromLogits
from sumi_core.sampling import SAMPLERS, forward_backward
from sumi_core.sampling.canvas import Canvas, Constraint
from sumi_core.sampling.generate import generate
from sumi_core.sampling.languages import Languages, Stretch
from sumi_core.sampling.sampler import Sampler
from sumi_core.sampling.token_automaton import TokenAutomaton
from tests.corruption.enumerable import SETTINGS, vocabulary_of
from tests.layouts.exact import blocks
from tests.models.stock import lively, small
from tests.sampling.test_generate import LENGTHS, PROMPTS
from tests.sampling.test_languages import TOKENS, automaton_of

V = 9
WORDS = [*TOKENS, b"bb", b"11", b"ba"]  # 0 ends a text
NOISES = ["uniform", "absorbing", "absorbing_uniform", "clustered", "hybrid", "unigram"]
SAMPLERS_AND_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("ancestral", {}),
    ("ancestral", {"temperature": 0.7, "spacing": "log_snr"}),
    ("ancestral", {"temperature": 1.4, "top_p": 0.8, "top_k": 6, "greedy_tail": 1}),
    ("blockwise", {"temperature": 0.7}),
    ("predictor_corrector", {"corrections": 2}),
    ("first_hitting", {"top_p": 0.8}),
    ("confidence", {}),
    ("confidence", {"temperature": 0.7, "top_k": 6}),
    ("entropy_bound", {"entropy_bound": 1.5, "confidence": 0.9}),
    ("threshold", {"threshold": 0.3}),
]


class ByPlace:
    """Forbids a token that depends on the row, on its length and on the place."""

    def __call__(self, probs: Tensor, canvas: Canvas, positions: Tensor) -> Tensor:
        row = torch.tensor(list(canvas.rows)) + canvas.lengths
        forbidden = (row[:, None] + positions) % (V - 1) + 1
        return probs.scatter(-1, forbidden[..., None], 0.0)


def process_of(noise: str, count: int = V, parameterisation: str = "leave_one_out") -> ForwardProcess:
    name, options = SETTINGS[noise]
    context = {"vocabulary": vocabulary_of(count), "schedule": SCHEDULES.build("cosine", {})}
    return PROCESSES.build(name, options, parameterisation=PARAMETERISATIONS.build(parameterisation, {}), **context)


def sampler_of(name: str, options: dict[str, Any], process: ForwardProcess, block: int = 4) -> Sampler:
    layout = Whole() if "whole" in SAMPLERS.get(name).layouts else blocks(block, "previous")
    vocabulary = vocabulary_of(process.num_tokens)
    sampler: Sampler = SAMPLERS.build(name, options, process=process, vocabulary=vocabulary, layout=layout)
    return sampler


def languages(lengths: Sequence[int], tokens: Sequence[bytes]) -> Languages:
    """Of all rows but one."""
    automaton = automaton_of("(a|b|1)*a", list(tokens))
    return Languages({row: Stretch(automaton, 0, n, open_ended=True) for row, n in enumerate(lengths) if row != 1})


@pytest.mark.parametrize("noise", NOISES[:-1])
@pytest.mark.parametrize(("name", "options"), SAMPLERS_AND_OPTIONS, ids=str)
def test_pieces_change_no_token(
    name: str, options: dict[str, Any], noise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One state at a time, a few places of a row, a few rows, or everything: the same canvases to the bit."""
    if name == "first_hitting" and noise != "absorbing":
        pytest.skip("fills masks")
    if name == "predictor_corrector" and noise == "absorbing_uniform":
        pytest.skip("redraws what is certain")
    process = process_of(noise, parameterisation="leave_one_out" if noise == "absorbing_uniform" else "posterior")
    sampler = sampler_of(name, options, process)
    network = lively(Denoiser(small(attention="causal" if sampler.causal else "bidirectional"), process.num_states))
    prompts = [torch.tensor([1]), *PROMPTS[1:3], torch.tensor([1, 2])]
    held: list[list[Constraint]] = [[], [ByPlace()]]
    if sampler.holds_languages and "top_p" not in options:
        held.append([ByPlace(), languages(LENGTHS, WORDS)])
    for constraints in held:
        blank = Canvas.blank(prompts, LENGTHS, seed=3, steps=3, constraints=constraints)
        written = []
        for entries in (2**20, 1, 30 * process.num_states):
            monkeypatch.setitem(chunks._CHUNK_ENTRIES, "cpu", entries)
            written.append(list(generate(sampler, network, dataclasses.replace(blank, told=True))))
        assert not torch.equal(written[0][0].tokens, written[0][-1].tokens)
        for other in written[1:]:
            for canvas, same in zip(written[0], other, strict=True):
                assert torch.equal(canvas.tokens, same.tokens)
                torch.testing.assert_close(canvas.confidence, same.confidence, rtol=0, atol=0, equal_nan=True)


class Largest(TorchDispatchMode):
    """The most float64 numbers of one storage that any operation returned."""

    found = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple | list) else [result]:
            if isinstance(part, Tensor) and part.dtype == torch.float64:
                self.found = max(self.found, part.untyped_storage().nbytes() // 8)
        return result


@pytest.mark.parametrize("parameterisation", ["leave_one_out", "posterior"])
@pytest.mark.parametrize("noise", NOISES)
def test_no_float64_table_of_a_text_is_made(noise: str, parameterisation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a large vocabulary, of which a chunk holds a few places, no step makes a float64 table beyond a chunk."""
    count, rows, length = 2000, 2, 24
    if noise == "absorbing_uniform" and parameterisation == "posterior":
        return
    process = process_of(noise, count, parameterisation)
    states = process.num_states
    monkeypatch.setitem(chunks._CHUNK_ENTRIES, "cpu", 4 * states)
    monkeypatch.setattr(forward_backward, "_MOST_KEPT", 4 * states)
    logits = torch.randn(rows, length, states, generator=torch.Generator().manual_seed(0))
    words = [*TOKENS, *(b"b" * (2 + number) for number in range(count - len(TOKENS)))]
    for options, constraints in [
        ({}, []),
        ({"temperature": 0.7}, [ByPlace()]),
        ({"top_p": 0.9}, []),
        ({"temperature": 0.7}, [languages([length] * rows, words)]),
    ]:
        sampler = sampler_of("ancestral", options, process)
        nothing = [torch.zeros(0, dtype=torch.int64)] * rows
        canvas = Canvas.blank(nothing, [length] * rows, seed=0, steps=2, constraints=constraints)
        canvas = sampler.start(canvas)
        for _ in range(2):
            with Largest() as watched, torch.no_grad():
                canvas = sampler.step(FromLogits(lambda tokens, level: logits), canvas)
            assert 0 < watched.found <= 4 * states, "of [B, L, S] = 48 places"


@pytest.mark.parametrize("noise", ["uniform", "absorbing"])
@pytest.mark.parametrize("name", SAMPLERS.names())
def test_no_sampler_makes_a_float64_table_of_a_text(name: str, noise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole runs at a large vocabulary, of which a chunk holds 10 places: those that five drafts of two texts need."""
    count, rows, length = 2000, 2, 24
    process = process_of("absorbing" if name == "first_hitting" else noise, count)
    monkeypatch.setitem(chunks._CHUNK_ENTRIES, "cpu", 10 * process.num_states)
    monkeypatch.setattr(forward_backward, "_MOST_KEPT", 10 * process.num_states)
    sampler = sampler_of(name, {}, process, block=12)
    network = lively(Denoiser(small(attention="causal" if sampler.causal else "bidirectional"), process.num_states))
    canvas = Canvas.blank([torch.zeros(0, dtype=torch.int64)] * rows, [length] * rows, seed=0, steps=2)
    with Largest() as watched, torch.no_grad():
        list(generate(sampler, network, canvas))
    assert 0 < watched.found <= 10 * process.num_states, "of [B, L, S] = 48 places, 24 of a block"


@pytest.mark.parametrize("noise", NOISES)
def test_a_step_held_to_a_language_is_the_plain_one(noise: str) -> None:
    """Token for token: every table whole, every sum over states and tokens in a loop, and q(z_s | z_t, x) by Bayes."""
    process, length = process_of(noise), 6
    held = languages([length], WORDS)
    automaton = held.stretches[0].automaton
    logits = torch.randn(1, length, process.num_states, generator=torch.Generator().manual_seed(1))
    sampler = sampler_of("ancestral", {}, process)
    for seed in range(12):
        blank = Canvas.blank([torch.zeros(0, dtype=torch.int64)], [length], seed=seed, steps=3, constraints=[held])
        canvas = dataclasses.replace(sampler.start(blank), age=1)
        found = sampler.step(FromLogits(lambda tokens, level: logits), canvas)
        now, then = sampler.levels(3)[1:3].view(2, 1, 1)
        uniform = canvas.noise("sample", 2).uniform(length, 3, dtype=torch.float64)[0]
        p = (process.log_evidence(canvas.tokens, now) + process.token_logits(logits))[0, :, :V].softmax(-1)
        clean = torch.tensor(plain_draw(p, automaton, uniform.tolist()))
        one_hot = torch.nn.functional.one_hot(clean, process.num_states).double()[None]
        back = process.marginal(one_hot, then) * process.transition(canvas.tokens, now, then)
        assert torch.equal(found.tokens, draw_categorical(back, uniform[None, :, 2]))


def plain_draw(p: Tensor, automaton: TokenAutomaton, uniform: list[list[float]]) -> list[int]:
    """A text of p ``[n, V]`` given the language: of each token first the class, then which of the class it is."""

    def after(state: int, token: int) -> int:
        return int(automaton.table[state, automaton.classes[token]])

    completes = [[float(stops) for stops in automaton.complete(True)]]
    for own in reversed(p.tolist()):
        later = completes[0]
        moves = [[(chance, after(state, v)) for v, chance in enumerate(own)] for state in range(len(later))]
        completes.insert(0, [sum(chance * later[to] for chance, to in row if to >= 0) for row in moves])
    state, text = automaton.start, []
    for own, later, numbers in zip(p, completes[1:], uniform, strict=True):
        targets = [after(state, v) for v in range(V)]
        weight = own * torch.tensor([later[to] if to >= 0 else 0.0 for to in targets])
        group = torch.from_numpy(automaton.classes)
        of_class = torch.zeros(int(group.max()) + 1, dtype=torch.float64).index_add_(0, group, weight)
        chosen = draw_categorical(of_class, torch.tensor(numbers[0], dtype=torch.float64))
        within = torch.where(group == chosen, own, 0.0)
        text.append(int(draw_categorical(within, torch.tensor(numbers[1], dtype=torch.float64))))
        state = after(state, text[-1])
    return text
