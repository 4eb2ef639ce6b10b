"""How well a model predicts validation text: nats per sequence, and bits per byte with their standard errors.

**Bits per byte** = total nats / ln 2 / UTF-8 bytes of the same sequences. The nats of end-of-text tokens are counted;
their bytes are 0. Nats of a diffusion model are the tight variational bound (diffusion + reconstruction + prior term),
an upper bound estimated by Monte Carlo; those of an autoregressive model are exact.

Every cell that shares an ``evaluation`` section is measured on the same sequences, noise levels and noise, which makes
differences between cells paired:

* draw ``k`` of sequence ``i`` (of N, with K draws each) takes its corruption noise from step 0, example i·K + k;
* its level is t = ε + (1 − 2ε)·frac(u + k/K + π(i)/(N·K)), u from (seed, "time", 0): K evenly spaced levels for each
  sequence (systematic sampling) and an even grid of N·K levels over all of them. The permutation π, from (seed,
  "order", 0), keeps level and place in the split apart: in their order, each range of levels would be measured on
  neighbouring texts alone, and what they are like would look like what the level does.

Two errors are reported. ``bits_per_byte_stderr``: had other validation documents of this kind been drawn. Documents are
the independent units, since sequences cut from one document resemble each other; it contains the Monte-Carlo noise,
since every sequence carries its own. ``bits_per_byte_mc_stderr``: had other noise levels and noise
been drawn for these same sequences; 0 for an exact likelihood.

likelihood.parquet      nats of every (sequence, draw): what paired comparisons are made from
loss_by_level.parquet   the bound by noise level (diffusion only)
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from sumi_core.base.progress import Progress, unwatched
from sumi_core.base.statistics import Estimate, ratio_over_units
from sumi_core.base.text import markdown_table, with_error
from sumi_core.data.batch import Batch
from sumi_core.data.noise import EVALUATION, address_generator
from sumi_core.data.sequences import Sequences, spread_indices
from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.evaluation.definitions import BITS_PER_BYTE, DOCUMENT_ERROR, TERM_NOTES
from sumi_core.evaluation.measurement import Context, Findings, Measurement, Model, named_estimates
from sumi_core.evaluation.samples import sequence_bytes
from sumi_core.models.interface import DenoiserFunction
from sumi_core.objectives.likelihood import Reading

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

Floats: TypeAlias = "NDArray[np.float64]"
TERMS = ("diffusion", "reconstruction", "prior")
_NOISE = ("time", "level", "alpha", "nats_per_alpha")


class TextLikelihood(Measurement):
    """Bits per byte of the chosen sequences with both errors, and the bound by noise level."""

    reads = ("sequences", "times_per_sequence", "time_epsilon", "seed")

    def run(self, model: Model, context: Context) -> Findings:
        """Measure every chosen sequence. Raises ValueError as ``evaluate_likelihood`` and ``summarize``."""
        measured = evaluate_likelihood(
            model.objective.reading,
            model.denoiser,
            context.text,
            context.config,
            batch_size=context.batch_size,
            device=model.device,
            progress=context.progress,
        )
        texts = [sequence_bytes(ids, model.tokenizer) for ids in context.tokens]
        found = likelihood_findings(measured, [hashlib.blake2b(text, digest_size=8).hexdigest() for text in texts])
        curve = found.tables.get("loss_by_level.parquet")
        if curve is None:
            return found
        from sumi_core.evaluation.plots import plot_loss_by_level

        plot = plot_loss_by_level({"": curve}, context.plot("loss_by_level.png"), "Bound by noise level")
        return dataclasses.replace(found, plots=(plot,))


@dataclass(frozen=True)
class SequenceLikelihoods:
    """Nats of N sequences with K draws each.

    diffusion, reconstruction, prior: ``[N, K]`` nats of the whole sequence; each draw estimates all of it. time,
    level, alpha, nats_per_alpha: ``[N, K]`` as in ``objectives.objective.Likelihood``; NaN for an exact likelihood,
    which has no noise levels (then K = 1). bytes, tokens: ``[N]``. document: ``[N]``, a number for the document in
    which the sequence begins. epsilon: levels were drawn on [ε, 1 − ε].
    """

    time: Floats
    level: Floats
    alpha: Floats
    nats_per_alpha: Floats
    diffusion: Floats
    reconstruction: Floats
    prior: Floats
    bytes: NDArray[np.int64]
    tokens: NDArray[np.int64]
    document: NDArray[np.int64]
    epsilon: float
    exact: bool

    @property
    def total(self) -> Floats:
        """Nats of every draw, ``[N, K]``."""
        return self.diffusion + self.reconstruction + self.prior

    @property
    def nats(self) -> Floats:
        """Nats of every sequence, the mean over its draws, ``[N]``."""
        return self.total.mean(axis=1)

    def frame(self, text_digests: Sequence[str]) -> pd.DataFrame:
        """One row for each (sequence, draw), as in likelihood.parquet; ``text_digests`` name the ``[N]`` texts."""
        import pandas as pd

        count, draws = self.level.shape
        repeated: dict[str, Any] = {
            "sequence": np.arange(count),
            "text_digest": np.asarray(text_digests, dtype=object),
            "bytes": self.bytes,
            "tokens": self.tokens,
            "document": self.document,
        }
        columns = {name: np.repeat(values, draws) for name, values in repeated.items()}
        columns["draw"] = np.tile(np.arange(draws), count)
        columns |= {name: getattr(self, name).reshape(-1) for name in (*_NOISE, *TERMS)}
        return pd.DataFrame(columns)


def evaluate_likelihood(
    reading: Reading,
    denoiser: DenoiserFunction,
    sequences: Sequences,
    config: EvaluationConfig,
    *,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    progress: Progress = unwatched,
) -> SequenceLikelihoods:
    """Read ``config.sequences`` sequences, evenly spread over the split (all, if there are fewer).

    The denoiser must be in eval mode.

    The figures do not depend on ``batch_size`` beyond floating-point rounding. Raises ValueError when there are no
    sequences, or a likelihood is not finite (naming the sequence).
    """
    count = min(config.sequences, len(sequences))
    if count < 2:
        raise ValueError(
            f"the validation split holds {len(sequences)} sequence(s), too few to evaluate; "
            "raise corpus.validation_fraction or lower shards.sequence_length"
        )
    draws = 1 if reading.exact else config.times_per_sequence
    rows = count * draws
    chosen = spread_indices(count, len(sequences))
    tokens = torch.from_numpy(np.stack([np.asarray(sequences[i], dtype=np.int64) for i in chosen]))
    seed = EVALUATION + config.seed
    order = torch.from_numpy(address_generator(seed, "order").permutation(count))
    found = {name: np.zeros(rows) for name in (*_NOISE, *TERMS)}
    for start in range(0, rows, batch_size):
        row = torch.arange(start, min(start + batch_size, rows))
        sequence, draw = row // draws, row % draws
        batch = Batch(
            tokens=tokens[sequence].to(device),
            examples=row,
            positions=draw * count + order[sequence],
            global_size=rows,
            step=0,
            seed=seed,
        )
        with torch.inference_mode():
            measured = reading(denoiser, batch, config.time_epsilon)
        for name, values in found.items():
            values[start : start + len(row)] = getattr(measured, name).double().cpu().numpy()
        progress(min(start + batch_size, rows) / draws, count, "sequences", "likelihood")
    if reading.exact:
        for name in _NOISE:
            found[name][:] = math.nan
    shaped = {name: values.reshape(count, draws) for name, values in found.items()}
    result = SequenceLikelihoods(
        **shaped,
        bytes=np.array([sequences.bytes(i) for i in chosen], dtype=np.int64),
        tokens=np.full(count, tokens.shape[1], dtype=np.int64),
        document=documents_of(sequences, chosen),
        epsilon=config.time_epsilon,
        exact=reading.exact,
    )
    broken = np.flatnonzero(~np.isfinite(result.nats))
    if broken.size:
        raise ValueError(
            f"the likelihood of {broken.size} of {count} validation sequences is not finite, first that of number "
            f"{broken[0]}; the model has diverged or its process cannot reach that text"
        )
    return result


def documents_of(sequences: Sequences, chosen: Sequence[int]) -> NDArray[np.int64]:
    """A number for the document in which each chosen sequence (rising) begins, ``[N]``."""
    wanted, found, seen = set(chosen), [], 0
    for index in range(chosen[-1] + 1):
        starts = sequences.document_starts(index)
        if index in wanted:
            found.append(seen + int(starts.size > 0 and starts[0] == 0))
        seen += len(starts)
    return np.array(found, dtype=np.int64)


def paired_difference(own: SequenceLikelihoods, other: SequenceLikelihoods) -> Estimate:
    """Bits per byte of ``own`` minus those of ``other``, both of the same sequences, with the error over documents."""
    return ratio_over_units((own.nats - other.nats) / math.log(2), own.bytes, own.document)


@dataclass(frozen=True)
class LikelihoodSummary:
    """The figures of a model on its sequences. Bits per byte, except nats_per_token; see the module for both errors."""

    exact: bool  # False: every figure is an upper bound
    bits_per_byte: float
    bits_per_byte_stderr: float
    bits_per_byte_mc_stderr: float  # NaN with one draw per sequence: it cannot be estimated then
    nats_per_token: float
    nats_per_token_stderr: float
    diffusion_bits_per_byte: float  # the three add up to bits_per_byte; exact: all of it is in diffusion
    reconstruction_bits_per_byte: float
    prior_bits_per_byte: float
    sequences: int
    documents: int  # in which the sequences begin: the independent units of the errors
    tokens: int
    bytes: int

    def metrics(self) -> dict[str, Any]:
        """Plain data; what is NaN is left out."""
        data = dataclasses.asdict(self)
        return {k: v for k, v in data.items() if not (isinstance(v, float) and math.isnan(v))}


def summarize(measured: SequenceLikelihoods) -> LikelihoodSummary:
    """Aggregate sequences as ratios of sums, Σ nats / Σ bytes. Raises ValueError when the sequences hold no text."""
    if not measured.bytes.sum():
        raise ValueError("the evaluated validation sequences hold no text; raise evaluation.sequences")
    bits = ratio_over_units(measured.nats / math.log(2), measured.bytes, measured.document)
    per_token = ratio_over_units(measured.nats, measured.tokens, measured.document)
    scale = 1.0 / math.log(2) / float(measured.bytes.sum())
    split = {f"{name}_bits_per_byte": float(getattr(measured, name).mean(axis=1).sum() * scale) for name in TERMS}
    return LikelihoodSummary(
        exact=measured.exact,
        bits_per_byte=bits.value,
        bits_per_byte_stderr=bits.stderr,
        bits_per_byte_mc_stderr=0.0 if measured.exact else monte_carlo_stderr(measured.total, measured.time) * scale,
        nats_per_token=per_token.value,
        nats_per_token_stderr=per_token.stderr,
        **split,
        sequences=len(measured.bytes),
        documents=len(np.unique(measured.document)),
        tokens=int(measured.tokens.sum()),
        bytes=int(measured.bytes.sum()),
    )


def monte_carlo_stderr(values: Floats, time: Floats) -> float:
    """Standard error of Σ_i mean_k ``values[i, k]`` over the draws alone, the sequences held fixed.

    values, time: ``[N, K]``. The times form an even grid over all sequences, so the mean curve of the values over time
    is integrated almost without error and is removed first (means of groups of about 32 neighbouring times). What is
    left varies within each sequence, more at some times than at others: its times are paired with their neighbours
    (collapsed strata; Wolter, Introduction to Variance Estimation, 2007, section 2.5), which errs on the large side
    when sequences differ in the shape of their curve. NaN for one draw per sequence.
    """
    count, draws = values.shape
    if draws < 2:
        return math.nan
    flat, residual = values.reshape(-1), np.empty(values.size)
    for group in np.array_split(np.argsort(time, axis=None, kind="stable"), max(1, round(values.size / 32))):
        freedom = len(group) / (len(group) - 1)
        residual[group] = (flat[group] - flat[group].mean()) * math.sqrt(freedom)
    by_time = np.take_along_axis(residual.reshape(count, draws), np.argsort(time, axis=1, kind="stable"), axis=1)
    variance = 0.0
    for stratum in np.array_split(by_time, draws // 2, axis=1):
        size = stratum.shape[1]
        variance += float(stratum.var(axis=1, ddof=1).sum()) * size
    return math.sqrt(variance) / draws


def _mean_inside(values: Floats, inside: NDArray[np.bool_], document: NDArray[np.int64]) -> Estimate:
    """Mean of the values ``[N, K]`` of chosen draws, its error over documents. Draws without a value (no clock ran, so
    nothing was lost) are left out; NaN where none has one."""
    counted = inside & np.isfinite(values)
    has = counted.any(axis=1)
    if not has.any():
        return Estimate(math.nan, math.nan)
    return ratio_over_units(np.where(counted, values, 0.0).sum(axis=1)[has], counted.sum(axis=1)[has], document[has])


def loss_by_level(measured: SequenceLikelihoods, bins: int = 20) -> pd.DataFrame:
    """Where in t the bound's diffusion term comes from: one row for each of ``bins`` equal intervals of [ε, 1 − ε].

    Columns: low, high (levels t); bits_per_byte (this interval's part of the diffusion term; the column adds up to
    it); per_t: the integrand, nats per token per unit of t; noise: mean share of tokens hit, 1 − α; per_alpha: nats
    per token per unit of α, which compares models across schedules (where positions have clocks of their own: of those
    whose clock runs, and low and high are of the mean level); per_alpha_square: the mean square of a draw's nats per
    token per unit of α, what ``corruption.fitted`` makes a schedule from; per_t_stderr, per_alpha_stderr: over
    documents; draws.
    Intervals without a draw are left out. Empty for an exact likelihood, which has no noise levels.
    """
    import pandas as pd

    columns = [
        "low",
        "high",
        "bits_per_byte",
        "per_t",
        "per_t_stderr",
        "noise",
        "per_alpha",
        "per_alpha_stderr",
        "per_alpha_square",
        "draws",
    ]
    if measured.exact:
        return pd.DataFrame(columns=columns, dtype=float)
    width = 1.0 - 2.0 * measured.epsilon
    edges = measured.epsilon + width * np.linspace(0.0, 1.0, bins + 1)
    member = np.clip(np.searchsorted(edges, measured.level, side="right") - 1, 0, bins - 1)
    per_t = measured.diffusion / width / measured.tokens[:, None]
    scale = 1.0 / measured.level.shape[1] / math.log(2) / float(measured.bytes.sum())
    rows = []
    for index in range(bins):
        inside = member == index
        hit = inside.any(axis=1)
        if not hit.any():
            continue
        draws = inside.sum(axis=1)
        shown = (per_t, measured.nats_per_alpha, measured.nats_per_alpha**2)
        of_t, of_alpha, square = (_mean_inside(values, inside, measured.document) for values in shown)
        part = float(measured.diffusion[inside].sum() * scale)
        noise = float((1.0 - measured.alpha[inside]).mean())
        rows.append((edges[index], edges[index + 1], part, *of_t, noise, *of_alpha, square.value, int(draws.sum())))
    return pd.DataFrame(rows, columns=columns)


def likelihood_findings(measured: SequenceLikelihoods, text_digests: Sequence[str]) -> Findings:
    """Findings of measured sequences; ``text_digests`` name the ``[N]`` texts."""
    summary, curve = summarize(measured), loss_by_level(measured)
    figures = summary.metrics()
    kind = "the exact likelihood" if summary.exact else "an upper bound (≤): the model itself can only be better"
    return Findings(
        summary={**figures, "time_epsilon": measured.epsilon},
        estimates=named_estimates("likelihood", figures),
        tables={
            "likelihood.parquet": measured.frame(text_digests),
            **({} if curve.empty else {"loss_by_level.parquet": curve}),
        },
        texts=(f"Bits per byte are {kind}.", markdown_table(_term_rows(summary))),
        definitions=(BITS_PER_BYTE, DOCUMENT_ERROR, *TERM_NOTES),
    )


def _term_rows(summary: LikelihoodSummary) -> list[dict[str, str]]:
    sign = "=" if summary.exact else "≤"
    shown = {
        "bits per byte": with_error(summary.bits_per_byte, summary.bits_per_byte_stderr, sign),
        "nats per token": with_error(summary.nats_per_token, summary.nats_per_token_stderr, sign),
    }
    if not summary.exact:
        shown |= {
            "Monte-Carlo error alone": with_error(summary.bits_per_byte_mc_stderr, digits=4),
            "diffusion term": with_error(summary.diffusion_bits_per_byte),
            "reconstruction term": with_error(summary.reconstruction_bits_per_byte, digits=4),
            "prior term": with_error(summary.prior_bits_per_byte, digits=4),
        }
    shown["measured on"] = f"{summary.sequences} sequences, {summary.tokens} tokens, {summary.bytes} bytes"
    return [{"figure": name, "value": value} for name, value in shown.items()]
