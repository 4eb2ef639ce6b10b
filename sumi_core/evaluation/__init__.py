"""Measuring a finished model: likelihood bounds, sample quality, yardsticks, and the comparison of cells."""

from typing import TYPE_CHECKING

from sumi_core.registry import Registry

if TYPE_CHECKING:
    from sumi_core.evaluation.metrics import SampleMetric

METRICS: "Registry[SampleMetric]" = Registry(
    "sample metric",
    {
        "copy_rate": "sumi_core.evaluation.metrics:CopyRate",
        "distinct": "sumi_core.evaluation.metrics:Distinct",
        "repetition": "sumi_core.evaluation.metrics:Repetition",
        "unigram_entropy": "sumi_core.evaluation.metrics:UnigramEntropy",
    },
)
