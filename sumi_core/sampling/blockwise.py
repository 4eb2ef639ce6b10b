"""Block-by-block sampling of a model of blocks: each block is denoised given the clean text before it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from sumi_core.data.noise import Noise
from sumi_core.layouts.blocks import Blocks
from sumi_core.models.cache import KeyValues
from sumi_core.models.interface import DenoiserFunction, DenoiserInput, DenoiserOutput, caches, takes_feedback
from sumi_core.sampling.ancestral import Ancestral
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.memory import Memory, fed
from sumi_core.sampling.reverse import Predicted, ReverseStep

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class _Draft:
    """The block that is being written. z: ``[B, n]``, on its way from noise to text. counted: ``[B]``, clean slots that
    each row has been charged for. kept, memory: the clean slots that the network has read, where it keeps them. belief:
    what a rule remembers of the block from step to step; None: nothing yet. rests: ``[B]`` bool, rows that are done
    with the block; None: none is. predicted: leave-one-out logits ``[B, n, S]`` of the step before, for a network that
    is given them; None: there was none in this block."""

    z: Tensor
    counted: Tensor
    kept: int = 0
    memory: Memory | None = None
    belief: Any = None
    rests: Tensor | None = None
    predicted: Tensor | None = None


@dataclass(frozen=True)
class Move:
    """What one step makes of a block. z: ``[B, n]``, what the next step reads. shown: ``[B, n]``, the text as it would
    be if this were the last step. chance: ``[B, n]`` float64, how sure the network is of each of its tokens, NaN where
    that has not changed. rests: ``[B]`` bool, rows that are done with the block; None: none is. belief: as in a
    draft."""

    z: Tensor
    shown: Tensor
    chance: Tensor
    rests: Tensor | None = None
    belief: Any = None


@dataclass(frozen=True)
class Place:
    """Where a step is. block: of the text; number: of the step in it. given: ``[B, n]`` bool, tokens that stand. level:
    ``[B, 1]`` float64, at which the others are read. belief: as in a draft."""

    block: int
    number: int
    given: Tensor
    level: Tensor
    belief: Any


class Blockwise(Ancestral):
    """``steps`` network calls for each block, as ``ancestral`` makes them for a whole text; blocks in order.

    With one block in a text this is ancestral sampling. As the steps get finer, a text of whole blocks is drawn from
    the model whose bound the layout of blocks reports. Where the network keeps keys and values, a call computes the
    block alone: the first call of a block also reads the tokens of the one before, so nothing is called for that by
    itself. Blocks are always drawn whole: a text that ends within one is cut from it, while the bound of such a text is
    of a shorter last block. What is given before a block is read as clean. What is given after a block that is being
    written is not seen yet, and a given token within it counts as a token at the level of the others unless the network
    is given a level at every slot, which only training with ``token_levels`` shows it: under noise that consists of
    tokens, what is written beside it is then not drawn from the model's conditional distribution (docs/mathematics.md
    7). A model with feedback has it from the second step of a block on.
    """

    causal: ClassVar[bool | None] = True
    layouts: ClassVar[tuple[str, ...]] = ("blocks",)
    mode = "canvas"
    grows = True

    layout: Blocks

    def __init__(self, options: Any = None, **context: Any) -> None:
        super().__init__(options, **context)
        if not isinstance(self.layout, Blocks):
            raise ValueError("sampler Blockwise needs the layout of blocks; choose another sampler")

    def start(self, canvas: Canvas) -> Canvas:
        return self._opened(dataclasses.replace(canvas, age=0))

    def step(self, denoiser: DenoiserFunction, canvas: Canvas) -> Canvas:
        draft, n = canvas.state, self.layout.options.length
        assert isinstance(draft, _Draft)
        block, number = divmod(canvas.age, canvas.steps)
        given, open_ = self._part(canvas.frozen, block), self._part(self._open(canvas), block)
        level = self._level(canvas, number, draft.belief)
        place = Place(block, number, given, level, draft.belief)
        clean = self.layout.context(canvas.tokens, block, self.eos_id)
        logits, memory = self._read(denoiser, canvas, place, clean)
        move = self._move(canvas, logits, draft.z, place)
        works = open_.any(-1) & ~self._rests(draft)
        slots = clean.shape[1] + self.layout.canvas_slots
        inside = slice(block * n, min(canvas.length, (block + 1) * n))
        width = inside.stop - inside.start
        tokens, confidence = canvas.tokens.clone(), canvas.confidence.clone()
        tokens[:, inside] = move.shown[:, :width]
        before = self._part(canvas.confidence, block)
        chance = torch.where(open_, torch.where(move.chance.isnan(), before, move.chance), torch.nan)
        confidence[:, inside] = chance[:, :width]
        kept = 0 if memory is None else clean.shape[1]
        counted = draft.counted if memory is None else torch.where(works, clean.shape[1], draft.counted)
        z = torch.where(given, draft.z, move.z)
        over = number + 1 == canvas.steps
        if move.rests is not None:  # a row that rests here keeps nobody waiting, nor does one with nothing to write
            over = over or bool((move.rests | ~open_.any(-1)).all())
        written = dataclasses.replace(
            canvas.written(tokens),
            age=(block + 1) * canvas.steps if over else canvas.age + 1,
            nfe=canvas.nfe + works,
            slots=canvas.slots + works * (slots - draft.counted),
            confidence=torch.where(canvas.done[:, None], canvas.confidence, confidence),
            state=_Draft(
                z, counted, kept, memory, move.belief, move.rests, logits if takes_feedback(denoiser) else None
            ),
        )
        return self._opened(written) if over else written

    def _read(
        self, denoiser: DenoiserFunction, canvas: Canvas, place: Place, clean: Tensor
    ) -> tuple[Tensor, Memory | None]:
        """Leave-one-out logits of a block, ``[B, n, S]``, and what the network has read then. clean: the clean slots
        that the block sees."""
        draft, n = canvas.state, self.layout.options.length
        memory = draft.memory
        asked = DenoiserInput(draft.z, torch.where(place.given, 0.0, place.level))  # what is given is clean
        if draft.predicted is not None:
            asked = fed(denoiser, self.process, asked, place.level, draft.predicted, where=~place.given)
        if caches(denoiser) and memory is None:
            memory = Memory(KeyValues(len(clean), canvas.length + 2 * n + 2, canvas.device), clean[:, :0])

        def beside(asked: DenoiserInput) -> DenoiserOutput:
            cache, kept = (None, 0) if memory is None else memory.back_to(clean, draft.kept)
            found = self.layout.canvas(denoiser, canvas.tokens, asked, place.block, self.eos_id, cache=cache, kept=kept)
            if memory is not None:
                memory.text = clean
            return found

        return self.process.predict(beside, asked, place.level), memory

    # --- the rule ---------------------------------------------------------------------------------------------------

    def _level(self, canvas: Canvas, number: int, belief: Any) -> Tensor:
        """At which a step reads its block, ``[B, 1]`` float64."""
        return self.levels(canvas.steps).to(canvas.device)[number].expand(len(canvas.tokens), 1)

    def _move(self, canvas: Canvas, logits: Tensor, z: Tensor, place: Place) -> Move:
        """What a step makes of a block ``z`` ``[B, n]`` and leave-one-out logits ``[B, n, S]``."""
        begin, n = place.block * self.layout.options.length, z.shape[1]
        now, then = place.level, self.levels(canvas.steps).to(canvas.device)[place.number + 1].expand(len(z), 1)
        predicted = Predicted(self.process, canvas, logits, range(begin, begin + n), self.sharpened)
        step = ReverseStep(predicted, z, place.given, now, then, self._drawn(place.number, canvas.steps))
        drawn, chance = step.draw(self._noise(canvas, place.block, place.number + 1))
        drawn = torch.where(place.given, z, drawn)
        return Move(drawn, drawn, self._confidence(canvas, logits, z, drawn, chance, now, then))

    # --- helpers ----------------------------------------------------------------------------------------------------

    def finished(self, canvas: Canvas) -> Tensor:
        place = torch.arange(canvas.length, device=canvas.device)
        return ~(self._open(canvas) & (place >= self._begun(canvas))).any(-1)

    def settled(self, canvas: Canvas) -> Tensor:
        return canvas.lengths.clamp(max=self._begun(canvas))

    @staticmethod
    def _rests(draft: _Draft) -> Tensor:
        return torch.zeros_like(draft.counted, dtype=torch.bool) if draft.rests is None else draft.rests

    def _begun(self, canvas: Canvas) -> int:
        """Where the block that is being written begins."""
        return canvas.age // canvas.steps * self.layout.options.length

    def _opened(self, canvas: Canvas) -> Canvas:
        """The canvas at the first block from here on in which some row has to write, filled with noise."""
        n, draft = self.layout.options.length, canvas.state
        place = torch.arange(canvas.length, device=canvas.device)
        open_ = self._open(canvas).any(0) & (place >= self._begun(canvas))
        block = int(torch.where(open_, place // n, -(-canvas.length // n)).min())
        z = self.process.sample_prior(self._noise(canvas, block, 0), n)
        z = torch.where(self._part(canvas.frozen, block), self._part(canvas.tokens, block), z)
        start = (
            _Draft(z, torch.zeros_like(canvas.nfe))
            if draft is None
            else dataclasses.replace(draft, z=z, belief=None, rests=None, predicted=None)
        )
        return dataclasses.replace(canvas, age=block * canvas.steps, state=start)

    def _noise(self, canvas: Canvas, block: int, number: int) -> Noise:
        """Random numbers for all tokens of a block, whatever part of it the row has."""
        step = block * (canvas.steps + 1) + number
        return Noise(canvas.seed, "sample", step, canvas.rows, canvas.device)

    def _part(self, whole: Tensor, block: int) -> Tensor:
        """A block's part of ``[B, L]``, ``[B, n]``: 0 where the canvas ends within it or before."""
        n = self.layout.options.length
        part = whole[:, block * n : (block + 1) * n]
        return torch.nn.functional.pad(part, (0, n - part.shape[1]))

    @staticmethod
    def _open(canvas: Canvas) -> Tensor:
        """Positions that have to be written, or had to be, in rows that are not done: ``[B, L]`` bool."""
        place = torch.arange(canvas.length, device=canvas.device)
        return ~canvas.frozen & (place < canvas.lengths[:, None]) & ~canvas.done[:, None]
