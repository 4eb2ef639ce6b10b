"""What tests of samplers share."""

from __future__ import annotations

import pytest

from sumi_core.sampling.canvas import Canvas
from tests.sampling.worlds import FastNoise


@pytest.fixture
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise of all rows from one generator: thousands of rows cost nothing, and their addresses mean nothing."""
    FastNoise.generator.manual_seed(1)
    monkeypatch.setattr(Canvas, "noise", lambda canvas, stream, step: FastNoise(len(canvas.tokens)))
