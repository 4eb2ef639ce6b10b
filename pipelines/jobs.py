"""The jobs of Dagster: the assets that each of them materializes."""

from __future__ import annotations

from collections.abc import Sequence

from sumi_core.stages import CELL_STAGES, DATA_STAGES, STAGES

OPTIONAL_STAGES = tuple(name for name in CELL_STAGES if STAGES[name].optional)  # some cells have partitions of them

JOBS: dict[str, Sequence[str]] = {
    "token_set": DATA_STAGES,
    "clusters": OPTIONAL_STAGES,
    "cell": tuple(name for name in CELL_STAGES if name not in OPTIONAL_STAGES),
    "report": ("ablation_report",),
}
DESCRIPTIONS = {
    "token_set": "Corpus, tokenizer and shards.",
    "clusters": "Which tokens are alike, for the cells whose noise knows of clusters.",
    "cell": "Train, export and evaluate one cell.",
    "report": "Compare the cells of a sweep.",
}
