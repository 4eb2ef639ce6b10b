"""Measuring a finished model: likelihood bounds, sample quality, yardsticks, and the comparison of cells."""

from sumi_core.base.registry import Registry

METRICS = Registry(
    "sample metric",
    "sumi_core.evaluation.metrics:SampleMetric",
    {
        "copy_rate": "sumi_core.evaluation.metrics:CopyRate",
        "distinct": "sumi_core.evaluation.metrics:Distinct",
        "repetition": "sumi_core.evaluation.metrics:Repetition",
        "unigram_entropy": "sumi_core.evaluation.metrics:UnigramEntropy",
    },
    key="metric",
)
