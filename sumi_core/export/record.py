"""sumi.json: what an exported folder says of itself once it has left the store. Plain data, nothing that executes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sumi_core.base.errors import SumiError
from sumi_core.base.files import json_text, write_atomically
from sumi_core.base.provenance import git_state, packages
from sumi_core.experiments.build import Parts
from sumi_core.experiments.modes import modes_of
from sumi_core.experiments.schema import Experiment

SCHEMA_VERSION = 1
RECORD, WEIGHTS, CARD = "sumi.json", "model.safetensors", "README.md"
TABLES = "sumi_tables.safetensors"  # what the process knows of each token, where it is made from such knowledge
REFERENCES = "sumi_references"  # other cells' models that the objective asks: a folder for each option that names one
TOKENIZER = "sumi_tokenizer"  # the tokenizer as it was trained; the stock form beside it has the mask as a token


class ExportError(SumiError, ValueError):
    """An export that cannot be written, opened or trusted. One sentence: the file, what is wrong, what to do."""


@dataclass(frozen=True)
class Made:
    """What an export is made from.

    tokenizer, shards: their folders. weights: of the trained denoiser. tables: folders of the token tables that parts
    are built from. training: the summary of the training. licence: of the corpus. fingerprints: of the model's stages,
    its own included. inputs: the fingerprints of its direct inputs. references: folders of other cells' trained models
    that the objective asks, by the key of the option that names them."""

    key: str
    tokenizer: Path
    shards: Path
    weights: Path
    tables: Mapping[str, Path]
    training: Mapping[str, Any]
    licence: str
    fingerprints: Mapping[str, str]
    inputs: Mapping[str, str]
    references: Mapping[str, Path] = field(default_factory=dict)


def build_record(
    experiment: Experiment,
    made: Made,
    parts: Parts,
    *,
    stock: dict[str, Any],
    weights_sha256: str,
    sensitivity: dict[str, Any] | None,
) -> dict[str, Any]:
    """Everything needed to use the model and to walk back to what made it."""
    return {
        "schema_version": SCHEMA_VERSION,
        "key": made.key,
        "process": experiment.process,
        "schedule": experiment.schedule,
        "clock": experiment.clock,
        "parameterisation": experiment.parameterisation,
        "objective": experiment.objective,
        "sampler": experiment.evaluation.sampler,
        "modes": [mode.to_dict() for mode in modes_of(experiment)],
        "vocabulary": {
            "tokens": parts.num_tokens,
            "states": parts.num_states,
            "eos_id": parts.vocabulary.eos_id,
            "mask_id": parts.mask_id,
        },
        "stock": stock,
        "weights_sha256": weights_sha256,
        "own_token_sensitivity": sensitivity,
        "fingerprints": dict(made.fingerprints),
        "inputs": dict(made.inputs),
        "training": dict(made.training),
        "experiment": experiment.to_dict(),
        "code": git_state(),
        "packages": packages(),
    }


def write_record(record: dict[str, Any], folder: Path) -> None:
    """Write sumi.json."""
    write_atomically(folder / RECORD, json_text(record) + "\n")
