"""A project whose stages take no time: fake parts and stage functions under the real names, store and fingerprints."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sumi_core.base.registry import Part
from sumi_core.data import SOURCES, TOKENIZERS
from sumi_core.experiments.sweeps import Cell
from sumi_core.lineage.project import Project
from sumi_core.stages import CELL_STAGES, STAGES
from sumi_core.stages.base import StageContext
from sumi_core.stages.computation import Computation
from sumi_core.stages.identity import experiment_fingerprints, refresh_source_identities

# The stages of a cell whose process knows nothing of tokens.
PLAIN_STAGES = tuple(name for name in STAGES if not STAGES[name].optional)
PLAIN_CELL_STAGES = tuple(name for name in CELL_STAGES if not STAGES[name].optional)
SEQUENCES = 20
# What the fake trainer and evaluator do another time; a test changes it to act as another machine would.
DRIFT: dict[str, float] = {}


class FakeSource(Part):
    """One local file."""

    @dataclass
    class Options(Part.Options):
        path: str = "corpus.txt"

    licence = "public domain"

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.skipped = Counter[str]()

    def identity(self) -> dict[str, Any]:
        return {"sha256": hashlib.sha256(Path(self.options.path).read_bytes()).hexdigest()}

    def documents(self) -> Iterator[Any]:
        return iter(())


class FakeTokenizer(Part):
    """Options alone."""

    learns = False

    @classmethod
    def expected_size(cls, options: Mapping[str, Any]) -> int:
        return 257


def _digest(*things: Any) -> str:
    return hashlib.sha256(json.dumps(things, sort_keys=True).encode()).hexdigest()


def build_corpus(context: StageContext) -> dict[str, Any]:
    text = Path(context.experiment.corpus.source["path"]).read_text()
    (context.folder / "train.parquet").write_text(text)
    return {"documents": len(text.splitlines()), "licence": FakeSource.licence, "skipped": {"empty": 0}}


def build_tokenizer(context: StageContext) -> dict[str, Any]:
    (context.folder / "tokenizer.json").write_text("{}")
    return {"vocab_size": 257}


def build_token_shards(context: StageContext) -> dict[str, Any]:
    corpus = (context.inputs["corpus"].folder / "train.parquet").read_text()
    (context.folder / "train-00000.tokens.npy").write_text(_digest(corpus))
    return {"train_tokens": len(corpus)}


def build_token_clusters(context: StageContext) -> dict[str, Any]:
    return {"clusters": 1}


def build_pretrained_denoiser(context: StageContext) -> dict[str, Any]:
    shards = (context.inputs["token_shards"].folder / "train-00000.tokens.npy").read_text()
    weights = _digest(shards, context.experiment.seed, context.experiment.runtime.threads, DRIFT.get("weights"))
    (context.folder / "weights.safetensors").write_text(weights)
    history = {"step": [4], "tokens": [4096], "name": ["train/loss"], "value": [0.5]}
    pd.DataFrame(history).to_parquet(context.folder / "history.parquet", index=False)
    return {
        "parameters": 1000,
        "tokens_seen": 4096,
        "flops": 6e6,
        "train_loss": int(weights[:6], 16) / 2**24,
        "seconds": 1.0 + DRIFT.get("seconds", 0.0),
        "tokens_per_second": 4096.0 / (1.0 + DRIFT.get("seconds", 0.0)),
        "device": "cpu",
    }


def build_exported_model(context: StageContext) -> dict[str, Any]:
    weights = (context.inputs["pretrained_denoiser"].folder / "weights.safetensors").read_text()
    (context.folder / "model.safetensors").write_text(weights)
    record = {
        "schema_version": 1,
        "key": context.key,
        "experiment": context.experiment.to_dict(),
        "fingerprints": dict(context.fingerprints),
        "weights_sha256": hashlib.sha256(weights.encode()).hexdigest(),
        "training": context.inputs["pretrained_denoiser"].summary,
        "stock": {"max_logit_difference": 0.0},
        "code": {"commit": "c0ffee", "dirty": False},
        "packages": {"torch": "1.0"},
    }
    (context.folder / "sumi.json").write_text(json.dumps(record))
    return {"max_logit_difference": 0.0}


def build_evaluation(context: StageContext) -> dict[str, Any]:
    weights = (context.inputs["exported_model"].folder / "model.safetensors").read_text()
    bits_per_byte = 2.0 + int(weights[:6], 16) / 2**24 + DRIFT.get("bits_per_byte", 0.0)
    measured = {
        "sequence": range(SEQUENCES),
        "document": range(SEQUENCES),
        "diffusion": [bits_per_byte * math.log(2) * 100 + (-1) ** (number // 2) for number in range(SEQUENCES)],
        "reconstruction": 0.0,
        "prior": 0.0,
        "bytes": 100,
        "text_digest": [str(number) for number in range(SEQUENCES)],
    }
    pd.DataFrame(measured).to_parquet(context.folder / "likelihood.parquet", index=False)
    return {
        "bits_per_byte": bits_per_byte,
        "bits_per_byte_stderr": 0.01,
        "exact": False,
        "curve": [0.1, float("nan")],
        "yardsticks": {"unigram": 4.5, "xz": 3.0},
        "sample_text": "in the beginning",
    }


def _run(name: str, context: StageContext) -> dict[str, Any]:
    """The stage function of this module, looked up when it is called: tests put others in its place."""
    summary: dict[str, Any] = globals()[f"build_{name}"](context)
    return summary


def fake_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the fakes in the place of the real parts."""
    monkeypatch.setitem(SOURCES._entries, "text", f"{__name__}:FakeSource")
    monkeypatch.setitem(TOKENIZERS._entries, "byte", f"{__name__}:FakeTokenizer")
    for name, stage in STAGES.items():
        monkeypatch.setitem(STAGES, name, dataclasses.replace(stage, run=functools.partial(_run, name)))
    DRIFT.clear()
    refresh_source_identities()


