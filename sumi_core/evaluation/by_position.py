"""How well a model predicts by position in a sequence: what each stretch of positions costs, and how often the most
probable token is right, also by noise level.

The cost is that of the measurement ``likelihood``, split over positions: its sequences, noise levels and noise, so that
the mean over all positions is its nats per token. The loss by noise level is the cross-entropy −log p(x_i | z) at a few
levels, at the positions that the bound depends on (under masks the masked ones), the own token included; so is the
accuracy. Feedback is not given at these levels.

by_position.parquet    a row for each stretch of positions, and of each for each level
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import Field

from sumi_core.base.numerics import no_grad
from sumi_core.base.registry import Part
from sumi_core.base.statistics import Estimate, ratio_over_units
from sumi_core.base.text import markdown_table, with_error
from sumi_core.data.batch import Batch
from sumi_core.data.noise import EVALUATION, Noise, address_generator
from sumi_core.evaluation.calibration import most_probable
from sumi_core.evaluation.likelihood import documents_of
from sumi_core.evaluation.measurement import Context, Findings, Measurement, Model, named_estimates
from sumi_core.models.interface import DenoiserInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sumi_core.evaluation.likelihood import Floats

_DEFINITIONS = (
    "nats by position: what the tokens at some positions of a sequence add to its likelihood or bound, per token. The "
    "share of a token in a bound is not its −log p. ± over documents.",
    "cross-entropy by position: mean −log p(x_i | z) of the tokens at some positions, at one noise level, where the "
    "bound depends on what is predicted; accuracy: how often the most probable token is the right one there. ± over "
    "documents.",
)


class ByPosition(Measurement):
    """Cost and accuracy by position, and at a few noise levels; the cost alone for a model without noise."""

    reads = ("sequences", "times_per_sequence", "time_epsilon", "seed")

    @dataclass
    class Options(Part.Options):
        stretches: Annotated[
            int, Field(ge=2, le=4096, description="stretches of positions of nearly equal length, at most one a token")
        ] = 16
        noise: Annotated[list[float], Field(description="shares of tokens that noise has hit, between 0 and 1")] = (
            field(default_factory=lambda: [0.1, 0.5, 0.9])
        )

        def check(self) -> None:
            """Raises ValueError for shares outside (0, 1) and for one that stands there twice."""
            if not all(0 < share < 1 for share in self.noise) or len(set(self.noise)) < len(self.noise):
                raise ValueError("noise holds different shares above 0 and below 1")

    options: Options

    def run(self, model: Model, context: Context) -> Findings:
        """Read the chosen sequences. Raises ValueError for a likelihood that is not finite."""
        import pandas as pd

        from sumi_core.evaluation.by_position_plot import plot_by_position

        document, length = documents_of(context.text, context.chosen), len(context.tokens[0])
        edges = np.linspace(0, length, min(self.options.stretches, length) + 1).round().astype(np.int64)
        exact = model.objective.reading.exact
        nats = self._nats(model, context)
        if not np.isfinite(nats).all():
            raise ValueError("the likelihood of a validation sequence is not finite; the model has diverged")
        every = np.ones_like(nats, dtype=bool)
        rows = [
            {"noise": math.nan, **_stretch(part, document, nats=(nats, every)), "exact": exact}
            for part in _parts(edges)
        ]
        for number, noise in enumerate(self.options.noise if model.process is not None else []):
            loss, right, counts = self._at(model, context, number)
            rows += [
                {
                    "noise": noise,
                    **_stretch(part, document, nats=(loss, counts), accuracy=(right, counts)),
                    "exact": False,
                }
                for part in _parts(edges)
            ]
        table = pd.DataFrame(rows)
        figures = _ends([row for row in rows if math.isnan(row["noise"])])
        title = "Exact nats by position" if exact else "Bound and predictions by position"
        return Findings(
            summary={"by_position": figures},
            estimates=named_estimates("by_position", figures),
            tables={"by_position.parquet": table},
            plots=(plot_by_position(table, context.plot("by_position.png"), title),),
            texts=("## By position", markdown_table(_shown(rows, self.options.noise if model.process else []))),
            definitions=_DEFINITIONS if model.process is not None else _DEFINITIONS[:1],
        )

    def _nats(self, model: Model, context: Context) -> Floats:
        """What each position of every sequence costs, the mean over its draws, ``[N, L]``: as ``evaluate_likelihood``
        draws them."""
        config, reading = context.config, model.objective.reading
        count, draws = len(context.tokens), 1 if reading.exact else config.times_per_sequence
        tokens = torch.from_numpy(np.stack(context.tokens))
        seed = EVALUATION + config.seed
        order = torch.from_numpy(address_generator(seed, "order").permutation(count))
        parts = []
        for start in range(0, count * draws, context.batch_size):
            row = torch.arange(start, min(start + context.batch_size, count * draws))
            sequence, draw = row // draws, row % draws
            batch = Batch(
                tokens=tokens[sequence].to(model.device),
                examples=row,
                positions=draw * count + order[sequence],
                global_size=count * draws,
                step=0,
                seed=seed,
            )
            with torch.inference_mode():
                parts.append(reading.by_position(model.denoiser, batch, config.time_epsilon).double().cpu().numpy())
            context.progress((start + len(row)) / draws, count, "sequences", "by position")
        found: Floats = np.concatenate(parts).reshape(count, draws, -1).mean(1)
        return found

    @no_grad
    def _at(self, model: Model, context: Context, number: int) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
        """Of every position at one level: −log p(x_i | z), whether the most probable token is right, and whether the
        bound depends on it, all ``[N, L]``."""
        process, parts = model.process, []
        assert process is not None
        share = torch.tensor([self.options.noise[number]], dtype=torch.float64, device=model.device)
        time = process.time_of_alpha(1 - share)
        tokens = torch.from_numpy(np.stack(context.tokens))
        for start in range(0, len(tokens), context.batch_size):
            x = tokens[start : start + context.batch_size].to(model.device)
            rows, seed = range(start, start + len(x)), EVALUATION + context.config.seed
            clock = Noise(seed, "by_position_clock", number, rows, model.device)
            level = process.clock.draw(clock, x.shape[1]).at(time.expand(len(x)))
            z = process.corrupt(x, level.level, Noise(seed, "by_position_corrupt", number, rows, model.device))
            denoiser = model.objective.layout.of(model.denoiser, x, model.objective.eos_id)
            logits = process.predict(denoiser, DenoiserInput(z, level.conditioning_level), level.level)
            loss = -process.belief(logits, z, level.level, x).log()
            guess = most_probable(process, logits, z, level.level)[1]
            counts = process.supervised(z, level.level).expand(z.shape) & (level.level > 0)
            parts.append((torch.where(counts, loss, 0.0), guess == x, counts))
        losses, right, counted = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
        return losses, right, counted


def _parts(edges: NDArray[np.int64]) -> list[slice]:
    return [slice(int(low), int(high)) for low, high in itertools.pairwise(edges)]


def _stretch(
    part: slice, document: NDArray[np.int64], **values: tuple[NDArray[Any], NDArray[np.bool_]]
) -> dict[str, Any]:
    """Means over the counted positions of a stretch with their errors over documents. values: ``[N, L]`` and which of
    them count."""
    row: dict[str, Any] = {"first": part.start, "last": part.stop - 1}
    for name in ("nats", "accuracy"):
        estimate, tokens = Estimate(math.nan, math.nan), 0
        if name in values:
            own, counts = (array[:, part] for array in values[name])
            has = counts.any(1)
            tokens = int(counts.sum())
            if tokens:
                sums = np.where(counts, own, 0.0).sum(1)[has]
                estimate = ratio_over_units(sums, counts.sum(1)[has], document[has])
            row["tokens"] = tokens
        row |= {name: estimate.value, f"{name}_stderr": estimate.stderr}
    return row


def _ends(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The first and the last stretch, which is what a table of cells has room for."""
    figures: dict[str, float] = {}
    for name, row in (("first", rows[0]), ("last", rows[-1])):
        figures |= {f"{name}_nats": row["nats"], f"{name}_nats_stderr": row["nats_stderr"]}
    return {name: value for name, value in figures.items() if not math.isnan(value)}


def _shown(rows: list[dict[str, Any]], noise: list[float]) -> list[dict[str, str]]:
    shown: dict[tuple[int, int], dict[str, str]] = {}
    for row in rows:
        place = (row["first"], row["last"])
        own = shown.setdefault(place, {"positions": f"{place[0]}–{place[1]}"})
        if math.isnan(row["noise"]):
            own["nats per token"] = with_error(row["nats"], row["nats_stderr"], "=" if row["exact"] else "≤")
        else:
            own[f"cross-entropy, {row['noise']:g} hit"] = with_error(row["nats"], row["nats_stderr"])
            own[f"accuracy, {row['noise']:g} hit"] = with_error(row["accuracy"], row["accuracy_stderr"])
    return list(shown.values())
