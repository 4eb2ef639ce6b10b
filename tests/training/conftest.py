"""Real inputs in small: documents of a simple language, byte tokens, shards, and requests over them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sumi_core.experiments.resolve import resolve
from sumi_core.stages import DATA_STAGES
from sumi_core.stages.computation import Computation
from sumi_core.stages.identity import stage_recipe
from sumi_core.stages.store import Artifact, Store
from sumi_core.trainer.request import Request, TrackingAddress
from tests.training.processes import TrainerProcess

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


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The data stages of ``EXPERIMENT``: about 300 sequences of made-up sentences."""
    folder = tmp_path_factory.mktemp("inputs")
    generator = np.random.default_rng(0)
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "two", "birds"]
    lines = [json.dumps({"text": " ".join(generator.choice(words, size=60))}) for _ in range(60)]
    (folder / "documents.jsonl").write_text("\n".join(lines) + "\n")
    source = {"name": "jsonl", "paths": [str(folder / "documents.jsonl")]}
    EXPERIMENT["corpus"] = {"source": source, "validation_fraction": 0.2}
    computation = Computation(Store(folder / "store"), log=lambda text: None)
    experiment = resolve(EXPERIMENT, "tests")
    return {name: computation.ensure(experiment, "tests", name)[0] for name in DATA_STAGES}


def write_request(
    folder: Path, inputs: dict[str, Artifact], tracking: TrackingAddress | None, changes: dict[str, Any]
) -> Path:
    """A request for a new folder; ``changes`` are the experiment's fields, ``section__field: value``."""
    experiment = copy.deepcopy(EXPERIMENT)
    for key, value in changes.items():
        section, _, field = key.partition("__")
        experiment[section] = {**experiment[section], field: value} if field else value
    folder.mkdir()
    folders = {name: str(artifact.folder) for name, artifact in inputs.items()}
    recipe = stage_recipe(resolve(experiment, "tests"), "pretrained_denoiser")
    Request(folder.name, experiment, recipe, folders, {}, str(folder), tracking).write(folder / "request.json")
    return folder / "request.json"


@pytest.fixture
def make_request(tmp_path: Path, inputs: dict[str, Artifact]) -> Callable[..., Path]:
    """Write a request for ``tmp_path/<name>``."""

    def make(name: str, tracking: TrackingAddress | None = None, **changes: Any) -> Path:
        return write_request(tmp_path / name, inputs, tracking, changes)

    return make


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, inputs: dict[str, Artifact]) -> Callable[..., Path]:
    """The folder of a training that nothing disturbed, computed once for each set of changes."""
    made: dict[str, Path] = {}

    def folder(**changes: Any) -> Path:
        key = json.dumps(changes, sort_keys=True)
        if key not in made:
            request = write_request(tmp_path_factory.mktemp("undisturbed") / "cell", inputs, None, changes)
            trainer = TrainerProcess(request)
            assert trainer.wait() == 0, trainer.texts()
            made[key] = request.parent
        return made[key]

    return folder


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An initialised MLflow database of this test session."""
    from sumi_core.lineage.tracking import Tracking

    folder = tmp_path_factory.mktemp("mlflow")
    tracking = Tracking(f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts", folder / "locks")
    tracking.initialise()
    return tracking.uri
