"""Real inputs in small: a corpus of the repository's own kind, byte tokens, shards, and requests over them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sumi_core.training.request import Request, TrackingAddress

EXPERIMENT: dict[str, Any] = {
    "tokenizer": {"name": "byte"},
    "shards": {"sequence_length": 32},
    "model": {"hidden_size": 32, "intermediate_size": 48, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1},
    "training": {
        "steps": 60,
        "batch_size": 8,
        "accumulation": 2,
        "learning_rate": 3e-3,
        "warmup_steps": 5,
        "ema_decay": 0.9,
        "validate_every": 16,
        "validation_sequences": 10,
    },
    "runtime": {"device": "cpu", "threads": 1, "log_every": 3, "checkpoint_every": 7},
    "seed": 3,
}


@pytest.fixture
def make_request(tmp_path: Path) -> Callable[..., Path]:
    """Write a request for ``tmp_path/<name>``; ``changes`` are dotted keys of the experiment."""

    def make(name: str, tracking: TrackingAddress | None = None, **changes: Any) -> Path:
        experiment = copy.deepcopy(EXPERIMENT)
        for key, value in changes.items():
            section, _, field = key.partition("__")
            experiment[section][field] = value
        folder = tmp_path / name
        folder.mkdir()
        request = Request(name, experiment, "/x", "/y", str(folder), tracking)
        request.write(folder / "request.json")
        return folder / "request.json"

    return make


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An initialised MLflow database of this test session."""
    from sumi_core.lineage.tracking import Tracking

    folder = tmp_path_factory.mktemp("mlflow")
    tracking = Tracking(f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts", folder / "locks")
    tracking.initialise()
    return tracking.uri
