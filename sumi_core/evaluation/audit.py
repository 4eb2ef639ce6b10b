"""What the autoregressive mode of a model says of the texts that its canvas mode writes: no scorer from outside.

    E_{x ~ canvas}[−log p(x)]     beside H(p) = E_{x ~ p}[−log p(x)], in nats per token

    KL(d ‖ p) of a block drawn in one call = Σ_i E_{y_{<i} ~ d} KL(d_i ‖ p(· | x^{<k}, y_{<i}))

d = Π d_i is what one call on pure noise z draws the block from, given z and the text before it, so the divergence is
how far a block of independent tokens is from the autoregressive mode (docs/mathematics.md 11). Its terms are whole sums
over the vocabulary; only what stands before a token in the block is drawn.

audit.parquet    a row for each offset in a block
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sumi_core.base.numerics import no_grad
from sumi_core.base.statistics import mean_estimate, ratio_over_units
from sumi_core.base.text import markdown_table, with_error
from sumi_core.corruption.categorical import draw_categorical
from sumi_core.data.noise import EVALUATION, Noise
from sumi_core.data.vocabulary import Vocabulary
from sumi_core.evaluation.likelihood import documents_of
from sumi_core.evaluation.measurement import Context, Findings, Measurement, Model, named_estimates
from sumi_core.layouts.blocks import Blocks
from sumi_core.models.interface import DenoiserFunction, DenoiserInput
from sumi_core.sampling import SAMPLERS

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

    from sumi_core.corruption.process import ForwardProcess
    from sumi_core.sampling.sampler import Sampler

_DEFINITIONS = (
    "own audit: nats per token of the model's texts under its autoregressive mode, ± over texts. entropy: of texts "
    "that this mode writes itself, the mean of the entropies of its predictions. Texts of the canvas mode that cost "
    "more are less probable than those. Texts that cost less lack variety, as under rules that emit the likeliest "
    "tokens: the difference is KL(canvas ‖ autoregressive) + H(canvas) − H(autoregressive), per token, of either sign.",
    "divergence: nats by which a block drawn in one call on pure noise, given that noise and the validation text "
    "before it, diverges from the autoregressive mode, KL(d ‖ p), by the offset of the token; ± over documents.",
)


class Audit(Measurement):
    """Cost of the model's own texts under its autoregressive mode, and the divergence of blocks of one call; empty for
    a model without both modes."""

    reads = ("sequences", "samples", "sampling_steps", "sampler", "seed")

    def run(self, model: Model, context: Context) -> Findings:
        """Write ``samples`` texts in each way, and read the chosen sequences once."""
        objective, process = model.objective, model.process
        layout = objective.layout
        if "autoregressive" not in objective.readings or not isinstance(layout, Blocks) or process is None:
            return Findings()
        figures = _written(model, context)
        found = read_divergences(model.denoiser, process, layout, objective.eos_id, context, model.device)
        whole = _estimate(found.sum(-1), context)
        figures |= {"divergence_of_block": whole.value, "divergence_of_block_stderr": whole.stderr}
        figures = {name: value for name, value in figures.items() if not math.isnan(value)}
        table = _table(found, context)
        return Findings(
            summary={"audit": figures},
            estimates=named_estimates("audit", figures),
            tables={"audit.parquet": table},
            texts=("## Own audit", markdown_table(_rows(figures)), markdown_table(_shown(table))),
            definitions=_DEFINITIONS,
        )


def _written(model: Model, context: Context) -> dict[str, float]:
    """Nats a token of the model's own texts: of its autoregressive mode the entropy, of its canvas mode the cost."""
    config, length, eos_id = context.config, len(context.text[0]), model.objective.eos_id
    vocabulary = Vocabulary(model.objective.num_tokens, eos_id)
    parts = {"process": model.process, "vocabulary": vocabulary, "layout": model.objective.layout}
    causal: Sampler = SAMPLERS.build("autoregressive", {}, **parts)
    canvas: Sampler = model.sampler if model.sampler.mode == "canvas" else SAMPLERS.build("blockwise", {}, **parts)
    figures: dict[str, float] = {}

    def add(name: str, sampler: Sampler, steps: int, cost: bool) -> None:
        drawn = sampler.sample(model.denoiser, num=config.samples, length=length, steps=steps, seed=config.seed)
        log_p = next_token(model.denoiser, drawn.tokens, eos_id, vocabulary.size)
        found = -log_p.gather(-1, drawn.tokens.unsqueeze(-1))[..., 0] if cost else entropy(log_p)
        estimate = mean_estimate(found.mean(-1).cpu().numpy())
        figures.update({name: estimate.value, f"{name}_stderr": estimate.stderr})

    add("entropy", causal, 1, cost=False)
    for steps in config.sampling_steps:
        add(f"canvas_{steps}", canvas, steps, cost=True)
    return figures


