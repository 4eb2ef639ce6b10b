"""What objectives and samplers see of a denoiser: a function, so that an exact one can take its place in tests."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

#: (tokens ``[B, L]`` int64, noise levels t ``[B]`` or ``[B, L]``, or None where there are none) → logits ``[B, L, S]``.
#: A ``Denoiser`` also takes the keywords ``pattern`` and ``positions``, for objectives that use it in several ways.
DenoiserFunction = Callable[[Tensor, Tensor | None], Tensor]
