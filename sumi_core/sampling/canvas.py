"""The canvas: rows of tokens that are being written, what is frozen in them, and what each row has cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch

from sumi_core.data.noise import Noise
from sumi_core.models.interface import DenoiserFunction
from sumi_core.sampling.forward_backward import Marginals

if TYPE_CHECKING:
    from torch import Tensor


class Constraint(Protocol):
    """A rule on what a text may hold."""

    def __call__(self, probs: Tensor, canvas: Canvas, positions: Tensor) -> Tensor:
        """Probabilities of clean tokens as the network predicts them, ``[B, q, S]`` float64 (0 on a mask), at
        ``positions`` ``[q]`` of the canvas; returns the allowed ones in the same shape, not normalised. A position
        that has none is an error of the draw. What is said of positions that are not written is not used."""
        ...


class JointConstraint(Constraint, Protocol):
    """A rule on the tokens of a text together (``sumi_core.sampling.languages``): a sampler draws by it."""

    joint: bool

    def check(self, canvas: Canvas) -> None:
        """Raise ValueError for a canvas on which no text keeps the rule."""
        ...

    def draw(
        self, marginals: Marginals, canvas: Canvas, index: int, places: range, uniform: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens of a row at some places, and the probability of each: see ``Languages.draw``."""
        ...


