"""Checkpoint files: whole or absent, checked before use, the last two kept.

    <folder>/checkpoints/step-00000200-6f1c0a9d2b7e4f55.ckpt

A file is written beside its place, flushed to disk and renamed, so a kill leaves the earlier ones. Its name ends with
the first digits of its content's SHA-256, so a reader can tell a damaged file without a second file beside it. The one
before the newest is kept for the day a disk returns other bytes than it was given.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from sumi_core.base.files import remove_torn, replacing
from sumi_core.base.hashing import file_sha256

KEPT = 2
_DIGITS = 16
_NAME = re.compile(rf"step-(\d+)-([0-9a-f]{{{_DIGITS}}})\.ckpt")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file, the number of steps made when it was written, and what its SHA-256 begins with."""

    path: Path
    step: int
    digest: str

    @property
    def whole(self) -> bool:
        """Whether the file holds what was written. Reads all of it."""
        return file_sha256(self.path).startswith(self.digest)


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's way to disk: atomic and durable writes, and no code executed on reading."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write ``checkpoint`` beside ``path`` (``…/step-00000200.ckpt``) under that name with its digest, all of it or
        nothing, and delete all but the newest ``KEPT``."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            replacing(path, lambda written: f"{path.stem}-{file_sha256(written)[:_DIGITS]}.ckpt") as temporary,
            temporary.open("wb") as file,  # given a path, torch would write its name into the file
        ):
            torch.save(checkpoint, file)
        for old in checkpoints(path.parent)[KEPT:]:
            old.path.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: Any = True) -> dict[str, Any]:
        """Tensors and plain data; anything else in the file is an error."""
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return loaded

    def remove_checkpoint(self, path: Any) -> None:
        """Delete the file."""
        Path(path).unlink(missing_ok=True)


def checkpoint_path(folder: Path, step: int) -> Path:
    """The path to save a step under; ``AtomicCheckpointIO`` adds the digest to its name."""
    return folder / f"step-{step:08d}.ckpt"


def checkpoints(folder: Path) -> list[Checkpoint]:
    """Every checkpoint of a folder, newest first."""
    found = [(path, _NAME.fullmatch(path.name)) for path in folder.glob("step-*.ckpt")]
    return sorted((Checkpoint(path, int(m[1]), m[2]) for path, m in found if m), key=lambda c: c.step, reverse=True)


def newest_whole(folder: Path, log: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that reads back as it was written. Damaged newer ones are named in the log and deleted;
    so are leftovers of killed writes."""
    remove_torn(folder)
    for checkpoint in checkpoints(folder):
        if checkpoint.whole:
            return checkpoint
        log(f"checkpoint {checkpoint.path.name} is damaged; falling back to the one before it")
        checkpoint.path.unlink()
    return None
