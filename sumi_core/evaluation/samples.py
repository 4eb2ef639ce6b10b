"""Texts drawn from a model and what is said of them; and how token sequences are cut into texts and bytes.

samples.parquet   the sampled tokens and texts
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sumi_core.base.progress import Progress, unwatched
from sumi_core.base.text import excerpt, fenced, markdown_table, with_error
from sumi_core.data.sequences import spread_indices
from sumi_core.evaluation import METRICS
from sumi_core.evaluation.measurement import Context, Findings, Measurement, Model, NamedEstimate, named_estimates
from sumi_core.evaluation.metrics import Reference, SampleMetric, SampleSet

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from sumi_core.data.tokenizers.tokenizer import Tokenizer
    from sumi_core.evaluation.config import EvaluationConfig
    from sumi_core.models.interface import DenoiserFunction
    from sumi_core.sampling.sampler import Sampler

END_OF_TEXT = b"\xff"  # a byte that UTF-8 never uses
END_MARK = "⟨end of text⟩"  # how people see an end-of-text token
VALIDATION = "validation: the same figures of equally many validation sequences of the same length."
_SHOWN_TEXTS, _SHOWN_CHARACTERS = 3, 240  # at each number of steps in the report; of the first one in the summary


@dataclass(frozen=True)
class Drawn:
    """Samples at one number of steps."""

    steps: int  # as asked for; L, for a sampler that writes token by token
    nfe: NDArray[np.int64]  # network calls that each sample took, [num]
    tokens: NDArray[np.int64]  # [num, L]


def draw_samples(
    sampler: Sampler,
    denoiser: DenoiserFunction,
    config: EvaluationConfig,
    length: int,
    progress: Progress = unwatched,
) -> list[Drawn]:
    """Texts at each number of ``config.sampling_steps``, rising.

    A sampler that takes the network calls it needs draws once.
    """
    drawn: list[Drawn] = []
    steps_list = sorted(set(config.sampling_steps)) if sampler.uses_steps else [length]
    for done, steps in enumerate(steps_list):
        progress(done, len(steps_list), "sampling runs", f"sampling, {steps} steps")
        samples = sampler.sample(denoiser, num=config.samples, length=length, steps=steps, seed=config.seed)
        drawn.append(Drawn(steps, samples.nfe.cpu().numpy(), samples.tokens.cpu().numpy()))
    return drawn


def split_texts(ids: NDArray[np.integer[Any]], eos_id: int) -> list[NDArray[np.integer[Any]]]:
    """Token ids of every text in a sequence, cut at end-of-text tokens, which belong to no text."""
    ends = np.flatnonzero(ids == eos_id)
    pieces = np.split(ids, ends)
    return [pieces[0], *(piece[1:] for piece in pieces[1:])]


def sequence_bytes(ids: NDArray[np.integer[Any]], tokenizer: Tokenizer) -> bytes:
    """A sequence's UTF-8 bytes with ``END_OF_TEXT`` for each end-of-text token."""
    return END_OF_TEXT.join(tokenizer.decode_bytes(part) for part in split_texts(ids, tokenizer.eos_id))


def sample_set(sequences: Sequence[NDArray[np.integer[Any]]], tokenizer: Tokenizer) -> SampleSet:
    """What metrics see of sequences."""
    return SampleSet(
        sequences, [[tokenizer.decode(p) for p in split_texts(ids, tokenizer.eos_id)] for ids in sequences]
    )


def shown_text(ids: NDArray[np.integer[Any]], tokenizer: Tokenizer) -> str:
    """A sequence as people read it, with a mark where a text ends."""
    return f"\n{END_MARK}\n".join(tokenizer.decode(part) for part in split_texts(ids, tokenizer.eos_id))


def evenly(items: Sequence[Any], count: int) -> list[Any]:
    """``count`` items spread evenly over all of them (all, if there are fewer)."""
    return [items[i] for i in spread_indices(min(count, len(items)), len(items))]


