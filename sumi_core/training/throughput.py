"""How fast a training goes, and what share of the device's peak that is."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

# Dense peak FLOP/s by device name and precision, from NVIDIA's data sheets (SXM where there are several); fp32 is
# without TF32, which this project never switches on. The first name that the device's contains counts.
PEAK_FLOPS: dict[str, dict[str, float]] = {
    "H200": {"bf16": 989e12, "fp32": 67e12},
    "H100 PCIe": {"bf16": 756e12, "fp32": 51e12},
    "H100 NVL": {"bf16": 835e12, "fp32": 60e12},
    "H100": {"bf16": 989e12, "fp32": 67e12},
    "A100": {"bf16": 312e12, "fp32": 19.5e12},
    "L40S": {"bf16": 362e12, "fp32": 91.6e12},
    "RTX 4090": {"bf16": 165e12, "fp32": 82.6e12},
}


def peak_flops(device_name: str, precision: str) -> float | None:
    """Dense peak of one device, FLOP/s, or None where it is not known (any CPU)."""
    return next((peaks[precision] for name, peaks in PEAK_FLOPS.items() if name in device_name), None)


def device_name(device: torch.device) -> str:
    """The device's own name; ``cpu`` for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory held so far: allocated on a GPU, resident in this process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Stopwatch:
    """Time spent on steps, without validation and checkpoints, in all sessions of a training together.

    The first step of a session is left out (it compiles and allocates), so that ``steps_per_second`` is the rate of
    the work itself.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.steps = 0
        self._mark: float | None = None
        self._window = (0.0, 0)

    def step(self) -> None:
        """A step has ended."""
        now = time.perf_counter()
        if self._mark is not None:
            self.seconds += now - self._mark
            self.steps += 1
        self._mark = now

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the body's time out."""
        yield
        if self._mark is not None:
            self._mark = time.perf_counter()

    def recent_rate(self) -> float | None:
        """Steps per second since the last call, or None when there were none."""
        seconds, steps = self.seconds - self._window[0], self.steps - self._window[1]
        self._window = (self.seconds, self.steps)
        return steps / seconds if steps and seconds > 0 else None

    @property
    def steps_per_second(self) -> float | None:
        """Over everything measured."""
        return self.steps / self.seconds if self.steps and self.seconds > 0 else None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"seconds": self.seconds, "updates": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.seconds, self.steps = state["seconds"], state["updates"]
        self._window = (self.seconds, self.steps)
