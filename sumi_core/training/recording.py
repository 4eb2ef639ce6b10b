"""Where a training's metrics go: the history file, MLflow, and progress messages."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from sumi_core.base.files import write_atomically
from sumi_core.base.text import with_error
from sumi_core.training.events import Report
from sumi_core.training.history import HistoryFile, Point
from sumi_core.training.publishing import Publisher


class Sessions:
    """``sessions.json``: how often a training was started and how long it ran in all, lost work included.

    Written now and then, so the last seconds before a kill may be missing.
    """

    EVERY_SECONDS = 5.0

    def __init__(self, path: Path) -> None:
        self.path = path
        earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"seconds": 0.0, "sessions": 0}
        self._before = float(earlier["seconds"])
        self.count = int(earlier["sessions"]) + 1
        self._start = self._written = time.monotonic()
        self.write()

    @property
    def seconds(self) -> float:
        """Active wall time of all sessions."""
        return self._before + time.monotonic() - self._start

    def tick(self) -> None:
        """Write, if the last time is long enough ago."""
        if time.monotonic() - self._written >= self.EVERY_SECONDS:
            self.write()

    def write(self) -> None:
        """Write now."""
        self._written = time.monotonic()
        write_atomically(self.path, json.dumps({"seconds": self.seconds, "sessions": self.count}))


class Recorder:
    """Records on rank 0; on every other rank it does nothing.

    tokens_per_step: tokens of one step over all devices. flops_per_token, peak: of the model, and of all devices
    together (None: not known).
    """

    PROGRESS_SECONDS = 1.0

    def __init__(
        self,
        history: HistoryFile | None,
        publisher: Publisher,
        sessions: Sessions | None,
        report: Report,
        *,
        steps: int,
        tokens_per_step: int,
        flops_per_token: float,
        peak: float | None,
    ) -> None:
        self._history, self._publisher, self._sessions, self._report = history, publisher, sessions, report
        self._steps, self._tokens, self._flops, self._peak = steps, tokens_per_step, flops_per_token, peak
        self._next_progress = 0.0

    def record(self, step: int, metrics: dict[str, float]) -> None:
        """Add metrics at a number of steps."""
        if self._history is None:
            return
        points = [Point(step, step * self._tokens, name, value) for name, value in metrics.items()]
        self._history.append(points)
        self._publisher.add(points)
        if self._sessions is not None:
            self._sessions.tick()

    def commit(self) -> None:
        """Make what is recorded durable: a checkpoint is about to say that it happened."""
        if self._history is not None:
            self._history.sync()

    def speed(self, steps_per_second: float | None) -> dict[str, float]:
        """Throughput metrics of a rate, as far as they are known."""
        if steps_per_second is None:
            return {}
        tokens_per_second = steps_per_second * self._tokens
        mfu = self.mfu(tokens_per_second)
        return {"system/tokens_per_second": tokens_per_second, **({"system/mfu": mfu} if mfu is not None else {})}

    def mfu(self, tokens_per_second: float | None) -> float | None:
        """Model FLOPs utilisation (PaLM, 2204.02311, appendix B): the model's FLOPs over what the devices could do."""
        if self._peak is None or tokens_per_second is None:
            return None
        return self._flops * tokens_per_second / self._peak

    def progress(self, step: int, loss: float, steps_per_second: float | None) -> None:
        """Say where the training stands, at most once a second and at the end."""
        now = time.monotonic()
        if self._history is None or (now < self._next_progress and step < self._steps):
            return
        self._next_progress = now + self.PROGRESS_SECONDS
        event: dict[str, Any] = {"kind": "progress", "step": step, "steps": self._steps, "loss": loss}
        parts = [f"step {step}/{self._steps}", f"{100 * step // self._steps}%", f"loss {loss:.3f}"]
        if steps_per_second:
            event["tokens_per_second"] = steps_per_second * self._tokens
            event["eta_seconds"] = (self._steps - step) / steps_per_second
            parts += [f"{_short(event['tokens_per_second'])} tok/s", f"ETA {_clock(event['eta_seconds'])}"]
        self._report({**event, "text": " · ".join(parts)})

    def report_validation(self, step: int, metrics: dict[str, float]) -> None:
        """Say what validation found, in MLflow too."""
        if self._history is None:
            return
        self._publisher.flush()
        nats, byte = metrics["validation/nats_per_token"], metrics["validation/bits_per_byte"]
        error = metrics["validation/bits_per_byte_stderr"]
        bits = with_error(byte, error, digits=4)
        text = f"step {step}/{self._steps} · validation {bits} bits per byte · {nats:.4f} nats per token"
        self._report({"kind": "log", "text": text})


def _short(number: float) -> str:
    """``14234.0`` → ``14.2k``."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.1f}{unit}"
    return f"{number:.0f}"


def _clock(seconds: float) -> str:
    """``94`` → ``1:34``; ``3700`` → ``1:01:40``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
