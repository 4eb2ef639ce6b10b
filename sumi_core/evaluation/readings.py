"""Every likelihood that one model has, on one scale: autoregressive, and of blocks of several lengths.

An autoregressive model is a diffusion model of blocks of one token (docs/mathematics.md 10), so the exact figure and
the bounds of all block lengths are code lengths of the same text, and their differences are paired: same sequences,
noise levels and noise. With exact modes all of them are equal. What a bound of one model lies above its exact figure is
what its denoising mode loses, the gap of the bound included, in the limit of fine steps; few steps cost more.

readings.parquet    a row for each reading
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from sumi_core.base.registry import Part
from sumi_core.base.statistics import Estimate
from sumi_core.base.text import markdown_table, with_error
from sumi_core.evaluation.contradictions import contradictions
from sumi_core.evaluation.likelihood import SequenceLikelihoods, evaluate_likelihood, paired_difference, summarize
from sumi_core.evaluation.measurement import Context, Findings, Measurement, Model, named_estimates
from sumi_core.layouts import LAYOUTS
from sumi_core.layouts.blocks import Blocks
from sumi_core.objectives.likelihood import Bound, ChainRule, Reading

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

DEFINITION = (
    "reading: one way to read a likelihood off a model: `autoregressive`, exact; `blocks_n`, the bound of blocks of n "
    "tokens, each given the clean text before it; `diffusion`, the bound of whole texts. With `_same`, `_path` or "
    "`_reference` in its name, that of two passes, the second one given what the first one predicted of the same text "
    "in noise, of one with more noise on top, or what another model did of the same one. A bound lies above its "
    "model's own bits per byte by an unknown amount: of two bounds the smaller one need not be of the better model."
)
DIFFERENCE = (
    "difference: of a reading from the first one, paired over sequences, noise levels and noise; ± is its standard "
    "error over documents."
)


class Readings(Measurement):
    """Bits per byte of each reading of a model, beside each other; empty for a model that has but one."""

    reads = ("sequences", "times_per_sequence", "time_epsilon", "seed")

    @dataclass
    class Options(Part.Options):
        block_lengths: Annotated[
            list[int], Field(description="blocks of these lengths are read too, whatever the model was trained with")
        ] = field(default_factory=list)
        autoregressive: Annotated[
            bool, Field(description="the causal stream beside the blocks is read too, whether it was trained or not")
        ] = False

        def check(self) -> None:
            """Raises ValueError for lengths below 1."""
            if any(length < 1 for length in self.block_lengths):
                raise ValueError("block_lengths holds lengths of 1 token or more")

    options: Options

    @classmethod
    def incompatibility(cls, own: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, str] | None:
        layout = others["layout"]["name"]
        if (own["block_lengths"] or own["autoregressive"]) and not LAYOUTS.get(layout).reads_causally:
            problem = f"the readings of blocks and of a causal stream are not there under layout '{layout}'; leave out "
            return "evaluation.measurements", f"{problem}block_lengths and autoregressive"
        if own["autoregressive"] and others["model"]["time_conditioning"] != "none":
            problem = "tells the denoiser a noise level, and the autoregressive reading has none; write none"
            return "model.time_conditioning", problem
        whole, read_out = others["shards"]["sequence_length"], others["layout"].get("read_out")
        for length in own["block_lengths"]:
            if whole % length:
                problem = f"readings: blocks of {length} tokens do not divide shards.sequence_length {whole}"
                return "evaluation.measurements", f"{problem}; choose divisors"
        hidden = 1 in own["block_lengths"] and read_out == "previous"
        if hidden and others["parameterisation"]["name"] == "posterior":
            problem = "readings: under read_out: previous a block of one token is predicted without a look at its noise"
            return "evaluation.measurements", f"{problem}, which a posterior depends on; leave 1 out of block_lengths"
        return None

    def run(self, model: Model, context: Context) -> Findings:
        """Read the chosen sequences in every way. Raises ValueError as ``evaluate_likelihood``."""
        readings = readings_of(model, self.options.block_lengths, autoregressive=self.options.autoregressive)
        if len(readings) < 2:
            return Findings()
        table, contradicting = read_all(readings, model, model.denoiser, context)
        plots: tuple[Path, ...] = ()
        if table["block_length"].nunique() > 1:
            from sumi_core.evaluation.plots import plot_readings

            plots = (plot_readings({"": table}, context.plot("readings.png"), "Bits per byte by block length"),)
        figures = reading_figures(table)
        return Findings(
            summary={"readings": figures},
            estimates=named_estimates("readings", figures),
            tables={"readings.parquet": table},
            plots=plots,
            texts=("## Readings", shown_readings(table), *contradicting),
            definitions=(DEFINITION, DIFFERENCE),
        )


def read_all(
    readings: Mapping[str, Reading], model: Model, denoiser: nn.Module, context: Context
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """``readings_table`` of some readings of a model on the chosen sequences, and ``contradictions`` in it. denoiser:
    the model's, or that of its initial weights."""
    measured = {
        name: evaluate_likelihood(
            reading,
            denoiser,
            context.text,
            context.config,
            batch_size=context.batch_size,
            device=model.device,
            progress=context.progress,
        )
        for name, reading in readings.items()
    }
    table = readings_table(measured, {name: _block_length(reading) for name, reading in readings.items()})
    return table, contradictions(model, measured)


