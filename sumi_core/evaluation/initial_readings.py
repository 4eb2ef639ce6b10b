"""The readings of a model before its training: what a conversion starts from.

A causal model that becomes one of blocks keeps its autoregressive reading at first, whatever the read-out: that is its
parent's. Under read-out ``previous`` blocks of one token have the same figure, in expectation over the noise
(docs/mathematics.md 10); what the bounds of longer blocks lie above it is what the training has to close.

initial_readings.parquet    a row for each reading
"""

from __future__ import annotations

from sumi_core.evaluation.measurement import Context, Findings, Model, named_estimates
from sumi_core.evaluation.readings import (
    DEFINITION,
    DIFFERENCE,
    Readings,
    read_all,
    reading_figures,
    readings_of,
    shown_readings,
)

_AT_STEP_0 = (
    "readings at step 0: of the weights that the training began with, on the same sequences, noise levels and noise as "
    "the readings of the trained model. `autoregressive` is the parent's own figure, where the weights are a causal "
    "model's."
)


class InitialReadings(Readings):
    """Bits per byte of each reading of the weights that a training began with, made again from the seed or read from
    the cell or folder that they come from."""

    def run(self, model: Model, context: Context) -> Findings:
        """Read the chosen sequences in every way. Raises ValueError as ``evaluate_likelihood``."""
        readings = readings_of(model, self.options.block_lengths, autoregressive=self.options.autoregressive)
        table, contradicting = read_all(readings, model, model.initial(), context)
        figures = reading_figures(table)
        return Findings(
            summary={"initial_readings": figures},
            estimates=named_estimates("initial_readings", figures),
            tables={"initial_readings.parquet": table},
            texts=("## Readings at step 0", shown_readings(table), *contradicting),
            definitions=(_AT_STEP_0, DEFINITION, DIFFERENCE),
        )
