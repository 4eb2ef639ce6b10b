"""A finished training in small: a tokenizer's folder and a denoiser's weights, as the stages before the export leave
them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sumi_core.data import TOKENIZERS
from sumi_core.data.shard_building import token_dtype
from sumi_core.data.shards import INDEX
from sumi_core.data.tokenizers.tokenizer import Tokenizer
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.experiments.build import build_parts
from sumi_core.experiments.resolve import resolve
from sumi_core.experiments.schema import Experiment
from sumi_core.export.weights import write_weights
from sumi_core.models.denoiser import Denoiser, build_denoiser
from sumi_core.stages.base import StageContext
from sumi_core.stages.identity import stage_fingerprint, stages_of
from sumi_core.stages.store import Artifact
from tests.models.stock import lively

TEXT = "In the beginning was the word, and the word was with café and 日本語. " * 20
TRAINING = {
    "parameters": 1,
    "steps": 60,
    "tokens_seen": 12_345,
    "validation_bits_per_byte": 2.5,
    "validation_bits_per_byte_stderr": 0.125,
    "mfu": None,
    "device": "cpu",
}
MODELS: dict[str, dict[str, Any]] = {
    "uniform": {"process": "uniform"},
    "uniform_posterior": {"process": "uniform", "parameterisation": "posterior"},
    "absorbing": {"process": "absorbing", "schedule": "cosine", "model": {"tie_embeddings": True}},
    "autoregressive": {"process": None, "objective": "autoregressive", "model": {"attention": "causal"}},
    "tied_autoregressive": {
        "process": None,
        "objective": "autoregressive",
        "model": {"attention": "causal", "tie_embeddings": True},
    },
    "blocks": {
        "process": "uniform",
        "model": {"attention": "causal"},
        "layout": {"name": "blocks", "length": 4},
    },
    "masked_blocks": {
        "process": "absorbing",
        "model": {"attention": "causal", "tie_embeddings": True},
        "layout": {"name": "blocks", "length": 6, "read_out": "previous"},
    },
    "two_modes": {
        "process": "uniform",
        "objective": "joint",
        "model": {"attention": "causal"},
        "layout": {"name": "blocks", "length": 4, "also": [2]},
    },
    "masked_two_modes": {
        "process": "absorbing",
        "objective": {"name": "joint", "diffusion_weight": 0},
        "model": {"attention": "causal"},
        "layout": {"name": "blocks", "length": 6, "read_out": "previous"},
    },
    "residual": {
        "process": "uniform",
        "model": {"feedback": {"name": "residual_context", "rho": 0.75}},
        "objective": {"name": "nelbo", "feedback": "same"},
    },
    "masked_residual": {
        "process": "absorbing",
        "model": {"feedback": "residual_context"},
        "objective": {"name": "nelbo", "feedback": "path"},
    },
    "self_conditioned": {
        "process": "uniform",
        "model": {"feedback": "self_conditioning"},
        "objective": {"name": "nelbo", "feedback": "same"},
    },
    "conditioned": {"process": "uniform", "model": {"time_conditioning": "adaln"}},
    "qk_norm": {"process": "uniform", "model": {"qk_norm": True}},
}


def experiment(kind: str, corpus: Path, tokenizer: Any = "byte") -> Experiment:
    """One of MODELS over a text file."""
    size = {"hidden_size": 32, "intermediate_size": 48, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2}
    data = MODELS[kind]
    return resolve(
        {
            **data,
            "corpus": {"source": {"name": "text", "paths": [str(corpus)], "licence": "CC0-1.0"}},
            "tokenizer": tokenizer,
            "shards": {"sequence_length": 24},
            "model": {**size, **data.get("model", {})},
            "seed": 5,
        },
        "test.yaml",
    )


def shards_of(tokenizer: Tokenizer, folder: Path) -> Path:
    """The folder of a validation split: three documents of the text, each begun elsewhere."""
    folder.mkdir()
    documents = [[*ids, tokenizer.eos_id] for ids in tokenizer.encode_batch([TEXT[start:] for start in (0, 7, 20)])]
    stream = np.concatenate(documents).astype(token_dtype(tokenizer.vocab_size))
    np.save(folder / "validation-00000.tokens.npy", stream)
    np.save(folder / "validation-00000.starts.npy", np.cumsum([0, *map(len, documents[:-1])]))
    validation = {"shards": {"validation-00000": {"tokens": len(stream)}}}
    (folder / INDEX).write_text(json.dumps({"sequence_length": 24, "splits": {"validation": validation}}))
    return folder


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., tuple[StageContext, Denoiser]]:
    """Make the context of an export of one of MODELS, and the denoiser that was trained."""

    def make(kind: str, tokenizer: Any = "byte") -> tuple[StageContext, Denoiser]:
        corpus = tmp_path / "text.txt"
        corpus.write_text(TEXT, encoding="utf-8")
        config = experiment(kind, corpus, tokenizer)
        tokens = tmp_path / "tokenizer"
        tokens.mkdir()
        options = {key: value for key, value in config.tokenizer.items() if key != "name"}
        built = TOKENIZERS.build(config.tokenizer["name"], options)
        built.train(iter([TEXT]))
        built.save(tokens)
        (tokens / "manifest.json").write_text("{}")
        parts = build_parts(config, Vocabulary(built.vocab_size, built.eos_id))
        denoiser = lively(build_denoiser(config.model, parts.num_states))
        weights = tmp_path / "pretrained_denoiser"
        weights.mkdir()
        write_weights(denoiser, weights / "weights.safetensors")
        inputs = {
            "corpus": Artifact("corpus", "c" * 16, tmp_path, {"summary": {"licence": "CC0-1.0"}}),
            "token_shards": Artifact("token_shards", "s" * 16, shards_of(built, tmp_path / "shards"), {"summary": {}}),
            "tokenizer": Artifact("tokenizer", "t" * 16, tokens, {"summary": {}}),
            "pretrained_denoiser": Artifact("pretrained_denoiser", "p" * 16, weights, {"summary": TRAINING}),
        }
        folder = tmp_path / "exported_model"
        folder.mkdir()
        own = [stage for stage in stages_of(config) if stage != "evaluation"]
        fingerprints = {stage: stage_fingerprint(config, stage) for stage in own}
        return StageContext(config, f"cell.{kind}", folder, inputs, fingerprints=fingerprints), denoiser

    return make


def card_front(folder: Path) -> tuple[dict[str, Any], str]:
    _, front, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), body
