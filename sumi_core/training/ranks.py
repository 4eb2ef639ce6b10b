"""This process's place among those of one training, and what the processes agree on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


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
