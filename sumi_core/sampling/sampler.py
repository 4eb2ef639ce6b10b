"""What a sampler is: it turns a trained denoiser into texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sumi_core.base.registry import Part
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.models.interface import DenoiserFunction

# Rows are drawn in blocks whose float64 probabilities [rows, L, S] have at most this many entries.
_BLOCK_ENTRIES = 2**24


@dataclass(frozen=True)
class Samples:
    """``tokens [num, length]`` int64, every one a real token below V; ``evaluations``: network calls per text."""

    tokens: Tensor
    evaluations: int


class Sampler(Part, ABC):
    """Draws texts. Row r's randomness is addressed by (seed, step, r), so r is the same text in any company."""

    needs_process: ClassVar[bool] = True
    #: Whether a position of the model may see only what stands before it; None: either will do.
    causal: ClassVar[bool | None] = False
    uses_steps: ClassVar[bool] = True  # False: takes the network calls it needs, whatever number is asked for

    def __init__(self, options: Any, *, process: ForwardProcess | None, vocabulary: Vocabulary) -> None:
        super().__init__(options)
        if self.needs_process:
            if process is None:
                raise ValueError(f"sampler {type(self).__name__} needs a corruption process; choose another sampler")
            self.process = process
        self.num_states = process.num_states if process else vocabulary.size
        self.num_tokens = vocabulary.size
        self.eos_id = vocabulary.eos_id

    @torch.no_grad()
    def sample(
        self,
        denoiser: DenoiserFunction,
        *,
        num: int,
        length: int,
        steps: int,
        seed: int,
        prompt: Tensor | None = None,
    ) -> Samples:
        """Draw ``num`` texts of ``length`` tokens on the denoiser's device, in its current train/eval mode.

        steps: network calls, where the sampler can choose. prompt: ``[P]`` tokens kept at the left of every text. A
        network that is told the level of every position is told that they are clean. Any other takes them for tokens at
        the level of all others, which is exact for masks alone: under uniform noise it trusts a prompt too little.
        Raises ValueError for a prompt that leaves no room or holds ids that are no tokens, and for fewer than 1 step.
        """
        device = _device_of(denoiser)
        if steps < 1 or num < 1:
            raise ValueError(f"sampling needs at least 1 step and 1 text, got {steps} steps and {num} texts")
        prompt = torch.empty(0, dtype=torch.int64) if prompt is None else prompt
        if prompt.ndim != 1 or len(prompt) >= length:
            raise ValueError(f"a prompt of shape {list(prompt.shape)} leaves nothing to write in {length} tokens")
        if len(prompt) and (int(prompt.min()) < 0 or int(prompt.max()) >= self.num_tokens):
            raise ValueError(f"the prompt holds ids outside the vocabulary of {self.num_tokens} tokens")
        frozen = torch.arange(length, device=device) < len(prompt)
        fixed = torch.zeros(length, dtype=torch.int64, device=device)
        fixed[: len(prompt)] = prompt.to(device)

        block = max(1, _BLOCK_ENTRIES // (length * self.num_states))
        drawn = [
            self._draw(denoiser, range(start, min(start + block, num)), fixed, frozen, steps, seed)
            for start in range(0, num, block)
        ]
        return Samples(torch.cat([tokens for tokens, _ in drawn]), drawn[0][1])

    @abstractmethod
    def _draw(
        self, denoiser: DenoiserFunction, rows: range, fixed: Tensor, frozen: Tensor, steps: int, seed: int
    ) -> tuple[Tensor, int]:
        """Texts number ``rows`` as ``[len(rows), L]`` and the network calls made.

        fixed ``[L]`` int64: what must stand where frozen ``[L]`` bool is true; positions may be frozen anywhere.
        """


def _device_of(denoiser: DenoiserFunction) -> torch.device:
    parameter = next(denoiser.parameters(), None) if isinstance(denoiser, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device
