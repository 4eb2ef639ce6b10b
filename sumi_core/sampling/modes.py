"""The modes of a model: the ways in which it is read and writes, and the sampler of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Mode:
    """A way to read a model. description: for readers of a model card. sampler: the one that writes so unless another
    is named. reads: what the objective must train, names of ``Objective.modes``. layouts: under which it is there."""

    description: str
    sampler: str
    reads: tuple[str, ...]
    layouts: tuple[str, ...]


MODES: Mapping[str, Mode] = {
    "ar": Mode(
        "token by token: each is predicted from the clean text before it",
        "autoregressive",
        ("next_token",),
        ("whole", "blocks"),
    ),
    "canvas": Mode(
        "block by block: the tokens of a block are denoised together, given the clean text before it",
        "blockwise",
        ("denoising",),
        ("blocks",),
    ),
    "speculative": Mode(
        "token by token with drafts: mode `canvas` proposes several tokens, mode `ar` reads them and keeps its own",
        "speculative",
        ("next_token", "denoising"),
        ("blocks",),
    ),
    "whole": Mode(
        "the whole text at once: all of its tokens are denoised together",
        "ancestral",
        ("denoising",),
        ("whole",),
    ),
}
