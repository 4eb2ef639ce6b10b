"""An evaluation: a finished model in, a table of figures with their errors, samples and plots out.

metrics.json           every figure by its flat name
metrics.parquet        the same as a long table: group, name, steps, value, stderr
likelihood.parquet     nats of every (sequence, draw): what paired comparisons are made from
loss_by_level.parquet  the bound by noise level (diffusion only)
samples.parquet        the sampled tokens and texts
report.md, plots/      for people
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sumi_core.base.progress import Log, Progress
from sumi_core.corruption.process import ForwardProcess
from sumi_core.data.sequences import PackedSequences, spread_indices
from sumi_core.data.tokenizers.tokenizer import Tokenizer
from sumi_core.evaluation import METRICS
from sumi_core.evaluation.config import EvaluationConfig
from sumi_core.evaluation.corruption_picture import corrupted_texts, plot_corruption
from sumi_core.evaluation.gradient_noise import measure_gradient_noise
from sumi_core.evaluation.likelihood import SequenceLikelihoods, evaluate_likelihood, loss_by_level, summarize
from sumi_core.evaluation.metrics import Reference, SampleMetric, SampleSet
from sumi_core.evaluation.result import Result, report_markdown
from sumi_core.evaluation.samples import Drawn, draw_samples, evenly, sample_set, sequence_bytes, shown_text
from sumi_core.evaluation.yardsticks import END_OF_TEXT, compute_yardsticks, training_bytes
from sumi_core.objectives.objective import Objective
from sumi_core.sampling.sampler import Sampler

_PICTURED = 64  # tokens of a text in the picture of the noise


@dataclass(frozen=True)
class Subject:
    """A finished model and what it is measured on.

    labels: what a reader needs to know of it (objective, process, …). denoiser: in evaluation mode, on ``device``.
    train_texts: opens the documents of the train split, as often as asked. train_counts: how often each token occurs
    there, ``[V]``."""

    key: str
    labels: Mapping[str, str | None]
    denoiser: nn.Module
    objective: Objective
    sampler: Sampler
    process: ForwardProcess | None
    tokenizer: Tokenizer
    validation: PackedSequences
    train_texts: Callable[[], Iterator[str]]
    train_counts: NDArray[np.int64]
    device: torch.device


def evaluate(
    subject: Subject, config: EvaluationConfig, folder: Path, *, batch_size: int, log: Log, progress: Progress
) -> dict[str, Any]:
    """Measure a model; see the module for what is written into ``folder``. Returns the summary."""
    tokenizer, denoiser, validation, device = subject.tokenizer, subject.denoiser, subject.validation, subject.device
    measured = evaluate_likelihood(
        subject.objective,
        denoiser,
        validation,
        config,
        batch_size=batch_size,
        device=device,
        progress=progress,
    )
    drawn = draw_samples(subject.sampler, denoiser, config, len(validation[0]), progress)
    chosen = spread_indices(len(measured.bytes), len(validation))
    tokens = [np.asarray(validation[i], dtype=np.int64) for i in chosen]
    gradient_noise: dict[str, float] = {}
    if config.gradient_sequences and not subject.objective.exact:  # an exact likelihood draws no noise
        rows = torch.from_numpy(np.stack(evenly(tokens, config.gradient_sequences))).to(device)
        gradient_noise = measure_gradient_noise(
            subject.objective, denoiser, rows, seed=config.seed, progress=progress
        ).figures()
    texts = [sequence_bytes(ids, tokenizer) for ids in tokens]
    if subject.process is not None:
        shown = corrupted_texts(subject.process, tokenizer, torch.from_numpy(tokens[0][:_PICTURED]))
        picture = folder / "plots" / "corruption.png"
        plot_corruption(shown, picture, f"{subject.key}: what its noise does to validation text")
    progress(0, 1, "yardsticks", "coding the validation text with compressors")

    coded = sum(len(text) - text.count(END_OF_TEXT) for text in texts)
    if coded != measured.bytes.sum():
        log(f"the tokenizer cuts characters: yardsticks code {coded} bytes, the sequences cover {measured.bytes.sum()}")
    yardsticks = compute_yardsticks(
        training_bytes(subject.train_texts()),
        b"".join(texts),
        coded,
        {
            "train": subject.train_counts,
            "validation": token_counts(tokens, tokenizer.vocab_size),
        },
    )
    progress(0, 1, "metrics", "describing the samples")
    metrics = [METRICS.from_config(metric) for metric in config.metrics]
    sets = {f"steps_{d.steps}": sample_set(list(d.tokens), tokenizer) for d in drawn}
    sets["validation"] = sample_set(evenly(tokens, config.samples), tokenizer)
    described = describe(metrics, sets, Reference(subject.train_texts))
    result = Result(
        labels=dict(subject.labels),
        summary=summarize(measured),
        time_epsilon=config.time_epsilon,
        curve=loss_by_level(measured),
        yardsticks=yardsticks,
        described=described,
        gradient_noise=gradient_noise,
        definitions=[metric.definition for metric in metrics],
        sample_texts={d.steps: [shown_text(row, tokenizer) for row in d.tokens] for d in drawn},
    )
    write_result(folder, subject.key, result, measured, [_digest(text) for text in texts], drawn)
    return result.figures()


def describe(
    metrics: Sequence[SampleMetric], sets: Mapping[str, SampleSet], reference: Reference
) -> dict[str, dict[str, float]]:
    """Every metric on every set: figures by set, then by name."""
    described: dict[str, dict[str, float]] = {label: {} for label in sets}
    for metric in metrics:
        for label, figures in metric.compute_all(sets, reference).items():
            described[label].update(figures)
    return described


def token_counts(sequences: Iterable[NDArray[np.integer[Any]]], vocab_size: int) -> NDArray[np.int64]:
    """How often each token occurs in some sequences, ``[V]``."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for ids in sequences:
        counts += np.bincount(np.asarray(ids, dtype=np.int64), minlength=vocab_size)
    return counts


