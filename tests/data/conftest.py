"""A project of its own for each test, and the data stages run in it as the pipeline would."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sumi_core.experiments.resolve import resolve
from sumi_core.experiments.schema import Experiment
from sumi_core.stages.base import StageContext
from sumi_core.stages.corpus import build as build_corpus
from sumi_core.stages.store import Artifact
from sumi_core.stages.token_shards import build as build_token_shards
from sumi_core.stages.tokenizer import build as build_tokenizer

# Every width of UTF-8, combining marks, joined emoji, line ends, and what special tokens look like.
TEXTS = [
    "In the beginning God created the heavens and the earth.",
    "吾輩は猫である。名前はまだ無い。",
    "naïve façade – “quoted” … é",
    "👩‍👩‍👧‍👦 🙂🏳️‍🌈 emoji, joined and not",
    "def f(x):\r\n\treturn x  # done\n\n\n",
    "  leading and trailing blanks   ",
    "spelled out: <|endoftext|> <s> </s> <0x41> ▁",
    "\x00\x01\x7f\u2028 control characters\ufeff",
]
BUILDERS: dict[str, Callable[[StageContext], dict[str, Any]]] = {
    "corpus": build_corpus,
    "tokenizer": build_tokenizer,
    "token_shards": build_token_shards,
}


class Laboratory:
    """The data stages of one experiment. ``run`` computes a stage into a folder named after it."""

    def __init__(self, root: Path, config: dict[str, Any]) -> None:
        self.root = root
        self.experiment: Experiment = resolve(config, "test.yaml")
        self.artifacts: dict[str, Artifact] = {}
        self.log: list[str] = []
        self.progress: list[tuple[float, float]] = []

    def context(self, stage: str) -> StageContext:
        """What ``stage`` gets; its folder exists, with whatever an earlier run left there."""
        folder = self.root / stage
        folder.mkdir(exist_ok=True)
        return StageContext(
            self.experiment,
            "cell",
            folder,
            self.artifacts,
            log=self.log.append,
            progress=lambda done, total, unit, note: self.progress.append((done, total)),
        )

    def run(self, *stages: str) -> dict[str, Any]:
        """Run stages; returns the summary of the last."""
        for stage in stages:
            context = self.context(stage)
            summary = BUILDERS[stage](context)
            json.dumps(summary, allow_nan=False)  # what the manifest needs
            self.artifacts[stage] = Artifact(stage, "0" * 16, context.folder, {"summary": summary})
        return summary


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project that paths in configs start at."""
    root = tmp_path / "project"
    (root / "experiments").mkdir(parents=True)
    monkeypatch.setenv("SUMI_PROJECT", str(root))
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def laboratory(project: Path) -> Callable[..., Laboratory]:
    """Make a Laboratory over given texts (default: TEXTS in many variations), a third of them for validation."""
    made = 0

    def make(texts: list[str] | None = None, **config: Any) -> Laboratory:
        nonlocal made
        made += 1
        if texts is None:
            texts = [f"{text} {number}" for number in range(12) for text in TEXTS]
        file = project / f"texts-{made}.jsonl"
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        root = project / f"laboratory-{made}"
        root.mkdir()
        defaults: dict[str, Any] = {
            "corpus": {"source": {"name": "jsonl", "paths": [file.name]}, "validation_fraction": 0.3},
            "shards": {"sequence_length": 16, "shard_documents": 8},
            "runtime": {"data_workers": 1},
        }
        return Laboratory(root, defaults | config)

    return make
