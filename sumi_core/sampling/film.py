"""The film of a text: every canvas of its denoising, and which tokens changed their mind on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sumi_core.sampling.canvas import Canvas

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sumi_core.sampling.sampler import Sampler


BLANK = -1  # no token yet


@dataclass(frozen=True)
class Film:
    """T frames of B rows of L tokens; the first frame is the canvas before any call of the network.

    tokens: ``[T, B, L]`` int64, as a reader sees them. confidence: ``[T, B, L]`` float32, that of the canvas, NaN where
    there is none. frozen: ``[B, L]`` bool, what was given. lengths: ``[B]`` int64, tokens of each finished row. nfe:
    ``[T, B]`` int64, passes of the network so far.

    A token is ``BLANK`` where a sampler that writes from the left has not been yet. A *revision* is a change of a token
    that was more likely right than wrong, as the network saw it when it was drawn: noise that gives way to noise is no
    change of mind, and neither is a mask that gives way to a token.
    """

    tokens: NDArray[np.int64]
    confidence: NDArray[np.float32]
    frozen: NDArray[np.bool_]
    lengths: NDArray[np.int64]
    nfe: NDArray[np.int64]

    @property
    def written(self) -> NDArray[np.bool_]:
        """``[B, L]``, the positions that belong to a row and were not given."""
        place = np.arange(self.tokens.shape[2])
        return ~self.frozen & (place < self.lengths[:, None])

    def changed(self) -> NDArray[np.bool_]:
        """``[T, B, L]``, whether a token differs from that of the frame before; nothing does in the first frame."""
        first = np.zeros_like(self.tokens[:1], dtype=bool)
        return np.concatenate([first, self.tokens[1:] != self.tokens[:-1]]) & self.written

    def revised(self) -> NDArray[np.bool_]:
        """``[T, B, L]``, whether a token was revised in a frame: it changed, and its confidence had reached ½."""
        believed = np.concatenate([np.zeros_like(self.frozen)[None], self.confidence[:-1] >= 0.5])
        return self.changed() & believed

    def age(self) -> NDArray[np.int64]:
        """``[T, B, L]``, frames since each token last changed; since the first frame where it never did."""
        frame = np.arange(len(self.tokens))[:, None, None]
        last: NDArray[np.int64] = np.maximum.accumulate(np.where(self.changed(), frame, 0))
        return frame - last


class Camera:
    """Records every canvas that it is shown, to be handed to ``draw_texts`` as ``watch``."""

    def __init__(self) -> None:
        self._runs: list[list[Canvas]] = []

    def __call__(self, canvas: Canvas) -> None:
        if not self._runs or self._runs[-1][-1].rows != canvas.rows:
            self._runs.append([])
        # Neither what the sampler remembers nor its logits: they would be kept for every frame.
        self._runs[-1].append(dataclasses.replace(canvas, state=None, predicted=None))

    def film(self, sampler: Sampler) -> Film:
        """The film of all rows, as ``sampler`` wrote them. Raises ValueError where there is no canvas."""
        if not self._runs:
            raise ValueError("a film needs at least one canvas")
        return _joined([_film(frames, sampler) for frames in self._runs])


def _film(frames: Sequence[Canvas], sampler: Sampler) -> Film:
    """The film of one run of ``generate``."""
    last = frames[-1]
    tokens = torch.stack([sampler.shown(canvas.tokens) for canvas in frames])
    confidence = torch.stack([canvas.confidence for canvas in frames])
    if sampler.grows:
        tokens = torch.where(confidence.isnan() & ~last.frozen, BLANK, tokens)
    return Film(
        tokens=tokens.cpu().numpy(),
        confidence=confidence.float().cpu().numpy(),
        frozen=last.frozen.cpu().numpy(),
        lengths=last.lengths.cpu().numpy(),
        nfe=torch.stack([canvas.nfe for canvas in frames]).cpu().numpy(),
    )


def _joined(films: Sequence[Film]) -> Film:
    """The rows of several films as one. The last frame of a shorter film stands on, and shorter texts are blank after
    their ends."""
    longest, frames = (max(film.tokens.shape[axis] for film in films) for axis in (2, 0))

    def held(name: str, blank: Any) -> NDArray[Any]:
        parts = []
        for film in films:
            part = getattr(film, name)
            part = np.concatenate([part, np.repeat(part[-1:], frames - len(part), 0)])
            parts.append(_filled(part, longest, blank) if part.ndim == 3 else part)
        return np.concatenate(parts, 1)

    return Film(
        tokens=held("tokens", BLANK),
        confidence=held("confidence", np.nan),
        frozen=np.concatenate([_filled(film.frozen, longest, False) for film in films]),
        lengths=np.concatenate([film.lengths for film in films]),
        nfe=held("nfe", 0),
    )


def _filled(part: NDArray[Any], longest: int, blank: Any) -> NDArray[Any]:
    """With as many places at the end, all ``blank``."""
    room = [(0, 0)] * (part.ndim - 1) + [(0, longest - part.shape[-1])]
    return np.pad(part, room, constant_values=blank)
