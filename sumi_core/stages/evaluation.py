"""Stage ``evaluation``: what a finished model is worth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sumi_core.base.numerics import choose_device, deterministic
from sumi_core.stages.base import Check, Records, Stage, StageContext, Verdict
from sumi_core.stages.store import Artifact


def build(context: StageContext) -> dict[str, Any]:
    """Measure the exported model; see ``sumi_core.evaluation.evaluate``."""
    from sumi_core.data.corpus import read_texts
    from sumi_core.data.shards import TokenShards
    from sumi_core.data.vocabulary import read_tables
    from sumi_core.evaluation.evaluate import Subject, evaluate
    from sumi_core.experiments.build import build_parts
    from sumi_core.export.loading import load_exported

    experiment, folders = context.experiment, context.folders

    def train_texts() -> Iterator[str]:
        return (document.text for document in read_texts(folders["corpus"], "train"))

    device = choose_device(experiment.runtime.device)
    with deterministic(experiment.runtime.threads):
        exported = load_exported(folders["exported_model"])
        parts = build_parts(experiment, exported.parts.vocabulary)  # this cell's own sampler, not the exporting one's
        counts = read_tables({"token_counts": folders["token_shards"]}, parts.num_tokens)["token_counts"].numpy()
        subject = Subject(
            key=context.key,
            labels={
                "objective": experiment.objective["name"],
                "process": experiment.process["name"] if experiment.process else None,
                "schedule": experiment.schedule["name"] if experiment.schedule else None,
                "sampler": experiment.evaluation.sampler["name"],
            },
            denoiser=exported.denoiser.to(device).eval(),
            objective=parts.objective,
            sampler=parts.sampler,
            process=parts.process,
            tokenizer=exported.tokenizer,
            validation=TokenShards(folders["token_shards"]).split("validation"),
            train_texts=train_texts,
            train_counts=counts,
            device=device,
        )
        return evaluate(
            subject,
            experiment.evaluation,
            context.folder,
            batch_size=experiment.runtime.evaluation_batch,
            log=context.log,
            progress=context.progress,
        )


def _beats_token_frequencies(artifact: Artifact) -> Verdict:
    model = float(artifact.summary["bits_per_byte"])
    unigram = float(artifact.summary["yardsticks"]["unigram_tokens"])
    return Verdict(
        model < unigram,
        "A model that learned anything codes text in fewer bits than token frequencies alone.",
        {"bits_per_byte": model, "unigram_tokens": unigram},
    )


STAGE = Stage(
    "evaluation",
    "6",
    "Bits per byte with its standard error, loss by noise level, yardsticks on the same bytes, samples.",
    build,
    "cell",
    reads=("evaluation",),
    inputs=("corpus", "tokenizer", "token_shards", "exported_model"),
    checks=(
        Check(
            "beats_token_frequencies",
            "The model codes validation text in fewer bits than token frequencies alone.",
            _beats_token_frequencies,
            warn=True,
        ),
    ),
    records=Records(files=("report.md", "metrics.json", "samples.parquet"), of_model=True),
    group="evaluation",
    kinds=frozenset({"pandas"}),
)
