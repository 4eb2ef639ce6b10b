"""What drafts of a model with two modes are worth: predicted from one pass over validation text, and found in decoding.

One pass of two streams over pure noise gives, for the same text, d_j, what the diffusion mode says of the j-th token of
a block that is not written yet, and p, what the autoregressive mode says of it given all that stands before:

    E[−log d_j(x)] − E[−log p(x)]      what drafting that token costs, in nats; added up over a block, if the
                                       autoregressive mode is exact, no less than the total correlation of its tokens
                                       given what stands before (docs/mathematics.md 11)
    E[Σ_v min(p_v, d_v)], agreement    the chance that such a draft stands, by rejection and by shared noise

The blocks are those of the layout, and the text is real; a sampler's canvases may be shorter, and its text is its own.

drafts.parquet    a row for each offset in a block
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sumi_core.base.numerics import no_grad
from sumi_core.base.statistics import Estimate, ratio_over_units
from sumi_core.base.text import markdown_table, with_error
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.noise import EVALUATION, Noise
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation.likelihood import documents_of
from sumi_core.evaluation.measurement import Context, Findings, Measurement, Model, named_estimates
from sumi_core.kernels.chunks import Tile, by_tiles
from sumi_core.kernels.row_loss import pick
from sumi_core.layouts.blocks import Blocks
from sumi_core.models.interface import DenoiserFunction, DenoiserInput
from sumi_core.sampling import SAMPLERS
from sumi_core.sampling.acceptance import agreement, overlap, standing, tokens_per_forward
from sumi_core.sampling.canvas import Canvas
from sumi_core.sampling.choosing import tempered
from sumi_core.sampling.drafting import Standing
from sumi_core.sampling.generate import generate
from sumi_core.sampling.speculative import Speculative

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

_DEFINITIONS = (
    "draft cost: nats that a token costs more under what the diffusion mode says of it in a block of pure noise than "
    "under the autoregressive mode; ± over documents. If the autoregressive mode were exact, its sum over a block "
    "would be no less than the total correlation of the block's tokens given the text before.",
    "overlap, agreement: the chance that a draft at that offset stands if those before it do, by rejection (1 − total "
    "variation) and by shared noise; at the temperature of the sampler, on validation text.",
    "tokens per forward: of speculative decoding; predicted: by the chance that the drafts up to an offset all stand, "
    "a mean along validation text, exact for text of the model itself at temperature 1. found: in texts that the model "
    "writes. Slots per token: what the passes compute.",
)


class Drafts(Measurement):
    """Cost and acceptance of drafts by offset, beside what decoding shows; empty for a model without both modes."""

    version = "2"
    reads = ("sequences", "samples", "sampler", "seed")

    def run(self, model: Model, context: Context) -> Findings:
        """Read the chosen sequences once, and write ``samples`` texts."""
        layout = model.objective.layout
        if "autoregressive" not in model.objective.readings or not isinstance(layout, Blocks) or model.process is None:
            return Findings()
        sampler = self._sampler(model, layout)
        told = read_drafts(model, sampler, context)
        found = decode(sampler, model.denoiser, context)
        table = drafts_table(told, found, sampler)
        figures = figures_of(told, found, sampler)
        return Findings(
            summary={"drafts": figures},
            estimates=named_estimates("drafts", figures),
            tables={"drafts.parquet": table},
            texts=("## Drafts", markdown_table(_shown(table)), _sentence(sampler, figures)),
            definitions=_DEFINITIONS,
        )

    @staticmethod
    def _sampler(model: Model, layout: Blocks) -> Speculative:
        """The model's own, where it speculates, else one with the defaults."""
        if isinstance(model.sampler, Speculative):
            return model.sampler
        objective = model.objective
        vocabulary = Vocabulary(objective.num_tokens, objective.eos_id)
        made: Speculative = SAMPLERS.build(
            "speculative", {}, process=model.process, vocabulary=vocabulary, layout=layout
        )
        return made