def readings_of(model: Model, block_lengths: list[int], *, autoregressive: bool = False) -> dict[str, Reading]:
    """The readings of a model's objective, those of blocks of other lengths, and that of the causal stream if asked
    for: the exact one first, then the bounds by the length of their blocks."""
    objective = model.objective
    found: dict[str, Reading] = {}
    for name, reading in objective.readings.items():
        length = _block_length(reading)
        found[f"{name}_{length}" if isinstance(reading, Bound) and length else name] = reading
    if autoregressive:
        found.setdefault("autoregressive", ChainRule(objective.num_tokens, objective.eos_id))
    if isinstance(objective.layout, Blocks) and model.process is not None:
        for length in block_lengths:
            layout = objective.layout.of_length(length)
            found.setdefault(f"blocks_{length}", Bound(model.process, layout, objective.eos_id))
    return dict(sorted(found.items(), key=lambda item: (not item[1].exact, _block_length(item[1]))))


def _block_length(reading: Reading) -> int:
    """Tokens of a block; 0 for the exact reading and for whole texts."""
    layout = getattr(reading, "layout", None)
    return int(layout.options.length) if isinstance(layout, Blocks) else 0


def readings_table(measured: Mapping[str, SequenceLikelihoods], block_lengths: Mapping[str, int]) -> pd.DataFrame:
    """One row for each reading, in order. measured: of the same sequences.

    Columns: reading, block_length (0: none), exact, bits_per_byte, bits_per_byte_stderr (over documents),
    bits_per_byte_mc_stderr (over noise), difference and difference_stderr (from the first reading, paired over
    documents; 0 for itself)."""
    import pandas as pd

    first = next(iter(measured.values()))
    rows = []
    for name, own in measured.items():
        summary = summarize(own)
        difference = Estimate(0.0, 0.0) if own is first else paired_difference(own, first)
        rows.append(
            {
                "reading": name,
                "block_length": block_lengths[name],
                "exact": own.exact,
                "bits_per_byte": summary.bits_per_byte,
                "bits_per_byte_stderr": summary.bits_per_byte_stderr,
                "bits_per_byte_mc_stderr": summary.bits_per_byte_mc_stderr,
                "difference": difference.value,
                "difference_stderr": difference.stderr,
            }
        )
    return pd.DataFrame(rows)


def reading_figures(table: pd.DataFrame) -> dict[str, float]:
    """Bits per byte of each reading by its name, and ``<name>_stderr``, without NaN."""
    figures: dict[str, float] = {}
    for row in _records(table):
        figures |= {row["reading"]: row["bits_per_byte"], f"{row['reading']}_stderr": row["bits_per_byte_stderr"]}
    return {name: value for name, value in figures.items() if not math.isnan(value)}


def shown_readings(table: pd.DataFrame) -> str:
    """``readings_table`` as a report prints it, Markdown."""
    return markdown_table([_shown(row) for row in _records(table)])


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def shown_reading(row: Mapping[str, Any]) -> dict[str, str]:
    """A row of ``readings_table`` as reports print it, without the length of blocks."""
    difference = with_error(row["difference"], row["difference_stderr"])
    return {
        "reading": row["reading"],
        "bits per byte": with_error(row["bits_per_byte"], row["bits_per_byte_stderr"], "=" if row["exact"] else "≤"),
        "Monte-Carlo error": "–" if row["exact"] else with_error(row["bits_per_byte_mc_stderr"], digits=4),
        "difference": difference if row["difference"] < 0 else f"+{difference}" if row["difference"] else "–",
    }


def _shown(row: Mapping[str, Any]) -> dict[str, str]:
    shown = shown_reading(row)
    return {"reading": shown.pop("reading"), "block length": str(row["block_length"] or "–"), **shown}
