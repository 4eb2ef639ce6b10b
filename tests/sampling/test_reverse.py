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


def sampler_of(name: str, options: dict[str, Any], process: ForwardProcess) -> Sampler:
    layout = Whole() if "whole" in SAMPLERS.get(name).layouts else blocks(4, "previous")
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
    monkeypatch.setattr(forward_backward, "_CHUNK_ENTRIES", 4 * states)
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