@dataclass(frozen=True)
class Told:
    """What one pass says of N sequences of K blocks of n tokens, each field ``[N, K, n]`` float64. cost: nats of the
    text under d less those under p. overlap, agreement: of p and d. standing: of the text's own tokens, by the rule of
    the sampler. document: ``[N]``, in which a sequence begins."""

    cost: NDArray[np.float64]
    overlap: NDArray[np.float64]
    agreement: NDArray[np.float64]
    standing: NDArray[np.float64]
    document: NDArray[np.int64]

    def at_offset(self, values: NDArray[np.float64], offset: int) -> Estimate:
        """The mean at one place of a block, with its error over documents."""
        sums = values[:, :, offset].sum(-1)
        return ratio_over_units(sums, np.full(len(sums), values.shape[1]), self.document)

    def stands(self, rule: str) -> list[float]:
        """P_j, j = 1 … n − 1: the chance that the drafts at offsets 1 … j all stand (``acceptance.standing``)."""
        chances = (self.agreement if rule == "gumbel" else self.overlap)[:, :, 1:]
        before = np.ones_like(chances)
        before[:, :, 1:] = self.standing[:, :, 1:-1].cumprod(-1)
        return [float(value) for value in (before * chances).mean((0, 1))]


@dataclass(frozen=True)
class _Compared:
    """What both modes say of texts x ``[B, L]``, a piece at a time. z, level: ``[B, L]``, the noise and its level.
    logits: leave-one-out of the noise, ``[B, L, S]``. causal: of the next token, ``[B, L, S]``."""

    process: ForwardProcess
    sampler: Speculative
    x: Tensor
    z: Tensor
    level: Tensor
    logits: Tensor
    causal: Tensor

    def at(self, tile: Tile) -> tuple[Tensor, ...]:
        """Cost, overlap, agreement and standing of the tokens of a piece."""
        x, level, options, count = self.x[tile], self.level[tile], self.sampler.options, self.process.num_tokens
        d = self.process.reverse(self.logits[tile], self.z[tile], level, torch.zeros_like(level))[..., :count].log()
        p = self.causal[tile][..., :count].double().log_softmax(-1)
        sharp = tempered(p, options.temperature), tempered(d, options.temperature)
        return pick(p, x) - pick(d, x), overlap(*sharp), agreement(*sharp), standing(*sharp, x, options.verify)


@no_grad
def read_drafts(model: Model, sampler: Speculative, context: Context) -> Told:
    """One pass of two streams over each chosen sequence, its blocks in pure noise."""
    objective, process, n = model.objective, model.process, sampler.layout.options.length
    assert process is not None
    found: list[tuple[Tensor, ...]] = []
    tokens = torch.from_numpy(np.stack(context.tokens))
    for start in range(0, len(tokens), context.batch_size):
        x = tokens[start : start + context.batch_size].to(model.device)
        rows = range(start, start + len(x))
        z = process.sample_prior(Noise(EVALUATION + context.config.seed, "drafts", 0, rows, model.device), x.shape[1])
        level = torch.ones(len(x), 1, dtype=torch.float64, device=model.device)
        both = sampler.layout.both(model.denoiser, x, objective.eos_id)
        of_noise, of_text = both(DenoiserInput(z, level[:, 0]))
        logits = process.predict(lambda _, output=of_noise: output, DenoiserInput(z, level[:, 0]), level)  # type: ignore[misc]
        compared = _Compared(process, sampler, x, z, level.expand(x.shape), logits, of_text.logits())
        found.append(tuple(by_tiles(logits, compared.at)))
        context.progress(start + len(x), len(tokens), "sequences", "drafts")
    cost, together, same, kept = (
        torch.cat(part).unflatten(1, (-1, n)).cpu().numpy() for part in zip(*found, strict=True)
    )
    return Told(cost, together, same, kept, documents_of(context.text, context.chosen))


@dataclass(frozen=True)
class Found:
    """What decoding shows. tokens, nfe, slots: of all texts. accepted: how many drafts stood, of every pass in which k
    of them were looked at and all lay within the text."""

    tokens: int
    nfe: int
    slots: int
    accepted: NDArray[np.int64]

    def stands(self, drafts: int) -> list[float]:
        """P_j, j = 1 … ``drafts``: the share of those passes in which the first j all stood; NaN without any."""
        looked = self.accepted
        return [float((looked >= j).mean()) if len(looked) else math.nan for j in range(1, drafts + 1)]


