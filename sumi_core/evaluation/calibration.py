"""Whether a denoiser is as often right as it is sure, and whether its leave-one-out predictions leave one out.

Both are measured on validation text in noise, at a few levels. The confidence at a position is max_v p(x_i = v | z),
its own token included, of those positions that the bound depends on: under masks the masked ones. A calibrated denoiser
is right in a share c of the places where its confidence is c, whatever the process, since p(x_i | z) given z is then
the truth. Feedback is not given.

reliability.parquet    a row for each level and bin of confidence
calibration.parquet    a row for each level
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import Field

from sumi_core.base.numerics import no_grad
from sumi_core.base.registry import Part
from sumi_core.base.statistics import Estimate, jackknife_stderr, ratio_over_units
from sumi_core.base.text import markdown_table, with_error
from sumi_core.data.noise import EVALUATION, Noise
from sumi_core.evaluation.likelihood import documents_of
from sumi_core.evaluation.measurement import Context, Findings, Measurement, Model, named_estimates
from sumi_core.kernels.chunks import chunks_of
from sumi_core.models.interface import DenoiserFunction, DenoiserInput

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

    from sumi_core.corruption.clocks import ClockReading
    from sumi_core.corruption.process import ForwardProcess

_DEFINITIONS = (
    "calibration error: Σ_b n_b/n |accuracy_b − confidence_b| over bins of equally many positions (expected "
    "calibration error; equal-mass bins as in Nguyen and O'Connor, 1508.05154), of the most probable token under "
    "p(x_i | z). It is above 0 for a calibrated denoiser too, since accuracies are counted on finite text: `floor` is "
    "what it would be then. ± is the jackknife error over documents.",
    "overconfidence: mean confidence − accuracy; 0 when calibrated, above 0 when too sure. ± over documents.",
    "own-token sensitivity: total variation between leave-one-out predictions at a position before and after its own "
    "token in noise is replaced by another draw, a uniformly chosen token in noise of that level, the others "
    "unchanged; the mean over positions, where the draw differs. 0 for a prediction that leaves its own token out. ± "
    "over documents.",
)


class Calibration(Measurement):
    """Calibration of p(x_i | z) by noise level, and how much a leave-one-out prediction moves with its own token; empty
    for a model without noise."""

    reads = ("sequences", "seed")

    @dataclass
    class Options(Part.Options):
        noise: Annotated[
            list[float], Field(min_length=1, description="shares of tokens that noise has hit, between 0 and 1")
        ] = field(default_factory=lambda: [0.1, 0.5, 0.9])
        bins: Annotated[int, Field(ge=2, le=1000, description="bins of confidence, of equally many positions")] = 15
        probes: Annotated[
            int, Field(ge=0, le=64, description="positions of a sequence whose own token is replaced, one at a time")
        ] = 1

        def check(self) -> None:
            """Raises ValueError for shares outside (0, 1) and for one that stands there twice."""
            if not all(0 < share < 1 for share in self.noise) or len(set(self.noise)) < len(self.noise):
                raise ValueError("noise holds different shares above 0 and below 1")

    options: Options

    def run(self, model: Model, context: Context) -> Findings:
        """Predict the chosen sequences at every level."""
        if model.process is None:
            return Findings()
        import pandas as pd

        from sumi_core.evaluation.calibration_plot import plot_calibration

        options, document = self.options, documents_of(context.text, context.chosen)
        rows: list[dict[str, Any]] = []
        curves: list[pd.DataFrame] = []
        for number, noise in enumerate(options.noise):
            seen = self.seen(model, context, number)
            curve = reliability(seen.confidence, seen.correct, seen.sequence, document, options.bins)
            curve.insert(0, "noise", noise)
            curves.append(curve)
            rows.append({"noise": noise, **figures_of(seen, document, options.bins)})
        table, curve = pd.DataFrame(rows), pd.concat(curves, ignore_index=True)
        figures = {name: value for row in rows for name, value in _named(row).items()}
        return Findings(
            summary={"calibration": figures},
            estimates=named_estimates("calibration", figures),
            tables={"reliability.parquet": curve, "calibration.parquet": table},
            plots=(plot_calibration(curve, table, context.plot("calibration.png"), "Calibration of p(x_i | z)"),),
            texts=("## Calibration", markdown_table([_shown(row) for row in rows])),
            definitions=_DEFINITIONS,
        )

    @no_grad
    def seen(self, model: Model, context: Context, number: int) -> Seen:
        """What the denoiser makes of every chosen sequence at one level. number: of the level in ``options.noise``."""
        process, options, parts = model.process, self.options, []
        assert process is not None
        share = torch.tensor([options.noise[number]], dtype=torch.float64, device=model.device)
        time = process.time_of_alpha(1 - share)
        probes = options.probes if process.noise_writes_tokens else 0
        tokens = torch.from_numpy(np.stack(context.tokens))
        for start in range(0, len(tokens), context.batch_size):
            x = tokens[start : start + context.batch_size].to(model.device)
            rows = range(start, start + len(x))

            def noise(stream: str, rows: range = rows) -> Noise:
                seed = EVALUATION + context.config.seed
                return Noise(seed, f"calibration_{stream}", number, rows, model.device)

            level = process.clock.draw(noise("clock"), x.shape[1]).at(time.expand(len(x)))
            z = process.corrupt(x, level.level, noise("corrupt"))
            denoiser = model.objective.layout.of(model.denoiser, x, model.objective.eos_id)
            logits = process.predict(denoiser, DenoiserInput(z, level.conditioning_level), level.level)
            confidence, guess = most_probable(process, logits, z, level.level)
            counts = process.supervised(z, level.level).expand(z.shape) & (level.level > 0)
            moved = own_token_sensitivity(process, denoiser, logits, z, level, noise("probe"), probes)
            parts.append((counts, confidence, guess == x, moved))
            context.progress(
                start + len(x), len(tokens), "sequences", f"calibration at {options.noise[number]:g} noise"
            )
        counted, sure, right, variation = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
        sequence = np.broadcast_to(np.arange(len(counted))[:, None], counted.shape)
        return Seen(sure[counted], right[counted], sequence[counted], variation)


@dataclass(frozen=True)
class Seen:
    """Of n positions of N sequences: confidence ``[n]``, whether it was right ``[n]`` and in which sequence ``[n]``.
    moved: ``[N, K]`` total variation of each probe, NaN where its draw was the token that stood there."""

    confidence: NDArray[np.float64]
    correct: NDArray[np.bool_]
    sequence: NDArray[np.int64]
    moved: NDArray[np.float64]


def most_probable(process: ForwardProcess, logits: Tensor, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """max_v p_θ(x_i = v | z) and that v at every position, both ``[B, L]``, a chunk of rows at a time.

    logits: of leave-one-out predictions, ``[B, L, S]``. t: broadcastable to ``[B, L]``."""
    rows, places, levels = logits.reshape(-1, logits.shape[-1]), z.reshape(-1), t.expand(z.shape).reshape(-1)
    found = []
    for own in chunks_of(rows, None):
        posterior = process.log_posterior(rows[own][None], places[own][None], levels[own][None])[0]
        found.append(posterior.max(-1))
    best, guess = (torch.cat(part).reshape(z.shape) for part in zip(*found, strict=True))
    return best.exp(), guess


def own_token_sensitivity(
    process: ForwardProcess,
    denoiser: DenoiserFunction,
    logits: Tensor,
    z: Tensor,
    level: ClockReading,
    noise: Noise,
    probes: int,
) -> Tensor:
    """Total variation between the leave-one-out prediction at a position of z ``[B, L]`` and that at the same position
    when another draw of the noise stands there, ``[B, probes]`` float64; NaN where the draw is no other. Positions are
    drawn for each row; each takes a call of the denoiser.

    logits: of the predictions at z, ``[B, L, S]``."""
    width, found = z.shape[1], []
    levels = level.level.expand(z.shape)
    for _ in range(probes):
        place = noise.integers(width, 1)
        token = noise.integers(process.num_tokens, width)  # a row of them: noise is drawn for whole rows
        drawn = process.corrupt(token, levels, noise)
        changed = z.scatter(1, place, drawn.gather(1, place))
        moved = process.predict(denoiser, DenoiserInput(changed, level.conditioning_level), level.level)
        at = place[..., None].expand(-1, 1, logits.shape[-1])
        before, after = (process.denoiser(own.gather(1, at).double())[:, 0] for own in (logits, moved))
        variation = (before - after).abs().sum(-1) / 2
        differs = (changed != z).any(-1) & (levels.gather(1, place)[:, 0] > 0)
        found.append(torch.where(differs, variation, math.nan))
    return torch.stack(found, 1) if found else logits.new_zeros(len(z), 0, dtype=torch.float64)


def reliability(
    confidence: NDArray[np.float64],
    correct: NDArray[np.bool_],
    sequence: NDArray[np.int64],
    document: NDArray[np.int64],
    bins: int,
) -> pd.DataFrame:
    """The reliability curve: one row for each of ``bins`` bins of equally many positions, by rising confidence (fewer
    where there are fewer positions).

    Columns: confidence and accuracy (means), accuracy_stderr and gap_stderr (of accuracy and of accuracy − confidence,
    over documents; NaN for one document), positions."""
    import pandas as pd

    rows = []
    order = np.argsort(confidence, kind="stable")
    for own in np.array_split(order, min(bins, len(order))) if len(order) else []:
        unit, ones = document[sequence[own]], np.ones(len(own))
        accuracy = ratio_over_units(correct[own], ones, unit)
        gap = ratio_over_units(correct[own] - confidence[own], ones, unit)
        rows.append((confidence[own].mean(), *accuracy, gap.stderr, len(own)))
    return pd.DataFrame(rows, columns=["confidence", "accuracy", "accuracy_stderr", "gap_stderr", "positions"])


def figures_of(seen: Seen, document: NDArray[np.int64], bins: int) -> dict[str, float]:
    """``accuracy``, ``overconfidence``, ``calibration_error`` and ``own_token_sensitivity`` with their standard errors
    over documents, and ``calibration_error_floor``: the expected calibration error if every bin's gap were noise of its
    standard error. NaN where there is nothing to count."""
    names = ("accuracy", "overconfidence", "calibration_error", "own_token_sensitivity")
    found = dict.fromkeys((*names, *(f"{name}_stderr" for name in names), "calibration_error_floor"), math.nan)

    def put(name: str, estimate: Estimate) -> None:
        found[name], found[f"{name}_stderr"] = estimate

    if len(seen.confidence):
        unit, ones = document[seen.sequence], np.ones(len(seen.confidence))
        put("accuracy", ratio_over_units(seen.correct, ones, unit))
        put("overconfidence", ratio_over_units(seen.confidence - seen.correct, ones, unit))
        put("calibration_error", _calibration_error(seen, unit, bins))
        curve = reliability(seen.confidence, seen.correct, seen.sequence, document, bins)
        share = curve["positions"] / curve["positions"].sum()
        found["calibration_error_floor"] = math.sqrt(2 / math.pi) * float(
            (share * curve["gap_stderr"]).sum(skipna=False)
        )
    counted = np.isfinite(seen.moved)
    if counted.any():
        has = counted.any(1)
        sums = np.where(counted, seen.moved, 0.0).sum(1)[has]
        put("own_token_sensitivity", ratio_over_units(sums, counted.sum(1)[has], document[has]))
    return found


def _calibration_error(seen: Seen, unit: NDArray[np.int64], bins: int) -> Estimate:
    """Over bins that stay as they are while one document after the other is left out."""
    _, member = np.unique(unit, return_inverse=True)
    count = len(seen.confidence)
    bin_ = np.empty(count, dtype=np.int64)
    for number, own in enumerate(np.array_split(np.argsort(seen.confidence, kind="stable"), min(bins, count))):
        bin_[own] = number
    gaps = np.zeros((int(member.max()) + 1, int(bin_.max()) + 1))
    np.add.at(gaps, (member, bin_), seen.correct - seen.confidence)
    sizes, total = np.bincount(member), gaps.sum(0)
    left = count - sizes
    if (left <= 0).any():
        return Estimate(float(np.abs(total).sum() / count), math.nan)
    return Estimate(float(np.abs(total).sum() / count), jackknife_stderr(np.abs(total - gaps).sum(1) / left))


def _named(row: dict[str, float]) -> dict[str, float]:
    """The figures of a level as those of an evaluation: ``accuracy_at_0.5``, ``accuracy_at_0.5_stderr`` …; those that
    are NaN left out."""
    found = {}
    for key, value in row.items():
        if key != "noise" and not math.isnan(value):
            name = key.removesuffix("_stderr")
            found[f"{name}_at_{row['noise']:g}{key[len(name) :]}"] = value
    return found


def _shown(row: dict[str, Any]) -> dict[str, str]:
    def figure(name: str) -> str:
        return "–" if math.isnan(row[name]) else with_error(row[name], row[f"{name}_stderr"])

    return {
        "noise": f"{row['noise']:g}",
        "accuracy": figure("accuracy"),
        "calibration error": figure("calibration_error"),
        "floor": with_error(row["calibration_error_floor"]),
        "overconfidence": figure("overconfidence"),
        "own-token sensitivity": figure("own_token_sensitivity"),
    }