class Samples(Measurement):
    """Texts at each number of ``sampling_steps``, and what every sample metric says of them and of validation text."""

    reads = ("sequences", "samples", "sampling_steps", "sampler", "metrics", "seed")
    inputs = ("corpus", "token_shards", "exported_model")

    def run(self, model: Model, context: Context) -> Findings:
        """Draw, and describe."""
        config, tokenizer = context.config, model.tokenizer
        length = len(context.text[0])
        drawn = draw_samples(model.sampler, model.denoiser, config, length, context.progress)
        context.progress(0, 1, "metrics", "describing the samples")
        metrics = [METRICS.from_config(metric) for metric in config.metrics]
        sets = {f"steps_{d.steps}": sample_set(list(d.tokens), tokenizer) for d in drawn}
        sets["validation"] = sample_set(evenly(context.tokens, config.samples), tokenizer)
        described = describe(metrics, sets, Reference(context.train_texts))
        context.progress(1, 1, "metrics", "describing the samples")
        texts = {d.steps: [shown_text(row, tokenizer) for row in d.tokens] for d in drawn}
        found = sample_findings(drawn, texts, described, [metric.definition for metric in metrics])
        return _with_plot(found, context)


def describe(
    metrics: Sequence[SampleMetric], sets: Mapping[str, SampleSet], reference: Reference
) -> dict[str, dict[str, float]]:
    """Every metric on every set: figures by set, then by name."""
    described: dict[str, dict[str, float]] = {label: {} for label in sets}
    for metric in metrics:
        for label, figures in metric.compute_all(sets, reference).items():
            described[label].update(figures)
    return described


def sample_findings(
    drawn: Sequence[Drawn],
    texts: Mapping[int, Sequence[str]],
    described: Mapping[str, Mapping[str, float]],
    definitions: Sequence[str],
) -> Findings:
    """Findings of drawn samples. texts: of each sample, by steps. described: figures by set (``steps_32``,
    ``validation``), then by name."""
    best = max(texts)
    shown = ["## Samples", markdown_table(sample_rows(described))]
    for steps, own in texts.items():
        shown += [f"### {steps} steps", *(fenced(text) for text in own[:_SHOWN_TEXTS])]
    return Findings(
        summary={
            "samples": {label: _known(figures) for label, figures in described.items()},
            "sample_steps": best,
            "sample_text": excerpt(texts[best][0], _SHOWN_CHARACTERS),
        },
        estimates=tuple(row for label, figures in described.items() for row in _rows(label, figures)),
        tables={"samples.parquet": _sample_table(drawn, texts)},
        texts=tuple(filter(None, shown)),
        definitions=(*definitions, VALIDATION),
    )


def sample_rows(described: Mapping[str, Mapping[str, float]]) -> list[dict[str, str]]:
    """Sample metrics as table rows: one a metric, one column a set."""
    names = dict.fromkeys(n for figures in described.values() for n in figures if not n.endswith("_stderr"))
    return [
        {"metric": name}
        | {
            label.replace("_", " "): with_error(figures.get(name), figures.get(f"{name}_stderr"))
            for label, figures in described.items()
        }
        for name in names
    ]


def _rows(label: str, figures: Mapping[str, float]) -> tuple[NamedEstimate, ...]:
    steps = int(label.rpartition("_")[2]) if label != "validation" else 0
    return named_estimates("samples" if steps else "validation", figures, steps)


def _sample_table(drawn: Sequence[Drawn], texts: Mapping[int, Sequence[str]]) -> pd.DataFrame:
    import pandas as pd

    rows = [
        (d.steps, int(d.nfe[number]), number, ids.tolist(), texts[d.steps][number])
        for d in drawn
        for number, ids in enumerate(d.tokens)
    ]
    return pd.DataFrame(rows, columns=["steps", "nfe", "sample", "tokens", "text"])


def _with_plot(found: Findings, context: Context) -> Findings:
    """With the metrics drawn against steps, where there are any."""
    if not found.estimates:
        return found
    import pandas as pd

    from sumi_core.evaluation.plots import plot_quality_against_steps

    table = pd.DataFrame(list(found.estimates), columns=list(NamedEstimate._fields)).assign(cell="samples")
    plot = plot_quality_against_steps(table, context.plot("sample_quality.png"), "Samples beside validation text")
    return dataclasses.replace(found, plots=(plot,))


def _known(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if not math.isnan(value)}
