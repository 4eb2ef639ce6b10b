"""Owning a training process: its death with its parent, its signals, its number formats, its place among ranks."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from sumi_core.training.errors import TrainingInterrupted

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Rank:
    """This process among those of one training, as torchrun (or any launcher that speaks its variables) set it."""

    index: int
    world: int
    local: int = 0
    local_world: int = 1

    @classmethod
    def from_environment(cls) -> Rank:
        """RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE; a lone process where they are missing."""
        world = int(os.environ.get("WORLD_SIZE", 1))
        return cls(
            index=int(os.environ.get("RANK", 0)),
            world=world,
            local=int(os.environ.get("LOCAL_RANK", 0)),
            local_world=int(os.environ.get("LOCAL_WORLD_SIZE", world)),
        )

    @property
    def is_zero(self) -> bool:
        """Whether this process writes files and reports."""
        return self.index == 0


class StopSignal:
    """SIGTERM and SIGINT. While ``deferred`` the first is only noted, to be honoured after the step that is running;
    otherwise, and from the second on, they raise TrainingInterrupted where they arrive."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.deferred = False
        self._previous: dict[int, Any] = {}

    def install(self) -> None:
        """Take the signals over (again: Lightning puts its own handler on SIGTERM when a fit starts)."""
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread receives signals; a caller that trains in another keeps its own handling
        for signum in (signal.SIGTERM, signal.SIGINT):
            previous = signal.signal(signum, self._handle)
            self._previous.setdefault(signum, previous)

    def restore(self) -> None:
        """Give the signals back."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.deferred and self.received is None:
            self.received = signum
            return
        raise TrainingInterrupted(signum)


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignal]:
    """Handle SIGTERM and SIGINT for the body's duration."""
    stop = StopSignal()
    stop.install()
    try:
        yield stop
    finally:
        stop.restore()


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent dies, so that no orphan trains on (Linux; elsewhere nothing).

    The parent may have died before the request was made, hence the look at who the parent is.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_PDEATHSIG): {os.strerror(number)}")
    if os.getppid() != parent:
        raise TrainingInterrupted(signal.SIGTERM)


@contextlib.contextmanager
def process_group(rank: Rank, device: str) -> Iterator[None]:
    """The ranks' process group, where there are several. Made here and not by Lightning, because the ranks must agree
    on the checkpoint before a Trainer exists."""
    if rank.world == 1:
        yield
        return
    import torch

    if device == "cuda":
        torch.cuda.set_device(rank.local)
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def from_rank_zero(value: Any, rank: Rank) -> Any:
    """Rank 0's ``value`` on every rank."""
    if rank.world == 1:
        return value
    import torch

    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without Lightning's banners, tips and warnings about choices that are made on purpose here."""
    import logging

    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for module in (r"lightning\..*", r"torch\.optim\.lr_scheduler"):
            warnings.filterwarnings("ignore", module=module)
        warnings.filterwarnings("ignore", message="(?i).*deterministic.*")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
