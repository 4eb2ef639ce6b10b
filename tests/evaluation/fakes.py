"""Small stand-ins: packed sequences in memory, and denoisers whose likelihood is known."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sumi_core.corruption import CLOCKS, PROCESSES, SCHEDULES
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation.likelihood import SequenceLikelihoods
from sumi_core.models.interface import DenoiserInput, DenoiserOutput, FromLogits
from sumi_core.objectives import OBJECTIVES
from sumi_core.objectives.objective import Objective

EOS = 0


class Sequences:
    """Random tokens of one to three bytes each (token i: 1 + i % 3 bytes; the end-of-text token: none)."""

    def __init__(self, count: int, length: int, vocab: int, seed: int = 0) -> None:
        self.rows = np.random.default_rng(seed).integers(0, vocab, (count, length)).astype(np.uint16)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.rows[index]

    def bytes(self, index: int) -> int:
        row = self.rows[index]
        return int((1 + row[row != EOS] % 3).sum())

    def document_starts(self, index: int) -> np.ndarray:
        """Every sequence is a document of its own."""
        return np.array([0])


class UniformDenoiser(nn.Module):
    """Equal logits for every state, whatever it sees; remembers what it saw."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.states = states
        self.seen: list[Tensor] = []

    def forward(self, given: DenoiserInput) -> DenoiserOutput:
        self.seen.append(given.tokens.clone())
        return FromLogits(lambda tokens, level: torch.zeros(*tokens.shape, self.states))(given)


def objective(
    name: str, vocab: int, process: str | None = None, schedule: str = "linear", clock: dict[str, Any] | None = None
) -> Objective:
    """A registered objective over a small vocabulary."""
    vocabulary = Vocabulary(vocab, EOS)
    context = {"vocabulary": vocabulary, "schedule": SCHEDULES.build(schedule, {})}
    context["clock"] = CLOCKS.from_config(clock) if clock else None
    built = process and PROCESSES.build(process, {}, **context)
    return OBJECTIVES.build(name, {}, process=built, vocabulary=vocabulary)


def likelihoods(diffusion, level=None, bytes_=None, tokens=16, epsilon=0.001, exact=False) -> SequenceLikelihoods:
    """Likelihoods made of ``diffusion`` nats ``[N, K]`` alone."""
    diffusion = np.asarray(diffusion, dtype=np.float64)
    count, draws = diffusion.shape
    level = np.full((count, draws), np.nan) if level is None else level
    return SequenceLikelihoods(
        time=level,
        level=level,
        alpha=1 - level,
        nats_per_alpha=diffusion / tokens,
        diffusion=diffusion,
        reconstruction=np.zeros((count, draws)),
        prior=np.zeros((count, draws)),
        bytes=np.full(count, 20) if bytes_ is None else np.asarray(bytes_),
        tokens=np.full(count, tokens),
        document=np.arange(count),
        epsilon=epsilon,
        exact=exact,
    )
