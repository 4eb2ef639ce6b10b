"""Stage ``corpus``: documents, split into train and validation."""

from __future__ import annotations

from typing import Any

from sumi_core.data import SOURCES
from sumi_core.stages.base import Check, Records, Stage, StageContext, Verdict
from sumi_core.stages.store import Artifact


def build(context: StageContext) -> dict[str, Any]:
    """Write both splits and a page about them; see ``sumi_core.data.corpus``."""
    from sumi_core.data.corpus import write_corpus

    config = context.experiment.corpus
    return write_corpus(SOURCES.from_config(config.source), config, context.folder, context.log, context.progress)


def _has_its_share(artifact: Artifact) -> Verdict:
    sizes = {split: int(artifact.summary[f"{split}_bytes"]) for split in ("train", "validation")}
    asked = float(artifact.manifest["experiment"]["corpus"]["validation_fraction"])
    share = sizes["validation"] / sum(sizes.values())
    return Verdict(
        asked / 2 <= share <= asked * 2,
        "Documents are split as they come: where they are few or uneven, bytes may be shared otherwise.",
        {**sizes, "share": share, "asked": asked},
    )


STAGE = Stage(
    "corpus",
    "1",
    "Documents with ids, exact duplicates removed, split into train and validation by a hash of each document.",
    build,
    "token_set",
    doing="reading documents",
    reads=("corpus",),
    reads_source=True,
    checks=(
        Check(
            "validation_has_its_share",
            "Validation has between half and twice the share of bytes that was asked for.",
            _has_its_share,
            warn=True,
        ),
    ),
    records=Records(dataset=True),
    group="data",
    kinds=frozenset({"parquet"}),
)
