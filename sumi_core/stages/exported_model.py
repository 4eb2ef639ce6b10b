"""Stage ``exported_model``: a model folder that stock transformers opens."""

from __future__ import annotations

import json
from typing import Any

from sumi_core.base.hashing import file_sha256
from sumi_core.stages.base import Check, Records, Stage, StageContext, Verdict
from sumi_core.stages.store import Artifact


def build(context: StageContext) -> dict[str, Any]:
    """Write the export; see ``sumi_core.export.writing``.

    README.md and what sumi.json says beside the model are no reason for another version: they hold times and the commit
    too, and no stage reads them."""
    from sumi_core.export.record import Made
    from sumi_core.export.writing import write_export

    inputs = context.inputs
    made = Made(
        key=context.key,
        tokenizer=inputs["tokenizer"].folder,
        shards=inputs["token_shards"].folder,
        weights=inputs["pretrained_denoiser"].folder / "weights.safetensors",
        tables=context.tables,
        training=inputs["pretrained_denoiser"].summary,
        licence=str(inputs["corpus"].summary["licence"]),
        fingerprints=context.fingerprints,
        inputs={name: artifact.fingerprint for name, artifact in inputs.items()},
        references={key: artifact.folder for key, artifact in context.references.items()},
    )
    return write_export(context.experiment, made, context.folder)


def _weights_are_as_recorded(artifact: Artifact) -> Verdict:
    from sumi_core.export.record import RECORD, WEIGHTS

    recorded = json.loads((artifact.folder / RECORD).read_text(encoding="utf-8"))["weights_sha256"]
    found = file_sha256(artifact.folder / WEIGHTS)
    return Verdict(found == recorded, metadata={"recorded": recorded, "found": found})


def _stock_transformers_opens_it(artifact: Artifact) -> Verdict:
    summary, difference = artifact.summary, artifact.summary["max_logit_difference"]
    if not summary["stock_loadable"] and summary["stock_class"] is None:  # by design: transformers has no such model
        return Verdict(True, f"not applicable: {summary['reason']}")
    figures = {} if difference is None else {"max_logit_difference": difference}
    return Verdict(bool(summary["stock_loadable"]), summary["reason"] or "", figures)


STAGE = Stage(
    "exported_model",
    "3",
    "Weights, tokenizer, process and lineage in one folder, opened again with stock code and compared.",
    build,
    "cell",
    doing="exporting, and comparing with stock transformers",
    opens=("objective",),
    inputs=("corpus", "tokenizer", "token_shards", "pretrained_denoiser"),
    takes_tables=True,
    checks=(
        Check(
            "weights_are_as_recorded",
            "The weights have the checksum that the export records.",
            _weights_are_as_recorded,
        ),
        Check(
            "stock_transformers_opens_it",
            "Stock transformers opens the folder, with no remote code, to the logits that were trained.",
            _stock_transformers_opens_it,
            warn=True,
        ),
    ),
    records=Records(files=("README.md", "sumi.json"), model=True),
    kinds=frozenset({"huggingface"}),
)