@no_grad
def next_token(denoiser: DenoiserFunction, x: Tensor, eos_id: int, tokens: int) -> Tensor:
    """log p(· | x_{<i}) of the autoregressive mode, ``[B, L]`` → ``[B, L, V]`` float64."""
    inputs = torch.cat([torch.full_like(x[:, :1], eos_id), x[:, :-1]], 1)
    return denoiser(DenoiserInput(inputs)).logits()[..., :tokens].double().log_softmax(-1)


def entropy(log_p: Tensor) -> Tensor:
    """Nats, ``[..., V]`` → ``[...]``."""
    return torch.special.entr(log_p.exp()).sum(-1)


@dataclass(frozen=True)
class OneCall:
    """What one call on pure noise draws the blocks of some texts from. log_d: ``[B, L, V]`` float64, log d_i given z
    and the clean text before the block. drawn: ``[B, L]`` int64, y ~ d."""

    log_d: Tensor
    drawn: Tensor


@no_grad
def draw_blocks(
    denoiser: DenoiserFunction, process: ForwardProcess, layout: Blocks, x: Tensor, eos_id: int, seed: int, rows: range
) -> OneCall:
    """Every block of ``x`` ``[B, L]``, in one pass of two streams at t = 1. rows: the address of each text's noise."""
    z = process.sample_prior(Noise(seed, "audit", 0, rows, x.device), x.shape[1])
    level = torch.ones(len(x), 1, dtype=torch.float64, device=x.device)
    logits = process.predict(layout.of(denoiser, x, eos_id), DenoiserInput(z, level[:, 0]), level)
    chances = process.reverse(logits, z, level, torch.zeros_like(level))[..., : process.num_tokens]
    uniform = Noise(seed, "audit_draw", 0, rows, x.device).uniform(x.shape[1], dtype=torch.float64)
    return OneCall(chances.log(), draw_categorical(chances, uniform))


@no_grad
def divergences(denoiser: DenoiserFunction, layout: Blocks, x: Tensor, eos_id: int, call: OneCall) -> Tensor:
    """KL(d_i ‖ p(· | x^{<k}, y_{<i})) at each position, ``[B, L]`` float64; blocks after each other, each with its own
    tokens y after the clean text before it."""
    n, found = layout.options.length, []
    for begin in range(0, x.shape[1], n):
        inside = slice(begin, begin + n)
        text = torch.cat([x[:, :begin], call.drawn[:, inside]], 1)
        log_p = next_token(denoiser, text, eos_id, call.log_d.shape[-1])[:, begin:]
        log_d = call.log_d[:, inside]
        d = log_d.exp()
        found.append(torch.where(d > 0, d * (log_d - log_p), 0.0).sum(-1))
    return torch.cat(found, 1)


def read_divergences(
    denoiser: DenoiserFunction,
    process: ForwardProcess,
    layout: Blocks,
    eos_id: int,
    context: Context,
    device: torch.device,
) -> NDArray[np.float64]:
    """Of the chosen sequences, ``[N, K, n]``."""
    tokens, found = torch.from_numpy(np.stack(context.tokens)), []
    for start in range(0, len(tokens), context.batch_size):
        x = tokens[start : start + context.batch_size].to(device)
        rows = range(start, start + len(x))
        call = draw_blocks(denoiser, process, layout, x, eos_id, EVALUATION + context.config.seed, rows)
        found.append(divergences(denoiser, layout, x, eos_id, call).cpu().numpy())
        context.progress(start + len(x), len(tokens), "sequences", "audit")
    whole = np.concatenate(found)
    return whole.reshape(len(whole), -1, layout.options.length)


def _estimate(values: NDArray[np.float64], context: Context) -> Any:
    """The mean of ``[N, K]``, with its error over documents."""
    document = documents_of(context.text, context.chosen)
    return ratio_over_units(values.sum(-1), np.full(len(values), values.shape[1]), document)


def _table(found: NDArray[np.float64], context: Context) -> pd.DataFrame:
    import pandas as pd

    estimates = [_estimate(found[:, :, offset], context) for offset in range(found.shape[2])]
    return pd.DataFrame(
        [(offset, own.value, own.stderr) for offset, own in enumerate(estimates)],
        columns=["offset", "divergence", "divergence_stderr"],
    )


def _rows(figures: dict[str, float]) -> list[dict[str, str]]:
    names = [name for name in figures if not name.endswith("_stderr") and name != "divergence_of_block"]
    shown = {"entropy": "its autoregressive mode (entropy)"}
    return [
        {
            "texts of": shown.get(name, f"its canvas mode, steps a block: {name.rpartition('_')[2]}"),
            "nats per token": with_error(figures[name], figures.get(f"{name}_stderr")),
        }
        for name in names
    ]


def _shown(table: pd.DataFrame) -> list[dict[str, str]]:
    return [
        {
            "offset in a block of one call": str(row["offset"]),
            "divergence (nats)": with_error(row["divergence"], row["divergence_stderr"]),
        }
        for row in table.to_dict("records")
    ]
