"""Lossless coding of text by an autoregressive model: its likelihood as the size of a file that unpacks.

A range coder spends −log₂ p(x_i | x_{<i}) bits on each token, up to the rounding of p to multiples of 2^−24 and a few
bytes at the end (Pasco, 1976; here the coder of the library constriction, Bamler, 2201.01741). Both directions are
runs of the left-to-right sampler that differ in one thing: where a token would be drawn, the encoder looks it up and
the decoder decodes it. So both compute the same probabilities, in calls of the same shapes.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sumi_core.data.vocabulary import Vocabulary
from sumi_core.models.interface import DenoiserFunction
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.drawing import device_of
from sumi_core.sampling.generate import generate
from sumi_core.sampling.left_to_right import LeftToRight

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


class _Encoder(LeftToRight):
    """Writes the texts ``[B, L]`` that it is given, and codes each of their tokens."""

    def __init__(self, texts: Tensor, vocabulary: Vocabulary) -> None:
        import constriction

        super().__init__(process=None, vocabulary=vocabulary)
        self._texts, self._coder = texts, constriction.stream.queue.RangeEncoder()

    def _drawn(self, canvas: Canvas, probs: Tensor, position: int) -> Tensor:
        chosen = self._texts[:, position]
        for token, model in zip(chosen.tolist(), _models(probs), strict=True):
            self._coder.encode(token, model)
        return chosen[:, None].to(probs.device)

    def packed(self) -> NDArray[np.uint32]:
        words: NDArray[np.uint32] = self._coder.get_compressed()
        return words


class _Decoder(LeftToRight):
    """Writes the texts that a file holds."""

    def __init__(self, packed: NDArray[np.uint32], vocabulary: Vocabulary) -> None:
        import constriction

        super().__init__(process=None, vocabulary=vocabulary)
        self._coder = constriction.stream.queue.RangeDecoder(packed)

    def _drawn(self, canvas: Canvas, probs: Tensor, position: int) -> Tensor:
        return torch.tensor([[self._coder.decode(model)] for model in _models(probs)], device=probs.device)


def pack(denoiser: DenoiserFunction, texts: Tensor, vocabulary: Vocabulary) -> NDArray[np.uint32]:
    """Texts ``[B, L]`` int64 as one stream of 32-bit words, by a causal denoiser in eval mode: position by position,
    row by row."""
    encoder = _Encoder(texts.cpu(), vocabulary)
    _written(encoder, denoiser, *texts.shape)
    return encoder.packed()


def unpack(
    denoiser: DenoiserFunction, packed: NDArray[np.uint32], count: int, length: int, vocabulary: Vocabulary
) -> Tensor:
    """The ``count`` texts of ``length`` tokens that ``pack`` packed with the same denoiser on the same machine:
    ``[B, L]`` int64."""
    return _written(_Decoder(packed, vocabulary), denoiser, count, length)


def _written(coder: LeftToRight, denoiser: DenoiserFunction, count: int, length: int) -> Tensor:
    blank = torch.empty(0, dtype=torch.int64)
    canvas = Canvas.blank([blank] * count, [length] * count, seed=0, steps=1, device=device_of(denoiser))
    return deque(generate(coder, denoiser, canvas), maxlen=1).pop().tokens.cpu()


def _models(probs: Tensor) -> list[Any]:
    """What the coder knows of the next token of each row: probabilities ``[B, 1, V]``, none of them rounded to 0."""
    import constriction

    categorical = constriction.stream.model.Categorical
    return [categorical(row, perfect=False) for row in probs[:, 0].double().cpu().numpy()]