def fake_project(root: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with the sweep ``demo`` of four cells, nothing computed; the current directory becomes its root."""
    fake_stages(monkeypatch)
    for name in ("DAGSTER_HOME", "MLFLOW_TRACKING_URI", "SUMI_STORE", "SUMI_MLFLOW_UI"):
        monkeypatch.delenv(name, raising=False)
    (root / "experiments").mkdir(parents=True)
    (root / "experiments" / "demo.yaml").write_text(
        "description: four seeds\n"
        "corpus: {source: {name: text, path: corpus.txt}}\n"
        "runtime: {threads: 1}\n"
        "training: {steps: 4, warmup_steps: 0}\n"
        "axes: {seed: [0, 1, 2, 3]}\n"
    )
    (root / "corpus.txt").write_text("in the beginning\n")
    monkeypatch.chdir(root)
    monkeypatch.setenv("SUMI_PROJECT", str(root))
    return Project(root)


def compute(project: Project, key: str, *, overrides: Iterable[str] = (), **provenance: str) -> Cell:
    """Compute every stage of a cell."""
    cell = cell_of(project, key, overrides)
    refresh_source_identities()
    Computation(project.store, log=lambda _: None, provenance={"uncommitted": "", **provenance}).ensure_all(
        cell.experiment, cell.key
    )
    return cell


def record(project: Project, cell: Cell) -> str:
    """Put a computed cell into MLflow as the assets do; returns its run's id."""
    tracking = project.tracking
    run_id = tracking.open_cell(cell)
    for stage, own in experiment_fingerprints(cell.experiment).items():
        artifact = project.store.find(stage, own)
        assert artifact is not None
        tracking.record_stage(run_id, artifact)
    tracking.close(run_id)
    return run_id


def cell_of(project: Project, key: str, overrides: Iterable[str] = ()) -> Cell:
    """A cell by the name that its file gives it."""
    return next(cell for sweep in project.sweeps(overrides).values() for cell in sweep.cells if cell.plain == key)
