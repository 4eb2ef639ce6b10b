"""The section ``evaluation`` of an experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from sumi_core.base.options import MAX_SEED, part, parts
from sumi_core.evaluation import MEASUREMENTS, METRICS
from sumi_core.sampling import SAMPLERS


@dataclass
class EvaluationConfig:
    """How a finished model is measured. Cells that share it are measured on the same sequences, times and noise."""

    measurements: Annotated[
        Any, Field(description="what is measured, in the order of the report; each reads some of the keys below")
    ] = parts(MEASUREMENTS, "likelihood", "gradient_noise", "yardsticks", "samples", "film", "corruption_picture")
    sequences: Annotated[int, Field(ge=2, le=10**7, description="validation sequences, spread over the split")] = 512
    times_per_sequence: Annotated[
        int, Field(ge=1, le=10**4, description="stratified noise levels drawn for each sequence")
    ] = 8
    time_epsilon: Annotated[float, Field(gt=0.0, le=0.4, description="the bound integrates t over [ε, 1 − ε]")] = 1e-3
    metrics: Annotated[
        Any, Field(description="computed on generated texts, and on validation text of the same size")
    ] = parts(METRICS, "unigram_entropy", "distinct", "repetition", "copy_rate")
    sampler: Annotated[Any, Field(description="how texts are drawn; null: the objective's own sampler")] = part(
        SAMPLERS, None, optional=True
    )
    sampling_steps: Annotated[
        list[int], Field(description="numbers of steps, each of which draws its own set of texts")
    ] = field(default_factory=lambda: [8, 32, 128])
    samples: Annotated[int, Field(ge=1, le=10**5, description="texts drawn at each number of steps")] = 16
    gradient_sequences: Annotated[
        int,
        Field(ge=0, le=10**5, description="sequences that the noise of the gradient is measured on; 0: not measured"),
    ] = 8
    seed: Annotated[
        int, Field(ge=0, le=MAX_SEED, description="of the evaluation's noise and samples; not of the training")
    ] = 1
