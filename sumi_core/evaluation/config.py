"""The section ``evaluation`` of an experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sumi_core.base.options import MAX_SEED, number, part, parts
from sumi_core.evaluation import MEASUREMENTS, METRICS
from sumi_core.sampling import SAMPLERS


@dataclass
class EvaluationConfig:
    """How a finished model is measured. Cells that share it are measured on the same sequences, times and noise."""

    measurements: Any = parts(
        MEASUREMENTS, "likelihood", "gradient_noise", "yardsticks", "samples", "corruption_picture"
    )  # in the order of the report; each reads some of the keys below
    sequences: int = number(512, low=2, high=10**7)  # validation sequences, spread over the split
    times_per_sequence: int = number(8, low=1, high=10**4)  # stratified noise levels drawn for each sequence
    time_epsilon: float = number(1e-3, above=0.0, high=0.4)  # the bound integrates t over [eps, 1 - eps]
    metrics: Any = parts(METRICS, "unigram_entropy", "distinct", "repetition", "copy_rate")
    sampler: Any = part(SAMPLERS, None, optional=True)  # null: the objective's own
    sampling_steps: list[int] = field(default_factory=lambda: [8, 32, 128])
    samples: int = number(16, low=1, high=10**5)  # texts drawn at each number of steps
    gradient_sequences: int = number(8, low=0, high=10**5)  # that the noise of the gradient is measured on; 0: not
    seed: int = number(1, low=0, high=MAX_SEED)
