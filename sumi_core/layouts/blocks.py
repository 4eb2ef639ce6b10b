"""Blocks of noise beside the clean text: the layout of block diffusion (BD3LM, 2503.09573) with a causal clean stream.

    −log p(x) = Σ_k −log p(x^k | x^{<k}),   and each term has the bound of docs/mathematics.md 1 with clean left context

One forward pass over two streams gives every block's term. The clean stream is the causal model: it reads
``[eos] + x[:-1]`` at positions 0 … L − 1, so token i stands at position i + 1 in both streams.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.layouts.layout import Layout
from sumi_core.models.attention import AttentionPattern, Explicit
from sumi_core.models.cache import KeyValues
from sumi_core.models.interface import DenoiserFunction, DenoiserInput, DenoiserOutput, Feedback

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Streams:
    """The slots of a text of L tokens: N noisy ones, then L clean ones.

    source: ``[N]`` what each noisy slot holds, an index into ``[z; clean]``: below L a token of z, else a copy of a
    clean slot. reads: ``[L]`` the slot that predicts each token. positions: ``[N + L]``. mask: ``[N + L, N + L]`` bool,
    who sees whom. block: ``[N]`` the block of each noisy slot."""

    source: Tensor
    reads: Tensor
    positions: Tensor
    mask: Tensor
    block: Tensor

    def to(self, device: torch.device) -> Streams:
        """The same on a device."""
        return Streams(*(part.to(device) for part in vars(self).values()))


class Blocks(Layout):
    """Two streams, ``[noisy; clean]``: a noisy slot of block k sees the noisy slots of its own block and the clean
    tokens before it, strictly; a clean slot sees clean slots up to itself.

    read_out ``own``: the slot of z_i predicts x_i. ``previous``: the slot before predicts it, as in a causal model, and
    each block begins with a copy of the clean token before it. With length 1 that copy is all that is left: the slot of
    z_i would be read for x_i alone, which must not depend on it. The denoiser is then the causal model, and its bound
    is the cross-entropy.

    A denoiser with time conditioning is given level 0 at clean slots. The last block of a text that ``length`` does not
    divide is shorter.

    growth: training begins with blocks of these lengths, in equal parts of its steps, and ends with ``length`` as the
    last part: from a causal model (1) to one of blocks in stages (NBDiff, 2512.06776, grows so). also: the steps of
    training take turns between ``length`` and these, so that one model knows all of them. What a finished model is
    reported with, and writes with, is ``length``.
    """

    description = (
        "a text is written block after block: the tokens of a block are denoised together, given the clean text before "
        "it"
    )
    causal: ClassVar[bool | None] = True
    reading: ClassVar[str] = "blocks"
    default_sampler: ClassVar[dict[str, Any] | None] = {"name": "blockwise"}
    level_per_slot: ClassVar[bool] = True
    reads_causally: ClassVar[bool] = True

    @dataclass
    class Options(Part.Options):
        length: Annotated[int, Field(ge=1, le=2**20, description="tokens of a block; divides the sequence length")] = 16
        read_out: Annotated[
            Literal["own", "previous"],
            Field(description="which slot predicts a token: its own, or the one before it as in a causal model"),
        ] = "own"
        growth: Annotated[
            list[int], Field(description="block lengths that training begins with, in equal parts of its steps")
        ] = field(default_factory=list)
        also: Annotated[list[int], Field(description="block lengths that the steps of training take turns with")] = (
            field(default_factory=list)
        )

        def check(self) -> None:
            """Raises ValueError for lengths below 1, and for both lists at once."""
            if any(length < 1 for length in (*self.growth, *self.also)):
                raise ValueError("growth and also hold block lengths of 1 or more")
            if self.growth and self.also:
                raise ValueError("growth and also would both choose a step's block length; write one of them")

    options: Options

    def at(self, step: int) -> Blocks:
        lengths = self.training_lengths
        if self.steps is None or len(lengths) == 1:
            return self
        place = step % len(lengths) if self.options.also else step * len(lengths) // self.steps
        return self.of_length(lengths[min(place, len(lengths) - 1)])

    @property
    def training_lengths(self) -> list[int]:
        """The block lengths of training, each of which has as many steps."""
        options = self.options
        return [options.length, *options.also] if options.also else [*options.growth, options.length]

    def of_length(self, length: int) -> Blocks:
        """The same with blocks of another length alone."""
        options = self.options
        if length == options.length and not options.growth and not options.also:
            return self
        return Blocks(self.Options(length=length, read_out=options.read_out))

    @classmethod
    def incompatibility(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, str] | None:
        length, whole = own["length"], others["shards"]["sequence_length"]
        if others["process"] is None:
            objective = others["objective"]["name"]
            return "layout", f"objective '{objective}' has no noise that blocks could be shown in; write layout: whole"
        for key in ("length", "growth", "also"):
            for one in [length] if key == "length" else own[key]:
                if whole % one:
                    problem = f"blocks of {one} tokens do not divide shards.sequence_length {whole}; choose a divisor"
                    return f"layout.{key}", problem
        lengths, steps = [*own["growth"], *own["also"], length], others["training"]["steps"]
        if steps < len(lengths):
            problem = (
                f"{len(lengths)} block lengths do not fit into {steps} training step(s), so that some are not trained"
            )
            return "layout.growth" if own["growth"] else "layout.also", f"{problem}; leave some out"
        if others["clock"]["name"] != "shared":
            return (
                "clock",
                f"layout 'blocks' gives each block a level of its own, which clock '{others['clock']['name']}' would "
                "give again; write shared",
            )
        if others["model"]["attention"]["name"] != "causal":
            return (
                "model.attention",
                f"layout 'blocks' reads the clean text causally, which {others['model']['attention']['name']} "
                "attention does not; choose causal",
            )
        if cls.hides(own) and others["parameterisation"]["name"] == "posterior":
            return (
                "layout.read_out",
                "previous with blocks of one token never reads that token's noise, which a posterior depends on; write "
                "own, or parameterisation: leave_one_out",
            )
        return None

    @classmethod
    def bound_name(cls, own: Mapping[str, Any], source: str = "") -> str:
        return f"{super().bound_name(own, source)}_{own['length']}"

    @staticmethod
    def hides(own: Mapping[str, Any]) -> bool:
        """Whether no slot holds a block's last noisy token: only its own prediction would read it."""
        return own["read_out"] == "previous" and 1 in (own["length"], *own["growth"], *own["also"])

    # --- two streams ------------------------------------------------------------------------------------------------

    def of(self, denoiser: DenoiserFunction, x: Tensor, eos_id: int) -> DenoiserFunction:
        """As ``Layout.of``. Takes documents under read-out ``own`` alone, since the slot before the first token of a
        document belongs to another one; each document is then read as a text, after an end-of-text token, which its
        tokens see from the first block on that begins with it or after it.

        Raises ValueError for what lays out slots itself: a pattern, positions, a cache or a context; and for documents
        under read-out ``previous``."""
        both = self.both(denoiser, x, eos_id)
        return lambda given: both(given)[0]

    def both(
        self, denoiser: DenoiserFunction, x: Tensor, eos_id: int
    ) -> Callable[[DenoiserInput], tuple[DenoiserOutput, DenoiserOutput]]:
        """As ``of``, and beside it what the clean stream of the same forward pass predicts: the hidden states of a
        causal model that read [eos] + x[:-1], ``[B, L, D]``, untouched by the noise."""
        return _TwoStreams(self, denoiser, x, eos_id)

    def streams(self, length: int, device: torch.device | str = "cpu") -> Streams:
        """The slots of a text of ``length`` tokens."""
        return _streams(length, self.options.length, self.options.read_out == "own").to(torch.device(device))

    def times(self, uniform: Tensor, length: int) -> Tensor:
        """frac(u + k/K) for block k of K: the levels of a text's blocks are spread as those of a batch's texts are."""
        block = self.parts(length).to(uniform.device)
        return (uniform + block / (int(block[-1]) + 1)) % 1.0

    def parts(self, length: int) -> Tensor:
        return torch.arange(length) // self.options.length

    def slots(self, length: int) -> float:
        return _mean(length + self._noisy(length, n) for n in self.training_lengths)

    def keys(self, length: int, pattern: AttentionPattern) -> float:
        """L + n/2 + 3/2 for read-out ``own`` and n | L, counted on the mask."""
        return _mean(self._keys(length, n) for n in self.training_lengths)

    def _keys(self, length: int, n: int) -> float:
        own = self.options.read_out == "own"
        whole, rest = divmod(length, n)
        seen = length * (length + 1) / 2  # of the clean slots
        for first, blocks, width in ((0, whole, n), (whole, 1, rest)):
            if width:
                slots = width if own else max(1, width + (n > 1))
                clean = n * (blocks * first + blocks * (blocks - 1) / 2) + own * blocks  # tokens before, and eos
                seen += slots * (blocks * slots + clean)
        return seen / length

    def _noisy(self, length: int, n: int) -> int:
        return length if self.options.read_out == "own" or n == 1 else length + -(-length // n)

    # --- one block --------------------------------------------------------------------------------------------------

    @property
    def canvas_slots(self) -> int:
        """Noisy slots of a block."""
        return self._noisy(self.options.length, self.options.length)

    def context(self, x: Tensor, block: int, eos_id: int) -> Tensor:
        """The clean slots that a block sees, ``[B, m]``. x: ``[B, ≥ kn]``, the text before it."""
        before = block * self.options.length
        begun = torch.cat([torch.full_like(x[:, :1], eos_id), x[:, :before]], 1)
        return begun if self.options.read_out == "own" else begun[:, :before]

    def canvas(
        self,
        denoiser: DenoiserFunction,
        x: Tensor,
        given: DenoiserInput,
        block: int,
        eos_id: int,
        *,
        cache: KeyValues | None = None,
        kept: int = 0,
    ) -> DenoiserOutput:
        """One block alone beside its clean context, in one forward pass: hidden states ``[B, n, D]`` that predict its
        tokens, equal to those of two streams.

        x: ``[B, ≥ kn]``, the text before it. given: tokens z^k ``[B, n]``, levels ``[B]`` or ``[B, n]``, and feedback.
        cache: holds the first ``kept`` clean slots, and the others afterwards."""
        clean, z, level = self.context(x, block, eos_id), given.tokens, given.level
        seen, n = clean.shape[1], z.shape[1]
        own = self.options.read_out == "own"
        if not own:
            before = block * self.options.length
            copy = x[:, before - 1 : before] if block else torch.full_like(z[:, :1], eos_id)
            z = copy if self.options.length == 1 else torch.cat([copy, z], 1)
        new, noisy = clean[:, kept:], z.shape[1]
        told = None
        if level is not None:
            levels = _per_token(level, n)
            levels = levels if own else torch.cat([torch.zeros_like(levels[:, :1]), levels], 1)[:, :noisy]
            told = torch.cat([levels.new_zeros(new.shape), levels], 1)
        feedback = given.feedback
        if feedback is not None:
            empty = new.shape[1] + (not own)  # clean slots, and the copy
            parts = (_behind(part, empty)[:, : new.shape[1] + noisy] for part in vars(feedback).values())
            feedback = Feedback(*parts)
        place = torch.arange(seen + noisy, device=z.device)
        mask = (place[None] <= place[kept:, None]) | (place[kept:, None] >= seen)
        # Token kn stands at position kn + 1 and the copy before it at kn: both right after what the block sees.
        output = denoiser(
            DenoiserInput(
                torch.cat([new, z], 1),
                told,
                positions=place[kept:],
                pattern=Explicit(mask),
                cache=cache,
                keep=new.shape[1] if cache is not None else 0,
                feedback=feedback,
            )
        )
        return replace(output, hidden=output.hidden[:, new.shape[1] :][:, :n])


@dataclass(frozen=True)
class _TwoStreams:
    layout: Blocks
    denoiser: DenoiserFunction
    x: Tensor
    eos_id: int

    def __call__(self, given: DenoiserInput) -> tuple[DenoiserOutput, DenoiserOutput]:
        x, z, documents = self.x, given.tokens, given.documents
        if any(part is not None for part in (given.pattern, given.positions, given.cache, given.context, given.noisy)):
            raise ValueError(
                "layout 'blocks' lays out the slots itself: give no pattern, positions, cache, context or noisy"
            )
        if documents is not None and self.layout.options.read_out == "previous":
            raise ValueError(
                "under read_out: previous the first token of a document is predicted where the last one of another "
                "stands; give no documents, or write read_out: own"
            )
        streams = self.layout.streams(z.shape[1], z.device)
        clean = torch.cat([torch.full_like(x[:, :1], self.eos_id), x[:, :-1]], 1)
        if documents is not None:
            documents = documents.expand(z.shape)
            begins = torch.cat([torch.ones_like(documents[:, :1]), documents.diff(dim=1)], 1) != 0
            clean = torch.where(begins, self.eos_id, clean)

        def laid_out(of_z: Tensor, of_clean: Tensor) -> Tensor:
            return torch.cat([torch.cat([of_z, of_clean], 1)[:, streams.source], of_clean], 1)

        def twice(part: Tensor | None) -> Tensor | None:
            return None if part is None else laid_out(part.expand(z.shape), part.expand(z.shape))

        level = given.level
        if level is not None:
            levels = _per_token(level, z.shape[1])
            level = laid_out(levels, torch.zeros_like(levels))
        feedback = given.feedback
        if feedback is not None:
            parts = (feedback.mean, feedback.weight)
            feedback = Feedback(*(laid_out(part, torch.zeros_like(part)) for part in parts))
        output = self.denoiser(
            DenoiserInput(
                laid_out(z, clean),
                level,
                feedback=feedback,
                positions=streams.positions,
                documents=twice(documents),
                valid=twice(given.valid),
                pattern=Explicit(streams.mask),
            )
        )
        noisy, causal = output.hidden[:, streams.reads], output.hidden[:, -z.shape[1] :]
        return replace(output, hidden=noisy), replace(output, hidden=causal)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def _behind(part: Tensor, slots: int) -> Tensor:
    """Feedback ``[B, n, …]`` after as many slots that have none."""
    return torch.cat([part.new_zeros(len(part), slots, *part.shape[2:]), part], 1)


def _per_token(level: Tensor, length: int) -> Tensor:
    """Levels ``[B]``, ``[B, 1]`` or ``[B, L]`` as ``[B, L]``."""
    return (level.unsqueeze(-1) if level.ndim == 1 else level).expand(-1, length)


@functools.lru_cache(maxsize=16)
def _streams(length: int, n: int, own: bool) -> Streams:
    with torch.inference_mode(False):  # what an evaluation has made is used by a training in the same process
        return _laid_streams(length, n, own)


def _laid_streams(length: int, n: int, own: bool) -> Streams:
    place = torch.arange(length)
    if own:
        source, position, block, reads = place, place + 1, place // n, place
    else:
        # Block k: a copy of clean slot kn, which holds the token before the block, then the block's own noisy tokens.
        rows = [
            (length + begin, begin, k) if j == 0 else (begin + j - 1, begin + j, k)
            for k, begin in enumerate(range(0, length, n))
            for j in range(1 if n == 1 else min(n, length - begin) + 1)
        ]
        source, position, block = torch.tensor(rows).unbind(1)
        reads = place if n == 1 else place + place // n
    clean = place
    sees_noisy = block[:, None] == block
    sees_clean = clean < block[:, None] * n + own  # strictly before the block's first token, which stands at kn + 1
    of_clean = torch.cat([torch.zeros(length, len(block), dtype=torch.bool), clean <= clean[:, None]], 1)
    mask = torch.cat([torch.cat([sees_noisy, sees_clean], 1), of_clean])
    return Streams(source, reads, torch.cat([position, clean]), mask, block)
