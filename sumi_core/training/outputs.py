"""A finished training's folder, made from its last checkpoint and its history alone.

    weights.safetensors   the final weights (the EMA's, where it is on)
    history.parquet       step, tokens, name, value
    training.json         the summary; written last, so where it is, the rest is whole
    last.ckpt             Lightning's checkpoint of the last step, optimizer included

Made again after a kill, they are the same.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from sumi_core.base.files import json_text, remove_torn, replacing, write_atomically

WEIGHTS, HISTORY, SUMMARY, LAST = "weights.safetensors", "history.parquet", "training.json", "last.ckpt"
CHECKPOINTS, JOURNAL, SESSIONS = "checkpoints", "history.jsonl", "sessions.json"  # of an unfinished training
REQUEST, LOCK = "request.json", "trainer.lock"
_PREFIX = "denoiser."


def finished_summary(folder: Path) -> dict[str, Any] | None:
    """The summary of a finished training, or None while it is unfinished."""
    path = folder / SUMMARY
    if not path.exists():
        return None
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return summary


def write_weights(state: dict[str, Any], names: set[str], folder: Path) -> None:
    """Write the denoiser's weights of a checkpoint's ``state_dict``, each shared tensor once (``names``)."""
    from safetensors.torch import save_file

    weights = {key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)}
    with replacing(folder / WEIGHTS) as path:
        save_file({name: weights[name].contiguous() for name in sorted(names)}, path, metadata={"format": "pt"})
        path.chmod(0o644)  # safetensors writes for the owner alone


def write_summary(summary: dict[str, Any], folder: Path) -> None:
    """Declare the training finished."""
    write_atomically(folder / SUMMARY, json_text(summary) + "\n")


def tidy(folder: Path) -> None:
    """Keep the last checkpoint as ``last.ckpt`` and delete what only an unfinished training needs. May be repeated."""
    from sumi_core.training.checkpoints import checkpoints

    if not (folder / LAST).exists():
        os.replace(checkpoints(folder / CHECKPOINTS)[0].path, folder / LAST)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    for name in (JOURNAL, SESSIONS):
        (folder / name).unlink(missing_ok=True)
    remove_torn(folder)
