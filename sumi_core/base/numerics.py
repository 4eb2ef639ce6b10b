"""Where and how exactly numbers are computed: the device, and what decides the last bits."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from sumi_core.base.errors import SumiError

if TYPE_CHECKING:
    import torch

_P = ParamSpec("_P")
_R = TypeVar("_R")


class DeviceError(SumiError, RuntimeError):
    """A device that was asked for and is not there."""


def choose_device(wanted: str, index: int = 0) -> torch.device:
    """The device that ``runtime.device`` names; ``auto``: a GPU if there is one. index: which GPU.

    Raises DeviceError for a GPU that is not there.
    """
    import torch

    available = torch.cuda.is_available()
    if wanted == "cpu" or (wanted == "auto" and not available):
        return torch.device("cpu")
    if not available or index >= torch.cuda.device_count():
        raise DeviceError(
            f"runtime.device is {wanted} but this machine has no GPU number {index}; set runtime.device to cpu or auto"
        )
    return torch.device("cuda", index)


def has_gpu() -> bool:
    """Whether this machine seems to have a GPU: its driver is there. A look that needs no torch, for plans."""
    drivers = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # NVIDIA's, Windows' for Linux guests, AMD's
    return not sys.platform.startswith("linux") or any(map(os.path.exists, drivers))


@contextlib.contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """A fixed number of threads, deterministic kernels where they exist, no TF32: the last bits depend on all three."""
    import torch

    before, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    exact = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill: Any = torch.utils.deterministic  # filling fresh memory costs time and changes no result
    filled = fill.fill_uninitialized_memory
    cudnn = (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when CUDA starts
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = False, False
    torch.use_deterministic_algorithms(True, warn_only=True)
    fill.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = cudnn
        torch.use_deterministic_algorithms(exact, warn_only=warn_only)
        fill.fill_uninitialized_memory = filled


def no_grad(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """``torch.no_grad`` for what is defined where torch is not to be imported yet."""

    @functools.wraps(function)
    def without_gradient(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        import torch

        with torch.no_grad():
            return function(*args, **kwargs)

    return without_gradient
