"""Write what is given backwards: ``r:hello=olleh``."""

from __future__ import annotations

from sumi_core.data.tasks.copy import Copy


class Reverse(Copy):
    """The given letters from the last to the first. The question leaves one answer, so that a perfect denoiser needs
    one network call (ParallelBench, Kang et al. 2025, arXiv 2510.04767: reverse)."""

    mark = "r"

    def answer(self, given: str) -> str:
        return given[::-1]
