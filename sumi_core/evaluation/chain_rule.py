"""What a diffusion model says of a text that it writes one position at a time, beside its bound.

The three are code lengths of the same text under three distributions that one network defines: that of the reverse
process in the limit of fine steps, of which the bound is an upper bound, and those of writing left to right and the
surest position first. None bounds another. For absorbing noise and a network that is given no level, the bound is the
mean of the chain rule over all orders (Hoogeboom et al., 2110.02037), so an order below it is one that suits the text;
there random orders are read too, which must come out where the bound does.

chain_rule.parquet    a row for each reading
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.base.text import markdown_table
from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.evaluation.contradictions import bound_is_mean_of_orders, contradictions
from sumi_core.evaluation.likelihood import evaluate_likelihood
from sumi_core.evaluation.measurement import Context, Findings, Measurement, Model, named_estimates
from sumi_core.evaluation.readings import readings_table, shown_reading
from sumi_core.layouts.layout import Whole
from sumi_core.objectives.orders import InOrder, Order

if TYPE_CHECKING:
    from sumi_core.objectives.likelihood import Reading

_DEFINITIONS = (
    "chain rule: nats of the text written one position at a time, what is not written yet being pure noise: "
    "`left_to_right`, or `confidence_ordered`, at each step where the most probable token is most probable. Exact (=) "
    "where that noise is masks alone; else an upper bound (≤), the mean over canvases of noise. They are likelihoods "
    "of these ways of writing, the bound is of the reverse process: none bounds another. `random_order`, read under "
    "masks alone where the network is given no level: the mean over orders that are drawn for each text, of which the "
    "bound is another estimate. difference: from the bound, paired over texts; ± is its standard error over documents.",
)


class ChainRuleOrders(Measurement):
    """The chain rule of a diffusion model left to right and by confidence, beside its bound, and in random orders where
    the bound is their mean; empty for a model without noise, and under blocks, whose order is part of the model."""

    version = "2"
    reads = ("sequences", "times_per_sequence", "time_epsilon", "seed")

    @dataclass
    class Options(Part.Options):
        """texts: sequences that are read, of those that are evaluated; each takes a network call a token and order."""

        texts: Annotated[int, Field(ge=2, le=10**6, description="validation sequences that are read")] = 64

    options: Options

    def run(self, model: Model, context: Context) -> Findings:
        """Read the texts in every way. Raises ValueError as ``evaluate_likelihood``."""
        objective, process, given = model.objective, model.process, context.config
        if process is None or not isinstance(objective.layout, Whole):
            return Findings()
        told = bool(getattr(objective.options, "token_levels", 0.0))
        readings: dict[str, Reading] = {"bound": objective.reading}
        orders: list[Order] = ["left_to_right", "confidence_ordered"]
        orders += ["random_order"] if bound_is_mean_of_orders(model) else []
        readings |= {order: InOrder(process, order, told=told) for order in orders}
        config = EvaluationConfig(
            sequences=min(self.options.texts, given.sequences),
            times_per_sequence=given.times_per_sequence,
            time_epsilon=given.time_epsilon,
            seed=given.seed,
        )
        measured = {
            name: evaluate_likelihood(
                reading,
                model.denoiser,
                context.text,
                config,
                batch_size=context.batch_size,
                device=model.device,
                progress=context.progress,
            )
            for name, reading in readings.items()
        }
        table = readings_table(measured, dict.fromkeys(readings, 0)).drop(columns="block_length")
        rows = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
        figures: dict[str, float] = {}
        for row in rows:
            figures |= {row["reading"]: row["bits_per_byte"], f"{row['reading']}_stderr": row["bits_per_byte_stderr"]}
        figures = {name: value for name, value in figures.items() if not math.isnan(value)}
        return Findings(
            summary={"chain_rule": figures},
            estimates=named_estimates("chain_rule", figures),
            tables={"chain_rule.parquet": table},
            texts=(
                "## Written one position at a time",
                markdown_table([shown_reading(row) for row in rows]),
                *contradictions(model, measured),
            ),
            definitions=_DEFINITIONS,
        )
