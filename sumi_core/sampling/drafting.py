"""What the diffusion mode drafts: where canvases of noise begin, and which tokens they become.

Any draft is as good as its chance of standing. So a canvas may begin anywhere, hold anything and be read at any level;
what must be right is ``chances``, the distribution that each draft was drawn from given all that it was computed from.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sumi_core.corruption.categorical import draw_categorical
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.noise import Noise
from sumi_core.models.interface import DenoiserInput, DenoiserOutput
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.choosing import choose, gumbel_noise, tempered
from sumi_core.sampling.memory import RaggedMemory

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Standing:
    """Where each row stands between two passes.

    settled: ``[B]`` tokens at its left that change no more. drafts: ``[B, k]`` what may follow them. chances:
    ``[B, k, V]`` float64, the distributions that they were drawn from. held: ``[B, w]`` what the next canvas begins
    with where ``known`` ``[B, w]``; elsewhere it is noise. level: ``[B]`` float64, at which it is read. round: passes
    that have denoised it. kept, memory: the clean slots ``[B]`` that the network has read, where it keeps them."""

    settled: Tensor
    drafts: Tensor
    chances: Tensor
    held: Tensor
    known: Tensor
    level: Tensor
    round: int
    kept: Tensor
    memory: RaggedMemory | None = None

    @classmethod
    def at(cls, settled: Tensor, num_tokens: int) -> Standing:
        """Nothing drafted, nothing read."""
        rows, device = len(settled), settled.device
        nothing = torch.zeros(rows, 0, dtype=torch.int64, device=device)
        chances = torch.zeros(rows, 0, num_tokens, dtype=torch.float64, device=device)
        level = torch.ones(rows, dtype=torch.float64, device=device)
        return cls(settled, nothing, chances, nothing, nothing.bool(), level, 0, torch.zeros_like(settled))

    @property
    def drafted(self) -> int:
        """k."""
        return self.drafts.shape[1]


@dataclass(frozen=True)
class Plan:
    """The canvases of a pass. z: ``[B, R, w]`` int64. level: ``[B, R]`` float64, at which each is read. given:
    ``[B, R, w]`` bool, tokens that are given there. Canvas r begins r tokens after what is settled."""

    z: Tensor
    level: Tensor
    given: Tensor

    @property
    def told(self) -> Tensor:
        """The level of every token, ``[B, R, w]``: what is given is clean."""
        return torch.where(self.given, 0.0, self.level[..., None])

    def chosen(self, number: Tensor) -> Plan:
        """One canvas of each row, by its number ``[B]``: R = 1."""
        row = torch.arange(len(number), device=number.device)
        return Plan(*(part[row, number][:, None] for part in (self.z, self.level, self.given)))


@dataclass(frozen=True)
class Drafting:
    """Drafts by a process. fan: canvases after every draft. width, draft_steps, temperature, recycle: as the options
    of the sampler. shared_noise: drafts are chosen by the noise of their positions, as what they are compared with."""

    process: ForwardProcess
    fan: bool
    width: int
    draft_steps: int
    temperature: float
    recycle: bool
    shared_noise: bool

    # --- before a pass ----------------------------------------------------------------------------------------------

    def plan(self, canvas: Canvas, standing: Standing) -> Plan | None:
        """The canvases of the next pass; None: it looks at drafts alone."""
        k, device = standing.drafted, canvas.device
        if self.fan:
            behind = torch.arange(k + 1, device=device)[:, None] + torch.arange(self.width + 1, device=device)
            # Canvas r is read if draft r does not stand: in the place of that one is noise.
            known = (behind < k) & (torch.arange(self.width + 1, device=device) > 0) & self.recycle
            held = padded(standing.drafts, self.width + k + 1)[:, behind]
            known = known.expand(held.shape)
            level = self._level(known)
        elif k:
            return None
        else:
            width = self.width - standing.round
            behind = torch.arange(width, device=device)[None]
            held, known = (padded(part, width)[:, None, :width] for part in (standing.held, standing.known))
            level = standing.level[:, None]
        noise = Noise(canvas.seed, "sample", canvas.age, canvas.rows, device)
        z = self.process.sample_prior(noise, behind.numel()).view(-1, *behind.shape)
        z = torch.where(known, held, z)
        place = (standing.settled[:, None] + behind.flatten()).view(z.shape)
        given = at_places(canvas.frozen, place)
        return Plan(torch.where(given, at_places(canvas.tokens, place), z), level, given)

    def _level(self, known: Tensor) -> Tensor:
        """Where as many tokens survive as are known of a canvas ``[..., w]`` bool: ``[...]`` float64."""
        share = known.double().mean(-1)
        return torch.where(share > 0, self.process.time_of_alpha(share), 1.0)

    # --- after it ---------------------------------------------------------------------------------------------------

    def after_looking(self, standing: Standing, following: Standing) -> Standing:
        """Drafts were looked at, and nothing was drafted: what is left of them is where the next canvas begins."""
        moved = _moved(standing, following, standing.settled)
        held, left = shifted(padded(standing.drafts, self.width), moved, standing.drafted)
        known = left & self.recycle
        return _without_drafts(following, held, known, self._level(known), 0)

    def after_denoising(
        self, canvas: Canvas, following: Standing, plan: Plan, output: DenoiserOutput, moved: Tensor
    ) -> Standing:
        """A canvas of each row was denoised: R = 1 in ``plan``. moved: ``[B]`` how far after its first token the row
        goes on. Its tokens are the next drafts, or it is denoised once more."""
        z, t = plan.z[:, 0], plan.level
        logits = self.process.predict(lambda _: output, DenoiserInput(z, plan.told[:, 0]), t)
        steps_left = self.draft_steps - following.round - 1
        if steps_left:
            s = t * steps_left / (steps_left + 1)
            noise = Noise(canvas.seed, "refine", canvas.age, canvas.rows, canvas.device)
            probs = self._where_drawn(self.process.reverse(logits, z, t, s), plan, z)
            z = draw_categorical(probs, noise.uniform(z.shape[1], dtype=torch.float64))
            held, known = shifted(z, moved, z.shape[1])
            return _without_drafts(following, held, known, s[:, 0], following.round + 1)
        tokens = following.chances.shape[-1]
        clean = self.process.reverse(logits, z, t, torch.zeros_like(t))[..., :tokens]
        chances = self._where_drawn(tempered(clean.log(), self.temperature), plan, z)
        chances = shifted(chances, moved, z.shape[1])[0][:, :-1]
        drafts = self.draw(canvas, following.settled, chances)
        return dataclasses.replace(_without_drafts(following, drafts[:, :0]), drafts=drafts, chances=chances)

    def draw(self, canvas: Canvas, settled: Tensor, chances: Tensor) -> Tensor:
        """Drafts ``[B, k]`` from ``chances`` ``[B, k, V]``, for the tokens after what is settled."""
        place = settled[:, None] + torch.arange(chances.shape[1], device=settled.device)
        if self.shared_noise:
            return choose(chances, gumbel_noise(canvas.seed, canvas.rows, place, chances.shape[-1]))
        noise = Noise(canvas.seed, "draft", canvas.age, canvas.rows, canvas.device)
        return draw_categorical(chances, noise.uniform(chances.shape[1], dtype=torch.float64))

    @staticmethod
    def _where_drawn(probs: Tensor, plan: Plan, z: Tensor) -> Tensor:
        """Probabilities ``[B, w, S]``, all on what is given where that is."""
        return torch.where(plan.given[:, 0, :, None], certain(z.clamp(max=probs.shape[-1] - 1), probs), probs)


def _without_drafts(
    standing: Standing, held: Tensor, known: Tensor | None = None, level: Tensor | None = None, round_: int = 0
) -> Standing:
    nothing = Standing.at(standing.settled, standing.chances.shape[-1])
    return dataclasses.replace(
        standing,
        drafts=nothing.drafts,
        chances=nothing.chances,
        held=held,
        known=held.bool() if known is None else known,
        level=nothing.level if level is None else level,
        round=round_,
    )


def _moved(standing: Standing, following: Standing, begin: Tensor) -> Tensor:
    """How far a row goes on after ``begin``; one that is done stays where it is, and is not looked at again."""
    return (following.settled - begin).clamp(min=0)


def certain(tokens: Tensor, like: Tensor) -> Tensor:
    """Distributions that are all on ``tokens`` ``[...]``, of the shape of ``like`` ``[..., S]``."""
    return torch.zeros_like(like).scatter_(-1, tokens[..., None], 1.0)


def padded(part: Tensor, width: int) -> Tensor:
    """``[B, n]`` → ``[B, max(n, width)]``, 0 or False behind."""
    return torch.nn.functional.pad(part, (0, max(0, width - part.shape[1])))


def at_places(part: Tensor, place: Tensor) -> Tensor:
    """Of ``[B, L]`` what stands at ``place`` ``[B, …]``, 0 or False after the end."""
    flat = place.flatten(1)
    found = part.gather(1, flat.clamp(max=part.shape[1] - 1))
    return torch.where(flat < part.shape[1], found, 0).to(part.dtype).view(place.shape)


def shifted(part: Tensor, by: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """``[B, n]`` or ``[B, n, V]`` from its entry ``by[b]`` on, and which entries there are, ``[B, n]``: of the first
    ``width``. Behind them stands 0, or a distribution that is all on token 0."""
    place = torch.arange(part.shape[1], device=part.device) + by[:, None]
    there = place < width
    index = place.clamp(max=max(part.shape[1] - 1, 0))
    if part.ndim == 2:
        return torch.where(there, part.gather(1, index), 0), there
    found = part.gather(1, index[..., None].expand_as(part))
    return torch.where(there[..., None], found, certain(torch.zeros_like(index), found)), there
