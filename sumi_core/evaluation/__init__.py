"""Measuring a finished model: likelihood bounds, sample quality, yardsticks, and the comparison of cells."""

from sumi_core.base.registry import Registry

MEASUREMENTS = Registry(
    "measurement",
    "sumi_core.evaluation.measurement:Measurement",
    {
        "audit": "sumi_core.evaluation.audit:Audit",
        "by_position": "sumi_core.evaluation.by_position:ByPosition",
        "calibration": "sumi_core.evaluation.calibration:Calibration",
        "chain_rule": "sumi_core.evaluation.chain_rule:ChainRuleOrders",
        "coding": "sumi_core.evaluation.coding:Coding",
        "corruption_picture": "sumi_core.evaluation.corruption_picture:CorruptionPicture",
        "drafts": "sumi_core.evaluation.drafts:Drafts",
        "film": "sumi_core.evaluation.film:DenoisingFilm",
        "frontier": "sumi_core.evaluation.frontier:Frontier",
        "gradient_noise": "sumi_core.evaluation.gradient_noise:GradientNoise",
        "initial_readings": "sumi_core.evaluation.initial_readings:InitialReadings",
        "likelihood": "sumi_core.evaluation.likelihood:TextLikelihood",
        "mauve": "sumi_core.evaluation.mauve:Mauve",
        "readings": "sumi_core.evaluation.readings:Readings",
        "samples": "sumi_core.evaluation.samples:Samples",
        "speed": "sumi_core.evaluation.speed:Speed",
        "tasks": "sumi_core.evaluation.tasks:Tasks",
        "yardsticks": "sumi_core.evaluation.yardsticks:Yardsticks",
    },
    key="measurement",
)

METRICS = Registry(
    "sample metric",
    "sumi_core.evaluation.metrics:SampleMetric",
    {
        "copy_rate": "sumi_core.evaluation.metrics:CopyRate",
        "distinct": "sumi_core.evaluation.metrics:Distinct",
        "longest_copy": "sumi_core.evaluation.train_metrics:LongestCopy",
        "real_words": "sumi_core.evaluation.train_metrics:RealWords",
        "repetition": "sumi_core.evaluation.metrics:Repetition",
        "unigram_entropy": "sumi_core.evaluation.metrics:UnigramEntropy",
    },
    key="metric",
)

QUALITIES = Registry(
    "quality",
    "sumi_core.evaluation.quality:Quality",
    {
        "own_cost": "sumi_core.evaluation.quality:OwnCost",
        "sample_figure": "sumi_core.evaluation.quality:SampleFigure",
        "task_accuracy": "sumi_core.evaluation.quality:TaskAccuracy",
    },
    key="quality",
)

SCORERS = Registry(
    "scorer",
    "sumi_core.evaluation.scorer:Scorer",
    {
        "cell": "sumi_core.evaluation.scorer:CellScorer",
        "folder": "sumi_core.evaluation.scorer:FolderScorer",
    },
    key="scorer",
)
