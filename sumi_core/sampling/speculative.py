"""Self-speculation: one model drafts with its diffusion mode and keeps what its autoregressive mode would have written.

Both modes are read in one forward pass (``lookahead``), so a pass that drafts gives the next token exactly beside it,
and no pass writes less than a token. What stands is decided in ``verification`` (docs/mathematics.md 11).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.data.noise import Noise
from sumi_core.kernels.row_loss import pick
from sumi_core.layouts.blocks import Blocks
from sumi_core.models.cache import KeyValues
from sumi_core.models.interface import DenoiserFunction, DenoiserOutput, caches
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.choosing import choose, gumbel_noise, tempered
from sumi_core.sampling.drafting import Drafting, Plan, Standing, at_places, certain, padded
from sumi_core.sampling.lookahead import Canvases, Clean, look_ahead
from sumi_core.sampling.memory import RaggedMemory
from sumi_core.sampling.sampler import Sampler
from sumi_core.sampling.verification import Verdict, by_comparison, by_rejection

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class _Read:
    """What a pass found. causal: predicts the first token after what is settled and those after each draft,
    ``[B, k + 1, D]``. noisy: predicts the tokens of its canvases, ``[B, R·w, D]``. slots: ``[B]`` computed."""

    causal: DenoiserOutput
    noisy: DenoiserOutput | None
    memory: RaggedMemory | None
    slots: Tensor


class Speculative(Sampler):
    """Drafts tokens together, reads them with the autoregressive mode, and keeps those that this would have written.

    ``linear`` takes two passes: the first reads the last token and denoises a canvas of ``width`` tokens after it, of
    which the first is drawn from the autoregressive mode itself; the second reads them. ``fan`` takes one: it reads
    ``width`` drafts and denoises a canvas after each of them, of which the one after the last that stands gives the
    next drafts. Slots cost time on a CPU and little on an idle accelerator: with q drafts a fan computes
    1 + q + (q + 1)² of them, and q + 1 more where a canvas begins with a copy of the token before it.

    verify ``gumbel``: the very text that sampler ``autoregressive`` writes with this seed and temperature;
    ``rejection``: a text of the same distribution, in which each draft by itself stands as often as possible. At
    temperature 0 both write the most probable tokens. Of the options that cut off improbable tokens it has none.

    draft_steps: passes that denoise a canvas before its tokens are drafts; each of them writes a token of the
    autoregressive mode, too, and the canvas begins one later. recycle: the next canvas begins with the drafts after
    one that does not stand, read at the level at which so many of its tokens survive. What is given within a text
    stands where it is.
    """

    causal: ClassVar[bool | None] = True
    layouts: ClassVar[tuple[str, ...]] = ("blocks",)
    mode = "speculative"
    grows = True
    uses_steps: ClassVar[bool] = False
    holds_languages: ClassVar[bool] = True

    @dataclass
    class Options(Part.Options):
        shape: Annotated[
            Literal["linear", "fan"],
            Field(description="draft and look at the drafts in turn, or both in every pass"),
        ] = "linear"
        width: Annotated[
            int, Field(ge=1, le=1024, description="tokens drafted together; of a linear draft the first is certain")
        ] = 4
        verify: Annotated[
            Literal["gumbel", "rejection"],
            Field(description="write the very text of the autoregressive mode, or one of its distribution"),
        ] = "gumbel"
        temperature: Annotated[
            float, Field(ge=0.0, description="divides the logits; 0: always the most probable token")
        ] = 1.0
        recycle: Annotated[
            bool, Field(description="the next canvas begins with the drafts after one that does not stand")
        ] = False
        draft_steps: Annotated[
            int, Field(ge=1, le=1024, description="passes that denoise a canvas of shape linear; at most its width")
        ] = 1

        def check(self) -> None:
            """Raises ValueError for draft steps that there is no room for."""
            if self.draft_steps > 1 and (self.shape == "fan" or self.draft_steps > self.width):
                raise ValueError("draft_steps above 1 need shape: linear and at least that width; lower draft_steps")

    options: Options
    layout: Blocks

    def __init__(self, options: Any = None, **context: Any) -> None:
        super().__init__(options, **context)
        if not isinstance(self.layout, Blocks):
            raise ValueError("sampler Speculative needs the layout of blocks; choose another sampler")
        own = self.options
        own.check()
        self.drafting = Drafting(
            self.process,
            own.shape == "fan",
            own.width,
            own.draft_steps,
            own.temperature,
            own.recycle,
            own.verify == "gumbel",
        )

    # --- the loop's view --------------------------------------------------------------------------------------------

    def start(self, canvas: Canvas) -> Canvas:
        settled = _next_open(canvas, torch.zeros_like(canvas.lengths))
        return dataclasses.replace(canvas, age=0, state=Standing.at(settled, self.num_tokens))

    def step(self, denoiser: DenoiserFunction, canvas: Canvas) -> Canvas:
        """One pass."""
        standing = canvas.state
        assert isinstance(standing, Standing)
        plan = self.drafting.plan(canvas, standing)
        read = self._read(denoiser, canvas, standing, plan)
        place = _behind(standing.settled, standing.drafted + 1)
        probs, impossible = self._probabilities(canvas, standing, read.causal, place)
        verdict = self._verdict(canvas, standing, probs, place)
        writes = _behind(torch.zeros_like(verdict.accepted), place.shape[1]) <= verdict.accepted[:, None]
        if bool((impossible & writes & ~canvas.done[:, None]).any()):
            raise ValueError(
                "cannot draw a token: the probabilities are NaN or all zero; does the denoiser give NaN logits?"
            )
        written = self._written(canvas, standing, verdict, probs, place, writes)
        stands = standing.settled + verdict.accepted + 1
        settled = torch.where(canvas.done, standing.settled, _next_open(canvas, stands))
        kept = torch.zeros_like(stands) if read.memory is None else torch.minimum(stands, settled)
        following = dataclasses.replace(standing, settled=settled, kept=kept, memory=read.memory)
        if plan is None or read.noisy is None:
            following = self.drafting.after_looking(standing, following)
        else:
            row = torch.arange(len(settled), device=canvas.device)[:, None]
            inside = _behind(verdict.accepted * plan.z.shape[2], plan.z.shape[2])
            chosen = dataclasses.replace(read.noisy, hidden=read.noisy.hidden[row, inside])
            moved = (settled - stands + 1).clamp(min=1)
            following = self.drafting.after_denoising(canvas, following, plan.chosen(verdict.accepted), chosen, moved)
        return dataclasses.replace(
            written, age=canvas.age + 1, nfe=canvas.nfe + 1, slots=canvas.slots + read.slots, state=following
        )

    def finished(self, canvas: Canvas) -> Tensor:
        return self.settled(canvas) >= canvas.lengths

    def settled(self, canvas: Canvas) -> Tensor:
        assert isinstance(canvas.state, Standing)
        return canvas.state.settled

    # --- one pass ---------------------------------------------------------------------------------------------------

    def _read(self, denoiser: DenoiserFunction, canvas: Canvas, standing: Standing, plan: Plan | None) -> _Read:
        """The pass: clean slots from the first that is not kept up to the last draft, and the plan's canvases."""
        k, own = standing.drafted, self.layout.options.read_out == "own"
        line = self._line(canvas, standing)
        cache, kept, memory = None, torch.zeros_like(standing.kept), standing.memory
        if memory is None and caches(denoiser):
            memory = RaggedMemory(KeyValues(len(line), line.shape[1] + 1, canvas.device), line)
        if memory is not None:
            cache, kept = memory.back_to(line, standing.kept)
        count = standing.settled + 1 + k - kept
        index = _behind(kept, int(count.max())).clamp(max=line.shape[1] - 1)
        clean, canvases = Clean(line.gather(1, index), count, kept), None
        last = standing.settled - kept
        slots = count
        if plan is not None:
            canvases = Canvases(plan.z, plan.told, _behind(last, plan.z.shape[1]))
            slots = count + plan.z.shape[1] * (plan.z.shape[2] + (not own))
        causal, noisy = look_ahead(denoiser, clean, canvases, own=own, cache=cache)
        if memory is not None:
            memory.text = line
        row = torch.arange(len(line), device=line.device)[:, None]
        causal = dataclasses.replace(causal, hidden=causal.hidden[row, _behind(last, k + 1)])
        return _Read(causal, noisy, memory, slots)

    def _line(self, canvas: Canvas, standing: Standing) -> Tensor:
        """The clean slots of a text: end of text, what is settled, then the drafts. ``[B, L + 2 + width]``."""
        place, width = _behind(standing.settled, standing.drafted), canvas.length + 1 + self.options.width
        text = padded(canvas.tokens, width).scatter(1, place, standing.drafts)
        return torch.cat([torch.full_like(text[:, :1], self.eos_id), text], 1)

    def _probabilities(
        self, canvas: Canvas, standing: Standing, output: DenoiserOutput, place: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the autoregressive mode draws each token at ``place`` from, ``[B, k + 1, V]`` float64, all on what is
        given where that is; and where there is nothing to draw, ``[B, k + 1]`` bool, with anything in its place."""
        logits = output.logits()[..., : self.num_tokens]
        if canvas.constraints:
            logits = self._allowed(canvas, standing, logits.double().softmax(-1), place).log()
        probs = tempered(logits, self.options.temperature)
        given = at_places(canvas.frozen, place)
        probs = torch.where(given[..., None], certain(at_places(canvas.tokens, place), probs), probs)
        possible = (probs.sum(-1) > 0) & probs.sum(-1).isfinite()
        return torch.where(possible[..., None], probs, 1 / self.num_tokens), ~possible

    def _allowed(self, canvas: Canvas, standing: Standing, probs: Tensor, place: Tensor) -> Tensor:
        """Under the constraints, each of which sees a row as it would stand when that token is drawn."""
        found = probs.clone()
        for row, places in enumerate(place.tolist()):
            one = slice(row, row + 1)
            names = ("frozen", "lengths", "nfe", "slots", "done", "confidence")
            alone = {name: getattr(canvas, name)[one] for name in names} | {"rows": [canvas.rows[row]]}
            for number, position in enumerate(places):
                if position >= canvas.length:
                    break
                tokens = canvas.tokens[one].clone()
                tokens[:, places[0] : position] = standing.drafts[one, :number]
                then = dataclasses.replace(canvas, **alone, tokens=tokens, age=position, state=None)
                at = torch.tensor([position], device=probs.device)
                found[one, number : number + 1] = then.allowed(probs[one, number : number + 1], at)
        return found

    def _verdict(self, canvas: Canvas, standing: Standing, probs: Tensor, place: Tensor) -> Verdict:
        if self.options.verify == "gumbel":
            chosen = choose(probs, gumbel_noise(canvas.seed, canvas.rows, place, self.num_tokens))
            return by_comparison(chosen, standing.drafts)
        noise = Noise(canvas.seed, "verify", canvas.age, canvas.rows, canvas.device)
        uniform = noise.uniform(place.shape[1], dtype=torch.float64)
        return by_rejection(probs, standing.chances, standing.drafts, uniform)

    def _written(
        self, canvas: Canvas, standing: Standing, verdict: Verdict, probs: Tensor, place: Tensor, writes: Tensor
    ) -> Canvas:
        """The canvas with the tokens that stand. writes: ``[B, k + 1]`` bool, which of those at ``place`` do."""
        tokens = torch.cat([standing.drafts, verdict.token[:, None]], 1)
        tokens = tokens.scatter(1, verdict.accepted[:, None], verdict.token[:, None])
        writes = writes & (place < canvas.lengths[:, None])
        chance = torch.where(writes, pick(probs, tokens) / probs.sum(-1), torch.nan)
        room = canvas.length + place.shape[1]
        text, confidence = (
            torch.nn.functional.pad(part, (0, room - part.shape[1])) for part in (canvas.tokens, canvas.confidence)
        )
        text = text.scatter(1, place, torch.where(writes, tokens, text.gather(1, place)))[:, : canvas.length]
        confidence = confidence.scatter(1, place, torch.where(writes, chance, confidence.gather(1, place)))
        stands = canvas.frozen | canvas.done[:, None]
        confidence = torch.where(stands, canvas.confidence, confidence[:, : canvas.length])
        return canvas.written(text, confidence=confidence)


def _behind(begin: Tensor, count: int) -> Tensor:
    """``[B]`` → ``[B, count]``: begin, begin + 1, …"""
    return begin[:, None] + torch.arange(count, device=begin.device)


def _next_open(canvas: Canvas, begin: Tensor) -> Tensor:
    """The first token from ``begin`` ``[B]`` on that each row has to write, its length where there is none."""
    place = torch.arange(canvas.length, device=canvas.device)
    open_ = ~canvas.frozen & (place >= begin[:, None]) & (place < canvas.lengths[:, None])
    return torch.where(open_, place, canvas.lengths[:, None]).amin(-1)
