"""The jobs of Dagster: the assets that each of them materializes."""

from __future__ import annotations

from collections.abc import Sequence

from sumi_core.stages import CELL_STAGES, DATA_STAGES

JOBS: dict[str, Sequence[str]] = {"token_set": DATA_STAGES, "cell": CELL_STAGES, "report": ("ablation_report",)}
DESCRIPTIONS = {
    "token_set": "Corpus, tokenizer and shards.",
    "cell": "Train, export and evaluate one cell.",
    "report": "Compare the cells of a sweep.",
}
