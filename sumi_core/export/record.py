"""sumi.json: what an exported folder says of itself once it has left the store. Plain data, nothing that executes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.files import write_atomically
from sumi_core.lineage.provenance import git_state, packages

if TYPE_CHECKING:
    from sumi_core.parts import Parts
    from sumi_core.stages import StageContext

SCHEMA_VERSION = 1
RECORD, WEIGHTS, CARD = "sumi.json", "model.safetensors", "README.md"
TABLES = "sumi_tables.safetensors"  # what the process knows of each token, where it is made from such knowledge
TOKENIZER = "sumi_tokenizer"  # the tokenizer as it was trained; the stock form beside it has the mask as a token


def build_record(context: StageContext, parts: Parts, *, stock: dict[str, Any], weights_sha256: str) -> dict[str, Any]:
    """Everything needed to use the model and to walk back to what made it.

    ``fingerprints``: the model's stages by name, its own included; ``inputs`` are those of its direct inputs.
    """
    from sumi_core.stages import experiment_fingerprints

    experiment = context.experiment
    fingerprints = experiment_fingerprints(experiment)
    del fingerprints["evaluation"]  # comes after the export
    return {
        "schema_version": SCHEMA_VERSION,
        "key": context.key,
        "process": experiment.process,
        "schedule": experiment.schedule,
        "clock": experiment.clock,
        "parameterisation": experiment.parameterisation,
        "objective": experiment.objective,
        "sampler": experiment.evaluation.sampler,
        "vocabulary": {
            "tokens": parts.num_tokens,
            "states": parts.num_states,
            "eos_id": parts.vocabulary.eos_id,
            "mask_id": parts.mask_id,
        },
        "stock": stock,
        "weights_sha256": weights_sha256,
        "fingerprints": fingerprints,
        "inputs": {name: artifact.fingerprint for name, artifact in context.inputs.items()},
        "training": context.inputs["pretrained_denoiser"].summary,
        "experiment": experiment.to_dict(),
        "code": git_state(),
        "packages": packages(),
    }


def write_record(record: dict[str, Any], folder: Path) -> None:
    """Write sumi.json."""
    write_atomically(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