def decode(sampler: Speculative, denoiser: DenoiserFunction, context: Context) -> Found:
    """Write ``samples`` texts of the length of the sequences and watch the drafts."""
    config, length = context.config, len(context.text[0])
    device = next((p.device for p in getattr(denoiser, "parameters", list)()), torch.device("cpu"))
    nothing = [torch.zeros(0, dtype=torch.int64)] * config.samples
    blank = Canvas.blank(nothing, [length] * config.samples, seed=config.seed, steps=1, device=device)
    looked: list[Tensor] = []
    before: Canvas | None = None
    for canvas in generate(sampler, denoiser, blank):
        if before is not None:
            was, now = before.state, canvas.state
            assert isinstance(was, Standing)
            assert isinstance(now, Standing)
            within = ~before.done & (was.settled + was.drafted < length)
            if was.drafted:
                looked.append((now.settled - was.settled - 1)[within])
        before = canvas
    accepted = torch.cat(looked).cpu().numpy() if looked else np.zeros(0, dtype=np.int64)
    return Found(config.samples * length, int(canvas.nfe.sum()), int(canvas.slots.sum()), accepted)


def drafted(sampler: Speculative) -> int:
    """How many drafts are looked at together."""
    options = sampler.options
    return options.width if options.shape == "fan" else options.width - options.draft_steps


def drafts_table(told: Told, found: Found, sampler: Speculative) -> pd.DataFrame:
    """One row for each offset in a block. Columns: offset, cost, cost_stderr, overlap, overlap_stderr, agreement,
    agreement_stderr, predicted and found: the chance that the drafts up to there all stand; NaN where there is none."""
    import pandas as pd

    predicted, shown = told.stands(sampler.options.verify), found.stands(drafted(sampler))
    rows: list[dict[str, Any]] = []
    for offset in range(told.cost.shape[2]):
        row: dict[str, Any] = {"offset": offset}
        for name in ("cost", "overlap", "agreement"):
            estimate = told.at_offset(getattr(told, name), offset)
            row |= {name: estimate.value, f"{name}_stderr": estimate.stderr}
        row["predicted"] = predicted[offset - 1] if offset else math.nan
        row["found"] = shown[offset - 1] if 0 < offset <= len(shown) else math.nan
        rows.append(row)
    return pd.DataFrame(rows)


def figures_of(told: Told, found: Found, sampler: Speculative) -> dict[str, float]:
    """The headline figures by name, without those that are not known."""
    options, behind = sampler.options, told.cost.shape[2] > 1
    sums = told.cost.sum((1, 2))
    cost = ratio_over_units(sums, np.full(len(sums), told.cost.shape[1]), told.document)
    figures = {"cost_of_block": cost.value, "cost_of_block_stderr": cost.stderr}
    for name in ("overlap", "agreement"):
        if behind:
            values = getattr(told, name)[:, :, 1:]
            sums = values.sum((1, 2))
            mean = ratio_over_units(sums, np.full(len(sums), values[0].size), told.document)
            figures |= {name: mean.value, f"{name}_stderr": mean.stderr}
    figures["tokens_per_forward"] = found.tokens / found.nfe
    figures["slots_per_token"] = found.slots / found.tokens
    count = drafted(sampler)
    if options.draft_steps == 1 and not options.recycle and count < told.cost.shape[2]:  # canvases of pure noise
        predicted = told.stands(options.verify)[:count]
        figures["tokens_per_forward_predicted"] = tokens_per_forward(options.shape, predicted)
    return {name: value for name, value in figures.items() if not math.isnan(value)}


def _shown(table: pd.DataFrame) -> Sequence[dict[str, str]]:
    def chance(value: float) -> str:
        return "–" if math.isnan(value) else f"{value:.3f}"

    return [
        {
            "offset": str(row["offset"]),
            "draft cost (nats)": with_error(row["cost"], row["cost_stderr"]),
            "overlap": with_error(row["overlap"], row["overlap_stderr"]),
            "agreement": with_error(row["agreement"], row["agreement_stderr"]),
            "all stand, predicted": chance(row["predicted"]),
            "all stand, found": chance(row["found"]),
        }
        for row in table.to_dict("records")
    ]


def _sentence(sampler: Speculative, figures: dict[str, float]) -> str:
    options = sampler.options
    predicted = figures.get("tokens_per_forward_predicted")
    told = "" if predicted is None else f" ({predicted:.2f} predicted)"
    return (
        f"Speculation of shape {options.shape} and width {options.width} at temperature {options.temperature:g} writes "
        f"{figures['tokens_per_forward']:.2f} tokens a forward{told}, and computes {figures['slots_per_token']:.1f} "
        "slots a token."
    )