@dataclass(frozen=True)
class Canvas:
    """B rows of up to L tokens. A sampler's step returns the next canvas and changes nothing that an earlier one says:
    stepping twice from one canvas gives the same canvas twice.

    tokens: ``[B, L]`` int64. frozen: ``[B, L]`` bool, what stands as it is given. lengths: ``[B]`` int64; what lies
    beyond a row's length is not part of it. rows: the number of each row, which addresses its noise: row r is the same
    text in any company. seed, steps: as they were asked for. age: draws made so far. nfe: ``[B]`` int64, passes of the
    network that each row took part in before it was finished. slots: ``[B]`` int64, tokens of the row that had to be
    computed for those passes, the same in any company. done: ``[B]`` bool, rows that are finished. confidence:
    ``[B, L]`` float64, how probable each token was to be the one of the finished text when it was drawn; NaN where none
    was. state: what the sampler keeps between its steps; it may share memory with other canvases of the same run.
    revises: whether what is not frozen holds a finished text to begin with, and not nothing. told: whether the network
    is given level 0 at what is frozen, which it must have learnt to read; else all places of a text have one level.
    predicted: leave-one-out logits ``[B, L, S]`` of the last step, for a network that takes feedback; None: there was
    none yet.
    """

    tokens: Tensor
    frozen: Tensor
    lengths: Tensor
    rows: Sequence[int]
    seed: int
    steps: int
    age: int
    nfe: Tensor
    slots: Tensor
    done: Tensor
    confidence: Tensor
    constraints: tuple[Constraint, ...] = ()
    state: Any = None
    predicted: Tensor | None = None
    revises: bool = False
    told: bool = False

    @classmethod
    def blank(
        cls,
        prompts: Sequence[Tensor],
        lengths: Sequence[int],
        *,
        seed: int,
        steps: int,
        rows: Sequence[int] | None = None,
        device: torch.device | str = "cpu",
        constraints: Sequence[Constraint] = (),
    ) -> Canvas:
        """A canvas of one row per prompt, ``[P]`` tokens each (P may be 0 and differ), frozen at the row's left."""
        longest = max(lengths)
        tokens = torch.zeros(len(prompts), longest, dtype=torch.int64)
        frozen = torch.zeros(len(prompts), longest, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = prompt
            frozen[row, : len(prompt)] = True
        return cls.of(
            tokens,
            frozen,
            torch.tensor(list(lengths)),
            seed=seed,
            steps=steps,
            rows=rows,
            device=device,
            constraints=constraints,
        )

    @classmethod
    def of(
        cls,
        tokens: Tensor,
        frozen: Tensor,
        lengths: Tensor | None = None,
        *,
        seed: int,
        steps: int,
        rows: Sequence[int] | None = None,
        device: torch.device | str = "cpu",
        constraints: Sequence[Constraint] = (),
        told: bool = False,
    ) -> Canvas:
        """A canvas that keeps ``tokens`` ``[B, L]`` wherever ``frozen`` ``[B, L]`` is true: infilling."""
        count, length = tokens.shape
        zeros = torch.zeros(count, dtype=torch.int64, device=device)
        return cls(
            tokens=tokens.to(device),
            frozen=frozen.to(device),
            lengths=(torch.full((count,), length) if lengths is None else lengths).to(device),
            rows=range(count) if rows is None else rows,
            seed=seed,
            steps=steps,
            age=0,
            nfe=zeros,
            slots=zeros,
            done=zeros.bool(),
            confidence=torch.full(tokens.shape, torch.nan, dtype=torch.float64, device=device),
            constraints=tuple(constraints),
            told=told,
        )

    @property
    def device(self) -> torch.device:
        """Where the tokens are."""
        return self.tokens.device

    @property
    def length(self) -> int:
        """L, the longest row's."""
        return self.tokens.shape[1]

    @property
    def valid(self) -> Tensor | None:
        """``[B, L]`` bool, which slots belong to their row; None where all do."""
        if bool((self.lengths == self.length).all()):
            return None
        return torch.arange(self.length, device=self.device) < self.lengths[:, None]

    @property
    def joint(self) -> JointConstraint | None:
        """The constraint on tokens together, where there is one."""
        return next((cast("JointConstraint", held) for held in self.constraints if is_joint(held)), None)

    def without_joint(self) -> Canvas:
        """This canvas with the constraints on single tokens alone."""
        return dataclasses.replace(self, constraints=tuple(held for held in self.constraints if not is_joint(held)))

    def some(self, rows: slice) -> Canvas:
        """Some of its rows, as constraints see them: without what the sampler keeps between its steps."""
        parts = ("tokens", "frozen", "lengths", "rows", "nfe", "slots", "done", "confidence")
        return dataclasses.replace(
            self, **{name: getattr(self, name)[rows] for name in parts}, state=None, predicted=None
        )

    def noise(self, stream: str, step: int) -> Noise:
        """Random numbers addressed by (seed, stream, step, row). A row's numbers depend on its own length alone."""
        return Noise(self.seed, stream, step, self.rows, self.device, lengths=self.lengths.tolist())

    def allowed(self, probs: Tensor, positions: Tensor) -> Tensor:
        """Probabilities of clean tokens ``[B, q, S]`` at ``positions`` ``[q]`` under the constraints; unchanged where
        nothing is written: at frozen positions, after a row's end and in rows that are done."""
        if not self.constraints:
            return probs
        held = probs
        for constraint in self.constraints:
            held = constraint(held, self, positions)
        stands = self.frozen[:, positions] | self.done[:, None] | (positions >= self.lengths[:, None])
        return torch.where(stands.unsqueeze(-1), probs, held)

    def revising(self, texts: Sequence[Tensor]) -> Canvas:
        """This canvas with a finished text in each row, ``[L_r]``, to be revised where nothing is frozen."""
        tokens = torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True).to(self.tokens)
        return dataclasses.replace(self, tokens=torch.where(self.frozen, self.tokens, tokens), revises=True)

    def written(self, tokens: Tensor, **changes: Any) -> Canvas:
        """This canvas with other tokens where nothing is frozen, in rows that are not done."""
        keep = self.frozen | self.done[:, None]
        return dataclasses.replace(self, tokens=torch.where(keep, self.tokens, tokens), **changes)


def is_joint(constraint: Constraint) -> bool:
    """Whether a constraint is on tokens together."""
    return bool(getattr(constraint, "joint", False))


class Writer(Protocol):
    """What the loop needs of a sampler (``Sampler`` describes the methods)."""

    eos_id: int
    num_states: int

    def check(self, canvas: Canvas) -> None: ...

    def start(self, canvas: Canvas) -> Canvas: ...

    def step(self, denoiser: DenoiserFunction, canvas: Canvas) -> Canvas: ...

    def finished(self, canvas: Canvas) -> Tensor: ...

    def settled(self, canvas: Canvas) -> Tensor: ...
