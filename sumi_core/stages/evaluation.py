"""Stage ``evaluation``: what a finished model is worth."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sumi_core.base.numerics import choose_device, deterministic
from sumi_core.evaluation import MEASUREMENTS
from sumi_core.experiments.references import located, stage_refs, unlocated
from sumi_core.stages.base import Check, MissingInput, Records, Stage, StageContext, Verdict
from sumi_core.stages.measurements import ensure_measured, measurement_identity, measurement_kind
from sumi_core.stages.store import Artifact, Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from sumi_core.evaluation.measurement import Context, Measurement, Model
    from sumi_core.experiments.schema import Experiment

MEASURED = "measurements.json"  # the fingerprint of each measurement


def build(context: StageContext) -> dict[str, Any]:
    """Measure the exported model, as far as it is not measured yet, and unite what was found."""
    from sumi_core.evaluation.result import write_evaluation

    experiment = context.experiment
    labels = {
        "objective": experiment.objective["name"],
        "process": experiment.process["name"] if experiment.process else None,
        "schedule": experiment.schedule["name"] if experiment.schedule else None,
        "sampler": experiment.evaluation.sampler["name"],
    }
    measured = _measure(context)
    fingerprints = {name: artifact.fingerprint for name, artifact in measured.items()}
    (context.folder / MEASURED).write_text(json.dumps(fingerprints, indent=1) + "\n", encoding="utf-8")
    folders = {name: artifact.folder for name, artifact in measured.items()}
    return write_evaluation(context.folder, context.key, labels, folders)


def _measure(context: StageContext) -> dict[str, Artifact]:
    """The output of each measurement by its name, in the order of the config."""
    from sumi_core.stages.identity import made_from, outside_code

    assert context.store is not None
    experiment, recorded = context.experiment, unlocated(context.experiment)
    inputs = {name: artifact.fingerprint for name, artifact in context.inputs.items()}
    references = {
        ref.key: {"stage": ref.stage, "fingerprint": context.references[ref.key].fingerprint}
        for ref in stage_refs(recorded)
        if ref.key in context.references
    }
    sources, code = made_from(experiment, STAGE), outside_code(experiment, STAGE)
    opened = functools.cache(lambda: open_model(experiment, context.inputs["exported_model"].folder, context.store))
    measured: dict[str, Artifact] = {}
    with deterministic(experiment.runtime.threads):
        for component in experiment.evaluation.measurements:
            name = component["name"]

            def measure(folder: Path, component: Mapping[str, Any] = component) -> dict[str, Any]:
                from sumi_core.evaluation.measurement import declared_model, write_findings

                measurement = MEASUREMENTS.from_config(component)
                model = declared_model(opened(), type(measurement))
                found = measurement.run(model, _material(context, type(measurement), folder))
                if not (found.summary or found.tables or found.plots):
                    context.log(f"{component['name']}: not applicable to this model; no figures")
                write_findings(found, folder)
                return dict(found.summary)

            identity = measurement_identity(experiment, name, inputs, sources, code, references)
            measured[name], ready = ensure_measured(
                context.store,
                measurement_kind(name),
                identity,
                measure,
                key=context.key,
                experiment=recorded,
                provenance=context.provenance,
                log=context.log,
            )
            if ready:
                context.log(f"{name} is measured already")
    return measured


def open_model(experiment: Experiment, exported: Path, store: Store | None = None) -> Model:
    """The exported model in ``exported`` with the parts of ``experiment``: cells share an export that differ in their
    sampler alone. store: holds the outputs of other cells that its weights started from."""
    from sumi_core.evaluation.measurement import Model
    from sumi_core.experiments.build import build_parts
    from sumi_core.experiments.size import reads_token_levels
    from sumi_core.export.loading import load_exported, with_references

    device = choose_device(experiment.runtime.device)
    loaded = load_exported(exported)
    parts = build_parts(with_references(experiment, exported), loaded.parts.vocabulary)
    denoiser = loaded.denoiser.to(device).eval()
    told = reads_token_levels(experiment)

    def initial() -> nn.Module:
        from sumi_core.models.denoiser import build_denoiser

        model = _with_start(experiment, store).model
        return build_denoiser(model, parts.num_states, experiment.seed, parts.num_tokens).to(device).eval()

    return Model(denoiser, parts.objective, parts.sampler, parts.process, loaded.tokenizer, device, told, initial)


def _with_start(experiment: Experiment, store: Store | None) -> Experiment:
    """A copy of an experiment whose model finds the outputs of other cells that its weights start from. They are in the
    fingerprint of the training, and so in that of the export. Raises MissingInput for one that is no longer there."""
    from sumi_core.stages.identity import ref_fingerprint

    folders = {}
    for ref in stage_refs(experiment):
        if not ref.key.startswith("model."):
            continue
        found = None if store is None else store.find(ref.stage, ref_fingerprint(ref))
        if found is None:
            raise MissingInput(
                f"{ref.key}: the weights that the training began with, {ref.stage} of '{ref.cell}', are not in the "
                f"store; run '{ref.cell}' again"
            )
        folders[ref.key] = found.folder
    return located(experiment, folders)


def _material(context: StageContext, measurement: type[Measurement], folder: Path) -> Context:
    """The validation split and what a measurement reads beside it, as far as it declares it."""
    from sumi_core.data.corpus import read_texts
    from sumi_core.data.shards import TokenShards
    from sumi_core.data.vocabulary import read_tables
    from sumi_core.evaluation.measurement import Context, declared_settings, declared_text, require_input

    experiment, folders = context.experiment, context.folders
    shards = TokenShards(folders["token_shards"])

    def train_texts() -> Iterator[str]:
        require_input(measurement, "the train texts", "corpus")
        return (document.text for document in read_texts(folders["corpus"], "train"))

    def train_counts() -> NDArray[np.int64]:
        require_input(measurement, "the counts of train tokens", "token_shards")
        tables = read_tables({"token_counts": folders["token_shards"]}, shards.index["vocab_size"])
        return tables["token_counts"].numpy()

    def source() -> Mapping[str, Any]:
        require_input(measurement, "the corpus source", "corpus")
        component: Mapping[str, Any] = experiment.corpus.source
        return component

    def corpus() -> Mapping[str, Any]:
        require_input(measurement, "the corpus", "corpus")
        section: Mapping[str, Any] = experiment.to_dict()["corpus"]
        return section

    return Context(
        declared_settings(experiment.evaluation, measurement),
        declared_text(shards.split("validation"), measurement),
        folder,
        experiment.runtime.evaluation_batch,
        train_texts,
        train_counts,
        source,
        context.log,
        context.progress,
        corpus,
    )


def _beats_token_frequencies(artifact: Artifact) -> Verdict:
    model = float(artifact.summary["bits_per_byte"])
    if "yardsticks" not in artifact.summary:
        return Verdict(True, "no yardsticks were measured")
    seen = _tokens_asked(artifact)
    if seen is not None and seen < _TOO_FEW:
        return Verdict(True, f"not applicable: {seen:,} tokens of training are too few to learn from")
    unigram = float(artifact.summary["yardsticks"]["unigram_tokens"])
    return Verdict(
        model < unigram,
        "A model that learned anything codes text in fewer bits than token frequencies alone.",
        {"bits_per_byte": model, "unigram_tokens": unigram},
    )


def _tokens_asked(artifact: Artifact) -> int | None:
    """How many tokens the model's training takes, if the record tells."""
    recorded = artifact.manifest.get("experiment", {})
    try:
        training, length = recorded["training"], recorded["shards"]["sequence_length"]
        return int(training["steps"] * training["batch_size"] * length)
    except (KeyError, TypeError):
        return None


_TOO_FEW = 100_000  # tokens: `smoke` takes every stage once and learns nothing, which is no cause for a warning

#: Of the texts and the settings: the same for every model.
_GIVEN = (
    *("bytes", "documents", "sequences", "tokens", "sample_steps", "time_epsilon"),
    *("gradient_noise.gradients", "gradient_noise.sequences", "yardsticks.*", "samples.validation.*"),
    *("tasks.instances", "frontier.texts", "frontier.validation.*", "frontier.scorer_is_model"),
    *("mauve.texts", "mauve.validation.*"),
)

STAGE = Stage(
    "evaluation",
    "7",
    "Bits per byte with its standard error, loss by noise level, yardsticks on the same bytes, samples.",
    build,
    "cell",
    doing="measuring the model",
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
    records=Records(files=("report.md", "metrics.json", "samples.parquet"), of_model=True, constants=_GIVEN),
    group="evaluation",
    kinds=frozenset({"pandas"}),
)