def write_result(
    folder: Path,
    key: str,
    result: Result,
    measured: SequenceLikelihoods,
    digests: Sequence[str],
    drawn: Sequence[Drawn],
) -> None:
    """Write every file of the stage into ``folder``."""
    import pandas as pd

    from sumi_core.evaluation.plots import Bar, plot_comparison, plot_loss_by_level, plot_quality_against_steps

    (folder / "metrics.json").write_text(json.dumps(result.flat(), indent=1) + "\n", encoding="utf-8")
    table = result.table()
    table.to_parquet(folder / "metrics.parquet", index=False)
    measured.frame(digests).to_parquet(folder / "likelihood.parquet", index=False)
    samples = [
        (d.steps, int(d.nfe[number]), number, ids.tolist(), result.sample_texts[d.steps][number])
        for d in drawn
        for number, ids in enumerate(d.tokens)
    ]
    columns = ["steps", "nfe", "sample", "tokens", "text"]
    pd.DataFrame(samples, columns=columns).to_parquet(folder / "samples.parquet", index=False)
    if not result.curve.empty:
        result.curve.to_parquet(folder / "loss_by_level.parquet", index=False)
        plot_loss_by_level({key: result.curve}, folder / "plots" / "loss_by_level.png", f"{key}: bound by noise level")
    bars = [Bar(key, result.summary.bits_per_byte, result.summary.bits_per_byte_stderr, result.sign, 0)]
    bars += [Bar(name, value) for name, value in result.yardsticks.items()]
    plot_comparison(bars, folder / "plots" / "bits_per_byte.png", "Bits per byte beside the yardsticks")
    quality = table[table["group"].isin(["samples", "validation"])].assign(cell=key)
    if not quality.empty:
        plot_quality_against_steps(quality, folder / "plots" / "sample_quality.png", f"{key}: samples")
    (folder / "report.md").write_text(report_markdown(key, result), encoding="utf-8")


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
