"""Training processes for tests: forked from a server that has imported everything once, killed and resumed at will."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from sumi_core.training.history import HistoryFile, Point, read_history
from sumi_core.training.outputs import CHECKPOINTS, HISTORY, JOURNAL, WEIGHTS

PATIENCE_SECONDS = 120  # to fail rather than hang; no test depends on how long anything takes

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "sumi_core.training.session",
        "sumi_core.trainer.run",
        "mlflow",
        "pyarrow.parquet",
        "safetensors.torch",
        "tests.training.processes",
    ]
)


def _work(request: Path, events: Path, environment: Mapping[str, str]) -> None:
    from sumi_core.trainer.run import main

    os.environ.update(environment)
    with events.open("a") as file:

        def report(event: dict[str, Any]) -> None:
            file.write(json.dumps(event) + "\n")
            file.flush()

        status = main(request, report)
    os._exit(status)


class TrainerProcess:
    """A trainer in a process of its own, as ``python -m sumi_core.training`` is."""

    def __init__(self, request: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder = request.parent
        self._events = self.folder.parent / f"{self.folder.name}.events.jsonl"
        self._process: BaseProcess = _CONTEXT.Process(target=_work, args=(request, self._events, environment or {}))
        self._process.start()

    def wait(self) -> int:
        """Its exit status; negative for a signal that killed it."""
        self._process.join(PATIENCE_SECONDS)
        assert self._process.exitcode is not None, "the trainer hangs"
        return self._process.exitcode

    def signal(self, signum: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signum)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for something to become true while it runs."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert self._process.is_alive(), f"the trainer ended early: {self.texts()}"
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.001)

    def events(self) -> list[dict[str, Any]]:
        """Everything that it and its predecessors in this folder reported."""
        text = self._events.read_text() if self._events.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def texts(self) -> list[str]:
        """The sentences among the events."""
        return [event["text"] for event in self.events() if "text" in event]


def recorded_step(folder: Path) -> int:
    """The last step in a running training's history."""
    points = HistoryFile(folder / JOURNAL).read()
    return points[-1].step if points else 0


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints that a folder holds."""
    return sorted(int(path.name.split("-")[1]) for path in (folder / CHECKPOINTS).glob("step-*.ckpt"))


def outcome(folder: Path) -> tuple[dict[str, bytes], list[Point]]:
    """What must not depend on interruptions: every weight's bytes, every point but throughput and memory."""
    from safetensors.torch import load_file

    weights = {name: tensor.numpy().tobytes() for name, tensor in load_file(folder / WEIGHTS).items()}
    points = [point for point in read_history(folder / HISTORY) if not point.name.startswith("system/")]
    return weights, points
