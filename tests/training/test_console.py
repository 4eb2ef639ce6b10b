"""What a log file is told of a training's progress."""

from __future__ import annotations

import pytest

from sumi_core.trainer import console
from sumi_core.trainer.console import Milestones


def test_a_log_has_twenty_lines_of_progress_and_one_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])

    def told(seconds_a_step: float) -> list[int]:
        clock[0], milestones, found = 0.0, Milestones(), []
        for step in range(1, 1001):
            clock[0] += seconds_a_step
            if milestones.passed({"step": step, "steps": 1000}):
                found.append(step)
        return found

    assert told(0.0) == [1, *range(50, 1001, 50)]
    assert len(told(6.0)) == 1 + 20 * 5, "every tenth step is a minute, and a twentieth begins anew with each fifty"
